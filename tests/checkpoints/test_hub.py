"""Names on the Hugging Face hub: read from a cache made here in its own layout, and never over the network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from ltx_dist.checkpoints.checkpoint import DEMO_MODEL, open_checkpoint
from ltx_dist.checkpoints.digests import checkpoint_digest
from ltx_dist.checkpoints.hub import CHECKPOINT_FILES, is_hub_name

COMMIT, OLDER = "0123456789abcdef" * 2 + "01234567", "fedcba9876543210" * 2 + "fedcba98"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As `hf download` leaves it: a snapshot a commit, and a file for `main` that says which is its."""
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
    with pytest.raises(ValueError, match=r"model\.checkpoint: .*not in the cache .*`hf download someone/"):
        open_checkpoint(name)
    with pytest.raises(ValueError, match=r"model\.text_encoder: .*not in the cache"):
        open_checkpoint("demo", name)


def test_a_snapshot_that_is_not_whole_says_what_is_missing(cache: Path) -> None:
    shutil.rmtree(cache / "models--someone--a-model" / "snapshots" / COMMIT / "vae")
    with pytest.raises(ValueError, match=r"vae/config\.json: missing"):
        open_checkpoint("someone/a-model")


def open_in_a_process(name: str, cache: Path, address: str) -> subprocess.CompletedProcess[str]:
    """The hub's address is read when huggingface_hub is imported, so another one needs another process."""
    code = f"from ltx_dist.checkpoints.checkpoint import open_checkpoint\nprint(open_checkpoint({name!r}).name)"
    env = os.environ | {"HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(cache), "HF_ENDPOINT": address}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["someone/a-model", "gone/missing"])
def test_without_network_the_cache_is_used(cache: Path, name: str) -> None:
    """Not by HF_HUB_OFFLINE, but because nothing listens at the hub's address."""
    run = open_in_a_process(name, cache, "http://127.0.0.1:9")
    if name == "someone/a-model":
        assert run.stdout.strip() == f"someone/a-model@{COMMIT}", run.stderr
    else:
        assert "ValueError: model.checkpoint: gone/missing: no such folder, not in the cache" in run.stderr


def test_no_pickle_and_no_single_file_is_asked_for() -> None:
    from fnmatch import fnmatch

    for refused in ("ltxv-13b-0.9.8-dev.safetensors", "text_encoder/pytorch_model.bin", "vae/x.pt", "run.py"):
        assert not any(fnmatch(refused, pattern) for pattern in CHECKPOINT_FILES), refused


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("a/b", True), ("a/b@main", True), ("Lightricks/LTX-Video-0.9.7-dev@0a1", True), ("a", False), ("a/b/c", False),
     ("../b", False), ("/a/b", False), ("a/b@", False)],
)  # fmt: skip
def test_what_has_the_form_of_a_hub_name(name: str, is_one: bool) -> None:
    assert is_hub_name(name) == is_one
