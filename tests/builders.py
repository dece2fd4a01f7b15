"""Parts for tests of the pure rooms: a recipe of four stages, placements, requests and their stages to do."""

from __future__ import annotations

from collections.abc import Iterable

from ltx_dist.estimates.costs import PredictedCosts, Work
from ltx_dist.models.ltx_video.estimates import STAGE_RATES
from ltx_dist.models.ltx_video.recipes import RECIPE as WHOLE_RECIPE
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.worker import Placement, Worker

RECIPE = WHOLE_RECIPE.always
E, D, V, M = RECIPE.names
"""encode_text, denoise, decode, encode_video."""

STAGES = RECIPE.on_device
GB = 10**9
WEIGHTS = {"text_encoder": int(9.525e9), "transformer": int(3.847e9), "vae": int(1.106e9)}
"""Bytes of 2B's components in bfloat16."""


def todo(names: Iterable[str], first: str = E, last: str = V) -> dict[str, tuple[str, ...]]:
    """For each request, the stages from `first` to `last`."""
    return dict.fromkeys(names, stages(first, last))


def stages(first: str = E, last: str = V) -> tuple[str, ...]:
    return RECIPE.names[RECIPE.position(first) : RECIPE.position(last) + 1]


def predicted(works: dict[str, Work], weights: dict[str, int] = WEIGHTS) -> PredictedCosts:
    return PredictedCosts(RECIPE, works, STAGE_RATES, weights)


def placement(workers: Iterable[Worker], max_queued: dict[str, int], layout: str = "pinned") -> Placement:
    return Placement(RECIPE, layout, tuple(workers), max_queued)


def make_request(request_id: str, **changes: object) -> RenderRequest:
    settings = {
        "request_id": request_id, "prompt": "p", "negative_prompt": "", "height": 64, "width": 64, "num_frames": 9,
        "frame_rate": 25.0, "num_inference_steps": 8, "guidance_scale": 3.0, "guidance_rescale": 0.0, "seed": 0,
        "decode_timestep": 0.05, "decode_noise_scale": 0.025, "max_sequence_length": 128,
    }  # fmt: skip
    return RenderRequest(**(settings | changes))  # pyright: ignore[reportArgumentType]
