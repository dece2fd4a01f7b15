"""Renders clips by our stages and by diffusers' pipeline, and computes digests of their latents and uint8 frames."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .scale import Scale

STAGES = ENCODE, DENOISE, DECODE = "encode_text", "denoise", "decode"
ENCODE_VIDEO = "encode_video"
"""Names of stages in the recipe of LTX-Video."""


@dataclass
class Rendered:
    """latents, frames: one sha256 per clip. reports: one per device stage and clip, in order."""

    latents: list[str] = field(default_factory=list)
    frames: list[str] = field(default_factory=list)
    reports: list[Any] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(report.seconds for report in self.reports)

    @property
    def load_seconds(self) -> float:
        return sum(report.load_seconds for report in self.reports)

    @property
    def digests(self) -> tuple[list[str], list[str]]:
        return self.latents, self.frames


def worker_of(scale: Scale, checkpoint: Any, residency: Any, **fields: Any) -> Any:
    """A StageWorker with all stages, as a run makes it. fields: other fields of its `Worker`, and `storage`."""
    from ltx_dist.pipeline.storage import Mp4Settings, Storage
    from ltx_dist.pipeline.worker import Worker
    from ltx_dist.worker.spec import WorkerSpec
    from ltx_dist.worker.stage_worker import StageWorker

    streamed = ("text_encoder", "transformer") if residency == "streamed" else ()
    storage = fields.pop("storage", Storage())
    kind: Any = scale.device.type
    worker = Worker(f"{kind}:0", STAGES, kind, residency=residency, streamed=streamed, **fields)
    return StageWorker(WorkerSpec(worker, checkpoint, scale.precision, Mp4Settings(preset="ultrafast"), storage))


def ours(worker: Any, requests: Sequence[Any]) -> Rendered:
    """Render all clips stage by stage, as in one wave. Raises RuntimeError with the first error of a stage."""
    rendered, payloads = Rendered(), dict[str, Any]()
    for stage in STAGES:
        for request in requests:
            inputs = [] if stage == ENCODE else [payloads[request.request_id]]
            output, report = worker.run(stage, [request], *inputs)
            if report.error:
                raise RuntimeError(f"{stage}: {report.error}")
            rendered.reports.append(report)
            if stage == DENOISE:
                rendered.latents += report.latents_sha256
            if stage == DECODE:
                output, _ = worker.run(ENCODE_VIDEO, [request], None)
                rendered.frames.append(output.frames_sha256)
            payloads[request.request_id] = output
    return rendered


def theirs(pipeline: Any, requests: Sequence[Any]) -> Rendered:
    """Render with the pipeline's own `__call__`, one clip after another."""
    rendered = Rendered()
    for request in requests:
        kept: list[torch.Tensor] = []

        def keep(_: Any, step: int, timestep: Any, tensors: dict[str, Any], kept: list[Any] = kept) -> dict[str, Any]:
            kept[:] = [tensors["latents"]]
            return {}

        torch.manual_seed(request.seed)  # the VAE of 0.9.1 draws noise from the global generator
        with torch.inference_mode():
            images = pipeline(
                prompt=request.prompt,
                negative_prompt=request.negative_prompt,
                height=request.height,
                width=request.width,
                num_frames=request.num_frames,
                frame_rate=request.frame_rate,
                num_inference_steps=request.num_inference_steps,
                timesteps=None if request.timesteps is None else list(request.timesteps),
                guidance_scale=request.guidance_scale,
                decode_timestep=request.decode_timestep,
                decode_noise_scale=request.decode_noise_scale,
                max_sequence_length=request.max_sequence_length,
                generator=torch.Generator("cpu").manual_seed(request.seed),
                output_type="pil",
                callback_on_step_end=keep,
                callback_on_step_end_tensor_inputs=["latents"],
            ).frames[0]
        rendered.latents.append(sha256(unpacked(pipeline, kept[0], request)))
        digest = hashlib.sha256()
        for image in images:
            digest.update(np.asarray(image).tobytes())
        rendered.frames.append(digest.hexdigest())
    return rendered


def unpacked(pipeline: Any, latents: torch.Tensor, request: Any) -> torch.Tensor:
    """The latents as (1, C, F, H, W), float32, on the host."""
    latents = pipeline._unpack_latents(
        latents,
        (request.num_frames - 1) // pipeline.vae_temporal_compression_ratio + 1,
        request.height // pipeline.vae_spatial_compression_ratio,
        request.width // pipeline.vae_spatial_compression_ratio,
        pipeline.transformer_spatial_patch_size,
        pipeline.transformer_temporal_patch_size,
    )
    return latents.float().cpu()


def sha256(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
