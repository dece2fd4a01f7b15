"""A worker that replays a GPU's stage times by sleeping, and hands on as many bytes as a real one.

It computes nothing, and imitates no model. Everything between the stages is real: the scheduler, the batch loop, Ray's
actors, and the sizes of payloads.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from text_to_video import FAMILY, RECIPE, STAGES, D, E, M, V

from ltx_dist.estimates.costs import PredictedCosts, Work
from ltx_dist.models.family import Family
from ltx_dist.models.ltx_video.estimates import STAGE_RATES
from ltx_dist.pipeline.payloads import EncodedVideo
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.work import StageReport, WorkerState
from ltx_dist.pipeline.worker import Worker

PAYLOAD_BYTES = {E: 4_000_000, D: 9_000_000, V: 5_000_000, M: 5_000_000}
"""Bytes of the embeddings of both prompts at 256 tokens, of latents for 1216x704x121, and of an mp4. Frames stay on the
worker that decoded them."""

REFERENCE = Worker("reference", STAGES, "cuda", device_name="NVIDIA GeForce RTX 4090")
"""The device for which requests carry their stages' seconds."""


@dataclass(frozen=True, slots=True)
class ReplaySpec:
    """slower: factors on the cost model's table of seconds, by stage; the model has to learn them.

    swap_seconds: what loading each stage's weights takes on a time-sliced device, before time is compressed.
    """

    worker: Worker
    slower: tuple[float, float, float] = (1.0, 1.0, 1.0)
    swap_seconds: Work = (0.0, 0.0, 0.0)

    @property
    def family(self) -> Family:
        return FAMILY


def replay_request(request_id: str, seconds: Work, faster: float = 1.0) -> RenderRequest:
    """A request that carries its stages' seconds on the reference device instead of a prompt.

    faster: the speed of the replay, relative to GPUs. Payloads shrink by the same factor, so that copying them takes
    the same share of the time as there.
    """
    prompt = " ".join(map(repr, (*seconds, faster)))
    return RenderRequest(
        request_id=request_id, prompt=prompt, negative_prompt="", height=480, width=704,
        num_frames=121, frame_rate=24.0, num_inference_steps=1, guidance_scale=1.0, guidance_rescale=0.0, seed=0,
        decode_timestep=0.0, decode_noise_scale=None, max_sequence_length=128,
    )  # fmt: skip


def operations(seconds: Work) -> Work:
    """The work of each stage for which the cost model predicts these seconds on the reference device."""
    rates = _rates(REFERENCE)
    return seconds[0] * rates[0], seconds[1] * rates[1], seconds[2] * rates[2]


def seconds_on(worker: Worker, slower: tuple[float, float, float], seconds: Work) -> Work:
    """Seconds of each stage on the worker, given those on the reference device."""
    found = [s * a / b * slow for s, a, b, slow in zip(seconds, _rates(REFERENCE), _rates(worker), slower, strict=True)]
    return found[0], found[1], found[2]


def _rates(worker: Worker) -> tuple[float, ...]:
    table = PredictedCosts(RECIPE, {}, STAGE_RATES, {})
    return tuple(table.rate(worker, stage) for stage in STAGES)


def slept(wanted: float, num_bytes: int) -> tuple[Any, float]:
    """What a device stage hands on after sleeping for the wanted seconds, and the seconds that it really took."""
    started = time.perf_counter()
    content = np.zeros(num_bytes, np.uint8)
    time.sleep(max(0.0, wanted - (time.perf_counter() - started)))
    return content, time.perf_counter() - started


def encoded(request: RenderRequest, num_bytes: int) -> tuple[EncodedVideo, StageReport]:
    """An mp4 of `num_bytes`, made in no time."""
    return EncodedVideo(bytes(num_bytes), request.num_frames, request.height, request.width, "", ""), StageReport(0.0)


class ReplayWorker:
    """Replaces `StageWorker` in an actor."""

    def __init__(self, spec: ReplaySpec) -> None:
        self._spec = spec
        self._slowness = seconds_on(spec.worker, spec.slower, (1.0, 1.0, 1.0))
        self._loaded: str | None = None

    def run(
        self, stage: str, requests: Sequence[RenderRequest], *payloads: Any, keys: Any = ()
    ) -> tuple[Any, StageReport]:
        (request,) = requests
        *stage_seconds, faster = map(float, request.prompt.split())
        num_bytes = int(PAYLOAD_BYTES[stage] / faster)
        if stage == M:
            return encoded(request, num_bytes)
        position = STAGES.index(stage)
        load = 0.0
        if self._spec.worker.residency != "resident" and stage is not self._loaded:
            load, self._loaded = self._spec.swap_seconds[position] / faster, stage
        time.sleep(load)
        content, seconds = slept(stage_seconds[position] * self._slowness[position], num_bytes)
        return None if stage == V else content, StageReport(seconds, load)

    def state(self) -> WorkerState:
        return WorkerState(self._spec.worker.worker_id)
