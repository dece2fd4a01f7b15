"""Model families are data: what they name is there, and what they describe fits together."""

from __future__ import annotations

from dataclasses import fields
from operator import attrgetter
from pathlib import Path

import pytest
import tiny
import torch

from ltx_dist.checkpoints.checkpoint import open_checkpoint
from ltx_dist.models.family import FAMILIES, Family, family_of
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import PLAIN


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_operation_of_the_recipe_can_be_imported_and_every_component_is_described(family: Family) -> None:
    for stage in family.recipe:
        assert callable(family.operation(stage.operation).run)
        assert set(stage.components) <= set(family.traits)
    assert set(family.operations) == {stage.operation for stage in family.recipe}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_stages_depend_on_settings_that_requests_have(family: Family) -> None:
    names = {field.name for field in fields(RenderRequest)}
    names |= {name for name, value in vars(RenderRequest).items() if isinstance(value, property)}
    for stage in family.recipe:
        assert set(stage.settings) <= names, stage.name
        assert not stage.steps or hasattr(RenderRequest, stage.steps.split(".")[0]), stage.name
        assert not stage.only_with or hasattr(RenderRequest, stage.only_with), stage.name


def test_no_two_families_claim_a_pipeline() -> None:
    claimed = [name for family in FAMILIES for name in family.pipeline_classes]
    assert len(set(claimed)) == len(claimed)


@pytest.mark.parametrize("pipeline_class", ["LTXPipeline", "LTXConditionPipeline"])
def test_the_blocks_of_a_component_are_those_that_it_is_streamed_in(tmp_path: Path, pipeline_class: str) -> None:
    checkpoint = open_checkpoint(str(tiny.save_checkpoint(tmp_path / "checkpoint", "0.9.5", pipeline_class)))
    family = family_of(checkpoint)
    assert family.name == "ltx_video"
    for component in family.components:
        if component.name not in checkpoint.sources and component.name == "latent_upsampler":
            continue  # it belongs to another checkpoint
        module = family.load_component(component.name, checkpoint, torch.float32, PLAIN, torch.device("cpu"))
        assert not component.blocks or len(attrgetter(component.blocks)(module)) == 2
