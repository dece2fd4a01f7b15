"""Prompts that are too long for the text encoder: counted as the real tokenizers count, reported, kept and shown."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from typer.testing import CliRunner

from ltx_dist.checkpoints.checkpoint import open_checkpoint
from ltx_dist.checkpoints.token_counts import token_counter
from ltx_dist.cli import app
from ltx_dist.inputs.cut_off import CutOff, cut_off, cut_off_warning
from ltx_dist.models.ltx_video.load import load_tokenizer
from ltx_dist.models.ltx_video.recipes import RECIPE
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.report.clips import read_clips

LONG = "a red ball rolls over green grass " * 10
"""340 tokens, which are bytes: one less than it has letters, because the last space is dropped, and an end token."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "0.9.5")


def texts() -> list[str]:
    rng = random.Random(1)
    letters = "abc de r\u00e9\u732b\U0001f600\ufdfa\u00bd\uff26.,'\"-_\u00a0\u3000"
    return ["", "a  red   ball", LONG.strip()] + [
        "".join(rng.choice(letters) for _ in range(rng.randint(1, 80))).strip() for _ in range(200)
    ]


@pytest.mark.parametrize("kind", ["bytes", "spiece.model", "tokenizer.json"])
def test_tokens_are_counted_as_transformers_makes_them(tmp_path: Path, kind: str) -> None:
    folder = tiny.save_checkpoint(tmp_path / "checkpoint", "0.9.5")
    if kind != "bytes":
        tiny.save_t5_tokenizer(folder)
    if kind == "tokenizer.json":
        load_tokenizer(open_checkpoint(str(folder))).save_pretrained(folder / "tokenizer")
        (folder / "tokenizer" / "spiece.model").unlink(missing_ok=True)
    real, count = load_tokenizer(open_checkpoint(str(folder))), token_counter(open_checkpoint(str(folder)))
    for text in texts():
        assert count(text) == len(real(text).input_ids), text


def request(name: str, prompt: str, negative: str = "", guidance: float = 1.0, limit: int = 128) -> RenderRequest:
    return RenderRequest(name, prompt, negative, 64, 64, 9, 25.0, 2, guidance, 0.0, 0, 0.05, 0.025, limit)


def test_a_text_is_cut_off_from_its_first_token_beyond_the_limit(checkpoint: Path) -> None:
    opened = open_checkpoint(str(checkpoint))
    fits, too_long = request("a", "x" * 127), request("b", "x" * 128)
    found = cut_off([fits, too_long, request("c", "\u732b" * 43), request("d", "x" * 600, limit=512)], opened)
    assert found == {
        "b": (CutOff("prompt", 129, 128),),
        "c": (CutOff("prompt", 130, 128),),
        "d": (CutOff("prompt", 601, 512),),
    }
    guided = [request("a", "x", "y" * 200, guidance=3.0), request("b", "x", "y" * 200)]
    assert cut_off(guided, opened) == {"a": (CutOff("negative_prompt", 201, 128),)}


def test_one_warning_names_five_clips_and_counts_the_others(checkpoint: Path) -> None:
    found = cut_off([request(f"clip-{n}", "x" * (200 + n)) for n in range(8)], open_checkpoint(str(checkpoint)))
    named = ", ".join(f"clip-{n} (prompt: {201 + n} tokens, of which 128 are used)" for n in range(5))
    assert cut_off_warning(found) == (
        f"8 clips with text that is cut off: {named}, and 3 more clips; shorten it, or set max_sequence_length, which "
        "may be 512"
    )
    assert cut_off_warning({}) is None


def arguments(command: str, folder: Path, checkpoint: Path) -> list[str]:
    prompts = folder / "p.jsonl"
    prompts.write_text(
        json.dumps({"prompt": LONG, "name": "long"}) + "\n" + json.dumps({"prompt": "a red ball", "name": "short"})
    )
    settings = [
        f"model.checkpoint={checkpoint}", "defaults.height=64", "defaults.width=64", "defaults.num_frames=9",
        "defaults.num_inference_steps=2", "defaults.guidance_scale=1", "defaults.max_sequence_length=128",
        "placement.threads=1", "placement.device=cpu", f"cache.embeddings={folder / 'embeddings'}",
    ]  # fmt: skip
    return [command, str(prompts), *(argument for setting in settings for argument in ("--set", setting))]


LINE = "1 clip with text that is cut off: long (prompt: 340 tokens, of which 128 are used); shorten it, or set"


def sidecar(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / f"{name}.json").read_text())


def assert_told(out: Path, printed: str) -> None:
    assert printed.count(LINE) == 1 and "truncated" not in printed
    assert sidecar(out, "long")["cut_off"] == {"prompt": {"tokens": 340, "limit": 128}}
    assert "cut_off" not in sidecar(out, "short")
    notes = {clip.name: clip.notes for clip in read_clips(out, RECIPE)}
    assert notes == {"long": ("prompt: 340 tokens, of which 128 are used",), "short": ()}
    (warning,) = json.loads((out / "run.json").read_text())["warnings"]
    assert warning.startswith(LINE)


@pytest.mark.fault(5)
def test_plan_counts_without_a_model(tmp_path: Path, checkpoint: Path) -> None:
    program = (
        "import sys\nfrom ltx_dist.cli import main\n"
        f"sys.argv = {['ltx-dist', *arguments('plan', tmp_path, checkpoint)]!r}\n"
        "try:\n main()\nfinally:\n print([n for n in ('torch', 'diffusers', 'transformers') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.count(f"warning: {LINE}") == 1
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.fault(5)
def test_a_render_reports_it_also_with_cached_embeddings(tmp_path: Path, checkpoint: Path) -> None:
    for name in ("first", "from-cache"):
        out = tmp_path / name
        run = CliRunner().invoke(
            app, [*arguments("render", tmp_path, checkpoint), "-o", str(out), "--executor", "local"]
        )
        assert run.exit_code == 0, run.output
        assert_told(out, run.output)
    stages = {event["stage"] for event in json.loads((out / "run.json").read_text())["events"]}
    assert "encode_text" not in stages


@pytest.mark.fault(5)
@pytest.mark.ray
def test_a_render_by_ray_reports_it_too(tmp_path: Path, checkpoint: Path) -> None:
    command = [sys.executable, "-m", "ltx_dist.cli", *arguments("render", tmp_path, checkpoint)]
    command += ["-o", str(tmp_path / "out"), "--executor", "ray"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert_told(tmp_path / "out", done.stdout + done.stderr)
