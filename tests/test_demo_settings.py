"""What `ltx-dist demo` would render with a user's settings. Nothing is rendered here."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from ltx_dist.demo import PROMPTS, demo_config, demo_prompts, with_packaged_upscaler
from ltx_dist.inputs.config import RenderConfig
from ltx_dist.run.batch import open_batch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from text_to_video import write_demo_prompts  # noqa: E402


def test_the_packaged_model_makes_the_clip_of_two_passes():
    config = with_packaged_upscaler(demo_config([]))
    assert config.model.upscaler == "demo" and len(open_batch(demo_prompts(config), config).requests) == 10


@pytest.mark.parametrize("upscaler", [(), ("model.upscaler=/my/upscaler",)])
def test_another_model_or_upscaler_keeps_its_own(upscaler: tuple[str, ...]):
    config = demo_config([*upscaler, *([] if upscaler else ["model.checkpoint=/my/model"])])
    assert with_packaged_upscaler(config) == config


def test_another_model_renders_all_rows_of_one_pass(tmp_path: Path):
    shutil.copytree(PROMPTS.parent / "model", tmp_path / "model")
    config = with_packaged_upscaler(demo_config([f"model.checkpoint={tmp_path / 'model'}"]))
    requests = open_batch(demo_prompts(config), config).requests
    assert len(requests) == 9 and all(request.second_pass is None for request in requests)
    assert [one.conditions[0].place for one in requests if one.conditions] == ["demo://first_frame.png"]


def test_benchmarks_take_the_clips_from_text_alone(tmp_path: Path):
    requests = open_batch(str(write_demo_prompts(tmp_path, 20)), RenderConfig()).requests
    assert len(requests) == 20 and len({request.prompt for request in requests}) == 8
    assert not any(request.conditions or request.second_pass for request in requests)
