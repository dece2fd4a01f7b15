"""Names on the Hugging Face hub are found in a cache with the hub's layout, and on a stand-in on this machine."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import hub_stand_in
import pytest
from huggingface_hub import constants

from ltx_dist.checkpoints.checkpoint import DEMO_MODEL, on_this_machine, open_checkpoint
from ltx_dist.checkpoints.digests import checkpoint_digest
from ltx_dist.checkpoints.hub import CHECKPOINT_FILES, T5_FILES, is_hub_name

COMMIT, OLDER = "0123456789abcdef" * 2 + "01234567", "fedcba9876543210" * 2 + "fedcba98"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache as `hf download` leaves it: one snapshot per commit, and a file that names the commit of `main`."""
    repository = tmp_path / "hub" / "models--someone--a-model"
    for commit in (COMMIT, OLDER):
        shutil.copytree(DEMO_MODEL, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


@pytest.mark.parametrize(
    ("name", "commit"),
    [("someone/a-model", COMMIT), (f"someone/a-model@{OLDER}", OLDER), ("someone/a-model@main", COMMIT)],
)
def test_a_name_becomes_the_commit_it_stands_for(cache: Path, name: str, commit: str) -> None:
    checkpoint = open_checkpoint(name)
    assert checkpoint.name == f"someone/a-model@{commit}"
    assert checkpoint.path == cache / "models--someone--a-model" / "snapshots" / commit
    assert checkpoint_digest(checkpoint) == checkpoint_digest(open_checkpoint("demo"))
    assert open_checkpoint(checkpoint.name) == checkpoint, "the name that is recorded finds the same files"


def test_a_folder_comes_before_a_name_on_the_hub(cache: Path) -> None:
    shutil.copytree(DEMO_MODEL, "someone/a-model")
    assert open_checkpoint("someone/a-model").path == Path("someone/a-model")


def test_the_text_encoder_may_be_on_the_hub(cache: Path) -> None:
    checkpoint = open_checkpoint("demo", "someone/a-model")
    assert (
        checkpoint.folder("text_encoder") == cache / "models--someone--a-model" / "snapshots" / COMMIT / "text_encoder"
    )


@pytest.mark.parametrize("name", ["someone/other", f"someone/a-model@{'9' * 40}"])
def test_what_is_not_cached_is_named_with_what_to_do(cache: Path, name: str) -> None:
    with pytest.raises(
        ValueError, match=r"model\.checkpoint: .*not in the cache .*`hf download someone/[a-z-]+ --include"
    ):
        open_checkpoint(name)
    with pytest.raises(ValueError, match=r"model\.text_encoder: .*not in the cache"):
        open_checkpoint("demo", name)


def test_a_snapshot_that_is_not_whole_says_what_is_missing(cache: Path) -> None:
    shutil.rmtree(cache / "models--someone--a-model" / "snapshots" / COMMIT / "vae")
    with pytest.raises(ValueError, match=r"vae/config\.json: missing"):
        open_checkpoint("someone/a-model")


def open_in_a_process(
    name: str, cache: Path, address: str, text_encoder: str | None = None
) -> subprocess.CompletedProcess[str]:
    """The hub's address is read when huggingface_hub is imported, so another one needs another process."""
    opened = f"open_checkpoint({name!r}, {text_encoder!r})"
    code = f"from ltx_dist.checkpoints.checkpoint import open_checkpoint\nprint({opened}.name)"
    env = os.environ | {"HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(cache), "HF_ENDPOINT": address}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["someone/a-model", "gone/missing"])
def test_without_network_the_cache_is_used(cache: Path, name: str) -> None:
    """Here the hub is offline because nothing listens at its address, not because of HF_HUB_OFFLINE."""
    run = open_in_a_process(name, cache, "http://127.0.0.1:9")
    if name == "someone/a-model":
        assert run.stdout.strip() == f"someone/a-model@{COMMIT}", run.stderr
    else:
        assert "NotCachedError: model.checkpoint: gone/missing: no such folder, not in the cache" in run.stderr


def test_no_pickle_and_no_single_file_is_asked_for() -> None:
    from fnmatch import fnmatch

    for refused in ("ltxv-13b-0.9.8-dev.safetensors", "text_encoder/pytorch_model.bin", "vae/x.pt", "run.py"):
        assert not any(fnmatch(refused, pattern) for pattern in CHECKPOINT_FILES), refused


class Marked:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.marker,)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """What official repositories hold: a model in folders, and beside them pickles and single files."""
    folder = shutil.copytree(DEMO_MODEL, tmp_path / "model")
    for name in ("text_encoder/pytorch_model.bin", "vae/old.pt", "transformer/x.ckpt", "all.pkl", "graph.pt2"):
        (folder / name).write_bytes(pickle.dumps(Marked(tmp_path / "marker")))
    (folder / "ltxv-13b-0.9.8-dev.safetensors").write_bytes(b"26 GB")
    (folder / "modeling.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    return folder


def test_the_marker_is_written_when_the_pickle_is_loaded(model: Path, tmp_path: Path) -> None:
    """Otherwise, the tests below would prove nothing."""
    pickle.loads((model / "all.pkl").read_bytes())
    assert (tmp_path / "marker").exists()


def test_a_model_is_downloaded_once_at_one_commit_and_then_works_offline(model: Path, tmp_path: Path) -> None:
    hub_cache = tmp_path / "hub"
    with hub_stand_in.serve("someone/a-model", model) as hub:
        first = open_in_a_process("someone/a-model", hub_cache, hub.address)
        assert first.stdout.strip() == f"someone/a-model@{hub_stand_in.COMMIT}", first.stderr
        loaded = {
            name
            for name in hub.files()
            if name.startswith(("text", "tok", "trans", "vae/", "sched", "model_", "latent"))
        }
        wanted = {name for name in loaded if name.endswith((".json", ".safetensors", ".model", ".txt"))}
        assert sorted(hub.gets()) == sorted(wanted), "each once; no pickle, no code, no other version's file"
        # The name is resolved once; everything after that asks for the commit.
        assert sum("/main" in line for line in hub.asked) <= 1 < len(hub.asked), hub.asked
        hub.asked.clear()
        again = open_in_a_process("someone/a-model@main", hub_cache, hub.address)
        assert again.stdout == first.stdout and hub.gets() == [], "from the cache"
        hub.asked.clear()
        pinned = open_in_a_process(f"someone/a-model@{hub_stand_in.COMMIT}", hub_cache, hub.address)
        assert pinned.stdout == first.stdout and hub.gets() == []
        missing = open_in_a_process("someone/other", hub_cache, hub.address)
        assert "model.checkpoint: someone/other: no such folder, and the hub refused it" in missing.stderr
    for address in ("http://127.0.0.1:9", hub.address):  # nothing listens there (any more)
        offline = open_in_a_process("someone/a-model", hub_cache, address)
        assert offline.stdout == first.stdout, offline.stderr
    assert not (tmp_path / "marker").exists()


def test_a_model_of_pickles_alone_is_refused_and_not_even_downloaded(model: Path, tmp_path: Path) -> None:
    (model / "text_encoder" / "model.safetensors").unlink()
    with hub_stand_in.serve("someone/a-model", model) as hub:
        run = open_in_a_process("someone/a-model", tmp_path / "hub", hub.address)
        assert run.returncode != 0 and "text_encoder: no weights; model.safetensors" in run.stderr
        assert "only safetensors are downloaded: other formats can run code when opened" in run.stderr
        assert not [name for name in hub.gets() if name.endswith((".bin", ".pt", ".ckpt", ".pkl", ".pt2", ".py"))]
    assert not (tmp_path / "marker").exists()


@pytest.mark.fault(29)
@pytest.mark.parametrize("class_name", ["LTX2DFRPipeline", "StableDiffusionPipeline", None])
def test_no_weights_of_another_model_are_downloaded(model: Path, tmp_path: Path, class_name: str | None) -> None:
    index = model / "model_index.json"
    if class_name is None:
        index.unlink()
    else:
        index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": class_name}))
    with hub_stand_in.serve("someone/a-model", model) as hub:
        run = open_in_a_process("someone/a-model", tmp_path / "hub", hub.address)
        error = run.stderr.partition("ValueError: ")[2].strip()
        assert error.startswith("model.checkpoint: ") and error.count("\n") == 0, run.stderr
        assert (f"_class_name: {class_name!r} is not LTXPipeline" if class_name else "no model_index.json") in error
        assert not [name for name in hub.gets() if name.endswith(".safetensors")], hub.gets()


def test_no_weights_of_another_text_encoder_are_downloaded(model: Path, tmp_path: Path) -> None:
    config = model / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "umt5"}))
    with hub_stand_in.serve("someone/a-model", model) as hub:
        run = open_in_a_process("demo", tmp_path / "hub", hub.address, "someone/a-model")
        assert "model_type: 'umt5' is not 't5'; give a T5 encoder" in run.stderr
        assert not [name for name in hub.gets() if name.endswith(".safetensors")], hub.gets()


def test_a_text_encoder_that_is_replaced_is_not_downloaded(model: Path, tmp_path: Path) -> None:
    with hub_stand_in.serve("someone/a-model", model) as hub:
        run = open_in_a_process("someone/a-model", tmp_path / "hub", hub.address, str(DEMO_MODEL))
        assert run.stdout.strip() == f"someone/a-model@{hub_stand_in.COMMIT}", run.stderr
        assert "vae/diffusion_pytorch_model.safetensors" in hub.gets()
        assert "text_encoder/model.safetensors" not in hub.gets()


@pytest.mark.fault(25)
def test_a_revision_may_hold_slashes(model: Path, tmp_path: Path) -> None:
    """The name of a pull request has a slash, and its snapshot is found in the cache again."""
    with hub_stand_in.serve("someone/a-model", model) as hub:
        first = open_in_a_process("someone/a-model@refs/pr/32", tmp_path / "hub", hub.address)
        assert first.stdout.strip() == f"someone/a-model@{hub_stand_in.COMMIT}", first.stderr
        assert "GET /api/models/someone/a-model/revision/refs/pr/32" in hub.asked
    offline = open_in_a_process("someone/a-model@refs/pr/32", tmp_path / "hub", "http://127.0.0.1:9")
    assert offline.stdout == first.stdout, offline.stderr


def test_a_run_records_the_commit(model: Path, tmp_path: Path) -> None:
    """The commit is printed, and it is in run.json, in the sidecar, and in what `decode` starts from."""
    out, prompts = tmp_path / "out", tmp_path / "prompts.txt"
    prompts.write_text("a red circle\n")
    settings = [
        "model.checkpoint=someone/a-model", "model.text_encoder=someone/a-model", "defaults.height=64",
        "defaults.width=64", "defaults.num_frames=9", "defaults.num_inference_steps=1", "placement.threads=1",
    ]  # fmt: skip
    chosen = [argument for setting in settings for argument in ("--set", setting)]
    command = [sys.executable, "-m", "ltx_dist.cli", "render", str(prompts), "-o", str(out), *chosen]
    with hub_stand_in.serve("someone/a-model", model) as hub:
        env = os.environ | {"HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_ENDPOINT": hub.address}
        run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    name = f"someone/a-model@{hub_stand_in.COMMIT}"
    assert run.returncode == 0 and name in run.stdout, run.stdout + run.stderr
    record = json.loads((out / "run.json").read_text())
    assert (record["checkpoint"]["name"], record["checkpoint"]["text_encoder"]) == (name, name)
    assert json.loads((out / "001-a-red-circle.json").read_text())["checkpoint"] == record["checkpoint"]
    model_section = json.loads((out / ".ltx-dist" / "config.json").read_text())["model"]
    assert (model_section["checkpoint"], model_section["text_encoder"]) == (name, name)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("a/b", True), ("a/b@main", True), ("Lightricks/LTX-Video-0.9.7-dev@0a1", True), ("a", False), ("a/b/c", False),
     ("../b", False), ("/a/b", False), ("a/b@", False),
     ("a/b@refs/pr/32", True), ("a/b@feature/x-1", True), ("a/b@../x", False), ("a/b@refs/../../x", False),
     ("a/b@refs//x", False), ("a/b@/x", False), ("a/b@x/", False), ("a/..", False), ("a/b@.git", False)],
)  # fmt: skip
def test_what_has_the_form_of_a_hub_name(name: str, is_one: bool) -> None:
    assert is_hub_name(name) == is_one


def test_another_machine_finds_a_model_of_the_hub_in_its_own_cache(cache: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint("someone/a-model")
    assert on_this_machine(checkpoint) == checkpoint
    elsewhere = replace(checkpoint, path=tmp_path / "another" / "machines" / "cache")
    assert on_this_machine(elsewhere) == checkpoint
    weights = checkpoint.path / "vae" / "diffusion_pytorch_model.safetensors"
    weights.unlink()  # another worker may be downloading it
    with pytest.raises(ValueError, match="vae"):
        on_this_machine(checkpoint)
    with pytest.raises(
        ValueError, match="is not on this machine; put the checkpoint at the same path on every machine"
    ):
        on_this_machine(replace(elsewhere, name="/models/ltx-video"))


def test_a_repository_may_be_t5_itself(cache: Path) -> None:
    for path in ("config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "spiece.model"):
        assert any(fnmatch(path, pattern) for pattern in T5_FILES), path
    for path in ("ltx-video-2b-v0.9.safetensors", "pytorch_model.bin", "transformer/config.json", "README.md"):
        assert not any(fnmatch(path, pattern) for pattern in T5_FILES), path
