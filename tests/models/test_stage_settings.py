"""Recipes name every setting that their operations read, so that the key of an output covers all that it depends on."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tiny
import torch
from oracle import make_request

from ltx_dist.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ltx_dist.models.family import Family, StageContext, family_of
from ltx_dist.pipeline.conditions import Condition, SecondPass
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import PLAIN

sys.path.insert(0, str(Path(__file__).parent / "ltx2"))
import tiny_ltx2  # noqa: E402

CPU = torch.device("cpu")
FIELDS = {field.name for field in fields(RenderRequest)}


class Watched:
    """A request that records which of its fields are read, directly or by its properties."""

    def __init__(self, request: RenderRequest) -> None:
        self._request, self.read = request, set[str]()

    def __getattr__(self, name: str) -> Any:
        if name in FIELDS:
            self.read.add(name)
            return getattr(self._request, name)
        return getattr(RenderRequest, name).fget(self)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Condition:
    path = tmp_path_factory.mktemp("picture") / "a.png"
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(path)
    return Condition(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), fit="stretch")


Cases = list[tuple[Checkpoint, RenderRequest]]


@pytest.fixture(scope="module")
def ltx_video(tmp_path_factory: pytest.TempPathFactory, picture: Condition) -> Cases:
    folder = tmp_path_factory.mktemp("ltx_video")
    upscaler = tiny.save_upscaler(folder / "upscaler")
    later = tiny.save_checkpoint(folder / "later", "0.9.5", "LTXConditionPipeline")
    first = tiny.save_checkpoint(folder / "first", "0.9.1")
    two = SecondPass(64, 96, 2, None, 0.5, 3.0, 0.0, 0.1, 1.0, 0.5)
    large = make_request("two", height=128, width=192, second_pass=two, conditions=(picture,))
    checkpoint = open_checkpoint(str(later), upscaler=str(upscaler))
    return [(open_checkpoint(str(first)), make_request("one")), (checkpoint, large)]


@pytest.fixture(scope="module")
def ltx2(tmp_path_factory: pytest.TempPathFactory, picture: Condition) -> Cases:
    checkpoint = open_checkpoint(str(tiny_ltx2.make_checkpoint("2.3", tmp_path_factory.mktemp("ltx2") / "2.3")))
    small = tiny_ltx2.make_request("one")
    large = tiny_ltx2.two_passes(tiny_ltx2.make_request("two", conditions=(picture,)))
    return [(checkpoint, small), (checkpoint, large)]


def read_by_stage(family: Family, checkpoint: Checkpoint, request: RenderRequest) -> Iterator[tuple[str, set[str]]]:
    """Each device stage of the request, run at tiny size, and the fields that it read."""
    made: dict[str, Any] = {}
    for stage in (family.recipe[name] for name in family.recipe.of(request) if name in family.recipe.on_device):
        watched: Any = Watched(request)
        modules = {
            name: family.load_component(name, checkpoint, torch.float32, PLAIN, CPU) for name in stage.components
        }
        inputs = {name: made[name] for name in stage.inputs if name in made}
        with torch.inference_mode():
            operation = family.operation(stage.operation)(modules, checkpoint, CPU, torch.float32)
            (made[stage.name],) = operation.run([watched], [inputs], StageContext(stage))
            if stage.name == "decode":
                list(made[stage.name].frames)
        yield stage.name, watched.read - {"request_id"}


def in_key(family: Family, request: RenderRequest, name: str) -> set[str]:
    """The fields that are in the key of a stage: those of its settings, and those in the keys of its inputs."""
    watched: Any = Watched(request)
    for setting in family.recipe[name].settings:
        getattr(watched, setting)
    inputs = family.recipe.reads(name, family.recipe.of(request))
    return watched.read.union(*(in_key(family, request, given) for given in inputs))


@pytest.mark.parametrize("cases", ["ltx_video", "ltx2"])
def test_what_a_stage_reads_of_a_request_is_in_its_key(cases: str, request: pytest.FixtureRequest) -> None:
    torch.set_num_threads(1)
    seen: set[str] = set()
    for checkpoint, one in request.getfixturevalue(cases):
        family = family_of(checkpoint)
        for stage, read in read_by_stage(family, checkpoint, one):
            assert read <= in_key(family, one, stage), stage
            seen.add(stage)
    assert seen == set(family.recipe.on_device)


def test_a_setting_that_a_recipe_forgets_is_found(ltx_video: Cases) -> None:
    checkpoint, one = ltx_video[0]
    family = family_of(checkpoint)
    read = dict(read_by_stage(family, checkpoint, one))
    assert "seed" in read["denoise"] and "seed" not in in_key(family, one, "encode_text")
