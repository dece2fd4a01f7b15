"""A tokenizer without its vocabulary, or with one that is not the text encoder's, is refused by every command."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny

from ltx_dist.checkpoints.checkpoint import open_checkpoint
from ltx_dist.doctor import storage
from ltx_dist.doctor.finding import Status
from ltx_dist.models.ltx_video.load import load_tokenizer

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 791656\n"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "0.9.5")
    tiny.save_t5_tokenizer(folder)
    return folder


@pytest.fixture
def checkpoint(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


def change_json(file: Path, **changes: object) -> None:
    document = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(document | changes))


def unlink(tokenizer: Path) -> None:
    (tokenizer / "spiece.model").unlink()


def empty_folder(tokenizer: Path) -> None:
    shutil.rmtree(tokenizer)
    tokenizer.mkdir()


def of_another_size(tokenizer: Path) -> None:
    change_json(tokenizer / "tokenizer_config.json", extra_ids=100)


def too_large(tokenizer: Path) -> None:
    change_json(tokenizer / "tokenizer_config.json", extra_ids=400)


def folder_in_its_place(tokenizer: Path) -> None:
    unlink(tokenizer)
    (tokenizer / "spiece.model").mkdir()


def written(content: bytes, name: str = "spiece.model") -> Callable[[Path], None]:
    return lambda tokenizer: (tokenizer / name).write_bytes(content) and None


FAULTS = {
    "missing": (unlink, "spiece.model (or tokenizer.json) is missing: without it every word is unknown"),
    "empty folder": (empty_folder, "spiece.model (or tokenizer.json) is missing"),
    "no folder": (shutil.rmtree, "tokenizer: no such folder"),
    "empty": (written(b""), "spiece.model: empty; download it again"),
    "pointer": (written(POINTER), "spiece.model: a git-lfs pointer, not the file itself; run `git lfs pull`"),
    "web page": (written(b"<!doctype html>\n<html>"), "spiece.model: a web page, not the file itself"),
    "noise": (written(b"abc"), "spiece.model: not a sentencepiece model"),
    "folder": (folder_in_its_place, "spiece.model: not a file"),
    "too small": (of_another_size, "a vocabulary of 137 tokens, where the text encoder has 384"),
    "too large": (too_large, "a vocabulary of 437 tokens, where the text encoder has 384"),
    "pointer beside": (written(POINTER, "tokenizer.json"), "tokenizer.json: a git-lfs pointer"),
    "empty beside": (written(b"", "tokenizer.json"), "tokenizer.json: empty"),
    "other beside": (
        written(b'{"model": {"type": "Unigram", "vocab": [["a", 0]]}}', "tokenizer.json"),
        "tokenizer.json: a vocabulary of 1 tokens",
    ),
}


@pytest.mark.fault(2)
@pytest.mark.parametrize("place", ["in the checkpoint", "apart"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_vocabulary_that_is_not_the_text_encoders_is_refused(checkpoint: Path, fault: str, place: str) -> None:
    spoil, says = FAULTS[fault]
    spoil(checkpoint / "tokenizer")
    names = (str(checkpoint), None) if place == "in the checkpoint" else ("demo", str(checkpoint))
    with pytest.raises(ValueError) as caught:
        open_checkpoint(*names)
    assert says in str(caught.value)
    assert str(caught.value).startswith(
        "model.checkpoint: " if place == "in the checkpoint" else "model.text_encoder: "
    )


def test_the_vocabulary_of_the_checkpoint_as_published_is_taken(checkpoint: Path) -> None:
    opened = open_checkpoint(str(checkpoint))
    tokenizer = load_tokenizer(opened)
    assert len(tokenizer) == tiny.VOCAB_SIZE
    assert tokenizer("a red ball").input_ids != tokenizer("waves in evening").input_ids
    saved = checkpoint.parent / "saved"
    tokenizer.save_pretrained(saved)
    shutil.rmtree(checkpoint / "tokenizer")
    saved.rename(checkpoint / "tokenizer")  # as transformers 5 writes it: tokenizer.json alone
    assert not (checkpoint / "tokenizer" / "spiece.model").exists()
    again = load_tokenizer(open_checkpoint(str(checkpoint)))
    assert again("a red ball").input_ids == tokenizer("a red ball").input_ids


def test_a_vocabulary_that_is_lost_after_the_check_is_not_replaced_by_unknown_words(checkpoint: Path) -> None:
    opened = open_checkpoint(str(checkpoint))
    (checkpoint / "tokenizer" / "spiece.model").unlink()
    with pytest.raises(ValueError, match="without it every word is unknown"):
        load_tokenizer(opened)


@pytest.mark.fault(2)
@pytest.mark.parametrize("command", ["plan", "render", "doctor"])
def test_every_command_refuses_a_tokenizer_without_vocabulary(checkpoint: Path, tmp_path: Path, command: str) -> None:
    unlink(checkpoint / "tokenizer")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red ball\nwaves in evening\n")
    if command == "doctor":
        found = list(storage.check_checkpoint(str(checkpoint), None, "auto"))
        assert {finding.status for finding in found} == {Status.FAILURE}
        assert "tokenizer.json) is missing: without it every word is unknown" in found[-1].text
        return
    arguments = [command, str(prompts), "--set", f"model.checkpoint={checkpoint}"]
    if command == "render":
        arguments += ["-o", str(tmp_path / "out"), "--executor", "local"]
    done = subprocess.run(
        [sys.executable, "-m", "ltx_dist.cli", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "spiece.model (or tokenizer.json) is missing: without it every word is unknown" in done.stderr
    assert not (tmp_path / "out").exists()


CODE = """
from pathlib import Path
from transformers import ByT5Tokenizer
Path({marker!r}).touch()
class Evil(ByT5Tokenizer):
    pass
"""


@pytest.fixture
def with_code(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint whose tokenizer is Python code of its own, which writes a file if it runs."""
    tokenizer = checkpoint / "tokenizer"
    (tokenizer / "evil.py").write_text(CODE.format(marker=str(tmp_path / "marker")))
    names = {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(names))
    (tokenizer / "config.json").write_text(json.dumps(names))
    change_json(checkpoint / "model_index.json", tokenizer=["transformers", "AutoTokenizer"])
    return checkpoint


def test_the_code_of_a_tokenizer_runs_where_it_is_trusted(
    with_code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, the tests below would prove nothing."""
    from transformers import AutoTokenizer, dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    AutoTokenizer.from_pretrained(with_code / "tokenizer", trust_remote_code=True)
    assert (tmp_path / "marker").exists()


@pytest.mark.fault(9)
def test_code_of_a_checkpoint_is_refused_by_plan_and_never_run(with_code: Path, tmp_path: Path) -> None:
    """Standard input holds the `y` that transformers asks for."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red ball\n")
    for command in (["plan"], ["render", "-o", str(tmp_path / "out"), "--executor", "local"]):
        done = subprocess.run(
            [sys.executable, "-m", "ltx_dist.cli", *command, str(prompts), "--set", f"model.checkpoint={with_code}"],
            capture_output=True, text=True, check=False, input="y\n" * 20,
        )  # fmt: skip
        assert done.returncode == 2 and "auto_map names Python code of the checkpoint" in done.stderr, done.stderr
    assert not (tmp_path / "marker").exists()


def test_code_that_comes_after_the_check_is_not_run_either(
    checkpoint: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_checkpoint(str(checkpoint))
    request.getfixturevalue("with_code")
    monkeypatch.setattr("builtins.input", lambda _: "y")
    with pytest.raises(ValueError, match="auto_map names Python code"):
        load_tokenizer(opened)
    for name in ("tokenizer_config.json", "config.json"):  # and the class that model_index.json asks for is not run
        (checkpoint / "tokenizer" / name).unlink()
    change_json(checkpoint / "tokenizer" / "tokenizer_config.json", extra_ids=347)
    assert type(load_tokenizer(opened)).__module__.startswith("transformers.models.t5")
    assert not (tmp_path / "marker").exists()


@pytest.mark.fault(9)
@pytest.mark.parametrize(
    ("file", "changes", "says"),
    [
        ("text_encoder/config.json", {"auto_map": {"AutoModel": "evil.Evil"}}, "auto_map names Python code"),
        ("transformer/config.json", {"auto_map": {"AutoModel": "evil.Evil"}}, "auto_map names Python code"),
        ("vae/config.json", {"auto_map": {}}, "auto_map names Python code"),
        ("tokenizer/config.json", {"auto_map": {}}, "auto_map names Python code"),
        ("scheduler/scheduler_config.json", {"auto_map": {}}, "auto_map names Python code"),
        ("text_encoder/config.json", {"_attn_implementation": "someone/kernel"}, "names compiled code on the hub"),
        ("text_encoder/config.json", {"attn_implementation": "someone/kernel"}, "names compiled code on the hub"),
        ("text_encoder/config.json", {"model_type": "umt5"}, "'umt5' is not 't5'"),
        ("transformer/config.json", {"_class_name": "Other"}, "only LTXVideoTransformer3DModel is loaded"),
        ("scheduler/scheduler_config.json", {"_class_name": "Other"}, "only FlowMatchEulerDiscreteScheduler is loaded"),
        ("model_index.json", {"tokenizer": ["transformers", "BertTokenizer"]}, "'BertTokenizer' is not one of"),
        ("model_index.json", {"tokenizer": ["evil", "os.system"]}, "'os.system' is not one of"),
        (
            "model_index.json", {"vae": ["evil", "AutoencoderKLLTXVideo"]},
            "only ['diffusers', 'AutoencoderKLLTXVideo'] is loaded",
        ),
        (
            "model_index.json", {"text_encoder": ["transformers", "AutoModel"]},
            "only ['transformers', 'T5EncoderModel'] is loaded",
        ),
        ("model_index.json", {"_class_name": ["pipeline", "LTXPipeline"]}, "is not LTXPipeline"),
        ("tokenizer/tokenizer_config.json", {"extra_ids": "100"}, "extra_ids: '100' is not a whole number"),
    ],
)  # fmt: skip
def test_classes_that_are_not_ours_are_refused_by_name(checkpoint: Path, file: str, changes: dict, says: str) -> None:
    change_json(checkpoint / file, **changes)
    with pytest.raises(ValueError) as caught:
        open_checkpoint(str(checkpoint))
    assert file in str(caught.value) and says in str(caught.value)


def test_a_class_in_the_tokenizers_own_config_is_refused_as_well(checkpoint: Path) -> None:
    """A text encoder in a folder of its own has no model_index.json."""
    (checkpoint / "model_index.json").unlink()
    change_json(checkpoint / "tokenizer" / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: tokenizer_class: 'BertTokenizer' is not one of"):
        open_checkpoint("demo", str(checkpoint))
