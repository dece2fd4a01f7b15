"""Operations compared with published counts, and the corrections that one run leaves for the next."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from builders import STAGES, D

from ltx_dist.checkpoints.checkpoint import open_checkpoint
from ltx_dist.checkpoints.versions import read_config
from ltx_dist.estimates.flops import decode_flops, denoise_flops, encode_text_flops
from ltx_dist.models.family import family_of
from ltx_dist.pipeline.storage import Storage
from ltx_dist.pipeline.work import Assignment, Completion, StageReport
from ltx_dist.pipeline.worker import Worker
from ltx_dist.run.cost_store import keep_corrections, predicted_costs

WORKER = Worker("cuda:0", STAGES, "cuda", device_name="NVIDIA L40S")


def test_a_pass_is_what_the_diffusers_benchmark_counts():
    """huggingface.co/datasets/diffusers/benchmarks: 167.58 TFLOP of 13B at 7,392 tokens, without attention."""
    tokens, text = 7392, 256
    products = 48 * (4 * tokens**2 + 4 * tokens * text) * 4096
    counted = denoise_flops(read_config("transformer-13b"), tokens, text, passes=1) - products
    assert counted == pytest.approx(167.58e12, rel=2e-3)


def test_operations_of_a_clip_of_704x480x121():
    assert denoise_flops(read_config("transformer-2b"), 5280, 128, 80) == pytest.approx(80 * 23.98e12, rel=1e-3)
    assert encode_text_flops(read_config("text_encoder"), 128) == pytest.approx(1.19e12, rel=1e-2)
    decode = {
        version: decode_flops(read_config(f"vae-{version}"), 16, 15, 22) for version in ("0.9.0", "0.9.1", "0.9.5")
    }
    assert decode == pytest.approx({"0.9.0": 35.7e12, "0.9.1": 58.1e12, "0.9.5": 51.8e12}, rel=2e-3)


def test_what_a_run_took_is_known_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LTX_DIST_CACHE", str(tmp_path))
    checkpoint = open_checkpoint("demo")
    costs = predicted_costs(family_of(checkpoint), checkpoint, "bfloat16", [])
    costs.work_of = {"a": (1e12, 1e15, 1e12)}
    predicted = costs.work("a", D) / costs.rate(WORKER, D)
    costs.observe(Completion(Assignment(("a",), D, "cuda:0"), 0, 1, StageReport(3 * predicted)), WORKER)
    keep_corrections(costs, family_of(checkpoint), checkpoint, "bfloat16")
    again = predicted_costs(family_of(checkpoint), checkpoint, "bfloat16", [])
    assert again.corrections == {("NVIDIA L40S", D): pytest.approx(3.0)}
    assert predicted_costs(family_of(checkpoint), checkpoint, "float32", []).corrections == {}, (
        "another precision is another model"
    )
    float8 = predicted_costs(family_of(checkpoint), checkpoint, "bfloat16", [], Storage(transformer="float8"))
    assert float8.corrections == {}, "and so is another storage of the weights"
    int8 = predicted_costs(family_of(checkpoint), checkpoint, "bfloat16", [], Storage(text_encoder="int8"))
    assert int8.corrections == again.corrections, "which leaves the other components as they are"


def test_a_swap_is_a_copy_or_a_reading_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LTX_DIST_CACHE", str(tmp_path))
    checkpoint = replace(open_checkpoint("demo"), weights={"text_encoder": 9 * 10**9, "transformer": 1, "vae": 1})
    family = family_of(checkpoint)
    plain = predicted_costs(family, checkpoint, "bfloat16", [])
    int8 = predicted_costs(family, checkpoint, "bfloat16", [], Storage(text_encoder="int8"))
    without_copy = replace(WORKER, keeps_host_copy=False)
    num_bytes = plain.weight_bytes["text_encoder"]
    assert plain.swap_seconds(WORKER, ["text_encoder"]) == pytest.approx(num_bytes / 25e9)
    assert plain.swap_seconds(without_copy, ["text_encoder"]) == pytest.approx(num_bytes / 1e9)
    assert int8.swap_seconds(WORKER, ["text_encoder"]) == pytest.approx(9), "what is quantised is read in full"
    assert int8.swap_seconds(WORKER, ["transformer"]) == plain.swap_seconds(WORKER, ["transformer"])
    both = plain.swap_seconds(WORKER, ["transformer", "vae"])
    assert both == sum(plain.swap_seconds(WORKER, [name]) for name in ("transformer", "vae"))


@pytest.mark.parametrize("content", ["", "[]", '{"NVIDIA L40S": 1}', '{"NVIDIA L40S": {"denoise bfloat16 1": "x"}}'])
def test_a_damaged_cache_is_as_good_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str):
    monkeypatch.setenv("LTX_DIST_CACHE", str(tmp_path))
    (tmp_path / "costs.json").write_text(content)
    checkpoint = open_checkpoint("demo")
    costs = predicted_costs(family_of(checkpoint), checkpoint, "bfloat16", [])
    assert costs.corrections == {}
    costs.work_of = {"a": (1e12, 1e15, 1e12)}
    costs.observe(Completion(Assignment(("a",), D, "cuda:0"), 0, 1, StageReport(1.0)), WORKER)
    keep_corrections(costs, family_of(checkpoint), checkpoint, "bfloat16")
    assert "NVIDIA L40S" in json.loads((tmp_path / "costs.json").read_text())
