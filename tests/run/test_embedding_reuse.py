"""A batch whose prompts were encoded before loads no text encoder, and gives the same latents bit for bit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from ltx_dist.cli import app
from ltx_dist.models.ltx_video import load as loading
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.run.resumption import Resumption

PROMPTS = ("a red circle", "a blue square", "nothing")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "0.9.5")


def arguments(out: Path, checkpoint: Path, *more: str, prompts: tuple[str, ...] = PROMPTS) -> list[str]:
    file = out.parent / f"{out.name}.txt"
    file.write_text("".join(f"{prompt}\n" for prompt in prompts))
    settings = [
        f"model.checkpoint={checkpoint}", "defaults.height=64", "defaults.width=64", "defaults.num_frames=9",
        "defaults.num_inference_steps=2", "placement.threads=1", "placement.device=cpu", "recovery.keep_latents=true",
        *more,
    ]  # fmt: skip
    return ["render", str(file), "-o", str(out), *(argument for s in settings for argument in ("--set", s))]


def render(out: Path, checkpoint: Path, *more: str, prompts: tuple[str, ...] = PROMPTS) -> Result:
    return CliRunner().invoke(app, arguments(out, checkpoint, *more, prompts=prompts))


def record(out: Path) -> dict[str, Any]:
    return json.loads((out / "run.json").read_text())


def encoded(out: Path) -> set[str]:
    return {event["request_id"] for event in record(out)["events"] if event["stage"] == "encode_text"}


def hosted(out: Path) -> list[list[str]]:
    return [worker["stages"] for worker in record(out)["workers"]]


def latents(out: Path) -> dict[str, torch.Tensor]:
    return {path.stem: load_file(path)["latents"] for path in (out / ".ltx-dist" / "spool").iterdir()}


def assert_equal_latents(one: Path, other: Path) -> None:
    expected, found = latents(one), latents(other)
    assert len(expected) == len(PROMPTS) and set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def without_text_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise AssertionError("the text encoder was loaded")

    monkeypatch.setattr(loading, "load_text_encoder", load)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_known_prompts_load_no_text_encoder_and_give_the_same_latents(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, precision: str
):
    first, second, none = tmp_path / "first", tmp_path / "second", tmp_path / "none"
    chosen = f"model.precision={precision}"
    assert render(first, checkpoint, chosen).exit_code == 0
    assert len(encoded(first)) == 3
    assert render(none, checkpoint, chosen, "cache.embeddings=null").exit_code == 0
    assert len(encoded(none)) == 3, "null is no cache"
    without_text_encoder(monkeypatch)
    result = render(second, checkpoint, chosen)
    assert result.exit_code == 0, result.output
    assert hosted(second) == [["denoise", "decode"]] and not encoded(second)
    assert_equal_latents(first, second)
    assert_equal_latents(none, second)


def test_only_new_prompts_are_encoded(tmp_path: Path, checkpoint: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert render(first, checkpoint).exit_code == 0
    assert render(second, checkpoint, prompts=(*PROMPTS[:2], "something")).exit_code == 0
    assert encoded(second) == {"003-something"}


@pytest.mark.parametrize(
    "change", ["text_encoder", "tokenizer", "class", "model.precision=bfloat16", "defaults.max_sequence_length=64"]
)
def test_what_decides_embeddings_differently_is_encoded_anew(tmp_path: Path, checkpoint: Path, change: str):
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    assert render(tmp_path / "first", checkpoint).exit_code == 0
    assert render(tmp_path / "same", other).exit_code == 0
    assert not encoded(tmp_path / "same"), "another place is the same model"
    if change == "text_encoder":
        file = other / "text_encoder" / "model.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    elif change == "tokenizer":
        (other / "tokenizer" / "special_tokens_map.json").write_text("{}")
    elif change == "class":
        index = json.loads((other / "model_index.json").read_text()) | {"_class_name": "LTXConditionPipeline"}
        (other / "model_index.json").write_text(json.dumps(index))
    result = render(tmp_path / "second", other, *([change] if "=" in change else []))
    assert result.exit_code == 0, result.output
    assert len(encoded(tmp_path / "second")) == 3


def test_a_damaged_entry_is_encoded_anew(tmp_path: Path, checkpoint: Path):
    cache, second = tmp_path / "cache", tmp_path / "second"
    chosen = f"cache.embeddings={cache}"
    assert render(tmp_path / "first", checkpoint, chosen).exit_code == 0
    for path in cache.glob("*.safetensors"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    result = render(second, checkpoint, chosen)
    assert result.exit_code == 0 and len(encoded(second)) == 3, result.output
    assert_equal_latents(tmp_path / "first", second)
    assert render(tmp_path / "third", checkpoint, chosen).exit_code == 0
    assert not encoded(tmp_path / "third"), "the damaged ones were replaced"


def test_an_entry_that_another_run_removes_meanwhile_fails_no_clip(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    cache, second = tmp_path / "cache", tmp_path / "second"
    chosen = f"cache.embeddings={cache}"
    assert render(tmp_path / "first", checkpoint, chosen).exit_code == 0
    look = Resumption.todo

    def look_and_lose(resumption: Resumption, requests: Sequence[RenderRequest]) -> dict[str, tuple[str, ...]]:
        needed = look(resumption, requests)
        shutil.rmtree(cache, ignore_errors=True)
        return needed

    with monkeypatch.context() as patched:
        patched.setattr(Resumption, "todo", look_and_lose)
        stopped = render(second, checkpoint, chosen)
    assert stopped.exit_code == 75 and "no worker of this run can run encode_text" in stopped.output
    assert record(second)["remaining"] == 3, "nothing is wrong with the clips"
    assert render(second, checkpoint, chosen).exit_code == 0
    assert_equal_latents(tmp_path / "first", second)


@pytest.mark.ray
def test_actors_get_embeddings_from_the_cache(tmp_path: Path, checkpoint: Path):
    """Runs in a process of its own, which starts and ends its own small cluster."""
    first, second = tmp_path / "first", tmp_path / "second"
    assert render(first, checkpoint).exit_code == 0
    command = [sys.executable, "-m", "ltx_dist.cli", *arguments(second, checkpoint, "placement.layout=pinned")]
    result = subprocess.run([*command, "--executor", "ray"], capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert sorted(hosted(second)) == [["decode"], ["denoise"], ["denoise"]] and not encoded(second)
    assert_equal_latents(first, second)
