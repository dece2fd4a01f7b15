"""A model family with two more stages than LTX-Video, which drivers and actors can find.

`grade` runs on the device between denoising and decoding, with a component of its own: it weakens the latents.
`check` runs on the host after the mp4 is made, and counts its frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any

import av
import torch

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.estimates.costs import StageRate, Work
from ltx_dist.estimates.stage_memory import StageMemory, WeightBytes
from ltx_dist.models.family import FAMILIES, Config, Family, Ratios, StageContext
from ltx_dist.models.ltx_video.decode import Decode
from ltx_dist.pipeline.payloads import DecodedClip, EncodedVideo, Latents
from ltx_dist.pipeline.recipe import Component, Recipe, StageLabel, StageSpec
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Storage

LTX_VIDEO = next(family for family in FAMILIES if family.name == "ltx_video")
WEAKER = 0.5

GRADE = StageSpec(
    "grade", "grade", StageLabel("G", "grade", "the grader", "#aa5500"), ("grader",), ("denoise",), share=0.01
)
CHECK = StageSpec(
    "check", "check", StageLabel("C", "check", "the check", "#005588"), (), ("encode_video",), runs_on="host"
)


def _stages() -> tuple[StageSpec, ...]:
    stages: list[StageSpec] = []
    for stage in LTX_VIDEO.recipe:
        if stage.name == "decode":
            stages += [GRADE, replace(stage, operation="decode_graded", inputs=("grade",))]
        else:
            stages.append(stage)
    return (*stages, CHECK)


class Grade:
    def __init__(
        self, components: Mapping[str, Any], checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._grader = components["grader"]

    def run(
        self, requests: Sequence[RenderRequest], inputs: Sequence[Mapping[str, Any]], context: StageContext
    ) -> list[Latents]:
        return [replace(given["denoise"], latents=self._grader(given["denoise"].latents)) for given in inputs]


class DecodeGraded(Decode):
    def run(
        self, requests: Sequence[RenderRequest], inputs: Sequence[Mapping[str, Any]], context: StageContext
    ) -> list[DecodedClip]:
        return super().run(requests, [{"denoise": given["grade"]} for given in inputs], context)


class Check:
    def __init__(
        self, components: Mapping[str, Any], checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
    ) -> None: ...

    def run(
        self, requests: Sequence[RenderRequest], inputs: Sequence[Mapping[str, Any]], context: StageContext
    ) -> list[EncodedVideo]:
        for request, given in zip(requests, inputs, strict=True):
            with av.open(BytesIO(given["encode_video"].mp4)) as container:
                frames = sum(1 for _ in container.decode(video=0))
            if frames != request.num_frames:
                raise ValueError(f"{frames} frames of {request.num_frames}")
        return [given["encode_video"] for given in inputs]


class Grader(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(WEAKER))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return latents * self.factor


def load_component(
    name: str, checkpoint: Checkpoint, dtype: torch.dtype, storage: Storage, device: torch.device
) -> torch.nn.Module:
    return Grader() if name == "grader" else LTX_VIDEO.load_component(name, checkpoint, dtype, storage, device)


def stage_work(configs: Mapping[str, Config], ratios: Ratios, request: RenderRequest) -> Work:
    stages = dict(zip(LTX_VIDEO.recipe.on_device, LTX_VIDEO.stage_work(configs, ratios, request), strict=True))
    return tuple({**stages, "grade": 1e6}[name] for name in RECIPE.on_device)


def stage_memory(
    configs: Mapping[str, Config], ratios: Ratios, precision: str, storage: Storage
) -> Mapping[str, StageMemory]:
    grade = StageMemory(lambda request, tiling, together: 1000, {"cuda": 1.0, "cpu": 1.0}, "leave it out")
    return {**LTX_VIDEO.stage_memory(configs, ratios, precision, storage), "grade": grade}


def weight_bytes(
    configs: Mapping[str, Config], parameters: Mapping[str, int], precision: str, storage: Storage
) -> Mapping[str, WeightBytes]:
    return {**LTX_VIDEO.weight_bytes(configs, parameters, precision, storage), "grader": WeightBytes(4)}


RECIPE = Recipe("LTX-Video, graded and checked", _stages())

FAMILY: Family = replace(
    LTX_VIDEO,
    name="graded",
    recipe=RECIPE,
    components=(*LTX_VIDEO.components, Component("grader", has_config=False)),
    operations={
        **LTX_VIDEO.operations,
        "grade": "another_recipe:Grade",
        "decode_graded": "another_recipe:DecodeGraded",
        "check": "another_recipe:Check",
    },
    loader="another_recipe:load_component",
    stage_rates={**LTX_VIDEO.stage_rates, "grade": StageRate(0.1)},
    stage_work=stage_work,
    stage_memory=stage_memory,
    weight_bytes=weight_bytes,
)
