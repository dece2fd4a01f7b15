"""Measures decoding on a card: under which caps it works, whether its pixels change, and how fast frames are copied."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .models import checkpoint_of, request_of
from .rendering import DECODE, DENOISE, ENCODE_VIDEO, worker_of
from .scale import GB, NEEDS_CUDA, Row, Scale, emptied, memory, timed

CAPS_GB = (40, 20, 14, 10, 8, 7, 6, 5)
SLOTS = (1, 2, 4, 6)


def latents_of(scale: Scale, request: Any, checkpoint: Any) -> Any:
    """Normally distributed latents instead of a transformer's, with the state of the generator that drew them."""
    from ltx_dist.pipeline.payloads import Latents

    generator = torch.Generator("cpu").manual_seed(request.seed)
    spatial, temporal = checkpoint.spatial_compression_ratio, checkpoint.temporal_compression_ratio
    channels = 16 if scale.is_tiny else 128
    frames = (request.num_frames - 1) // temporal + 1
    shape = (1, channels, frames, request.height // spatial, request.width // spatial)
    return Latents(torch.randn(shape, generator=generator), generator.get_state(), scale.precision)


def decoder_of(scale: Scale, checkpoint: Any) -> Any:
    """The operation of the decode stage, with its weights on the device."""
    worker = worker_of(scale, checkpoint, "time_sliced")
    return operation_of(worker, DECODE)


def operation_of(worker: Any, stage: str) -> Any:
    with torch.inference_mode():
        return worker._components.ready(worker._recipe[stage])


def frames_of(decoder: Any, request: Any, latents: Any, tiling: Any) -> Any:
    from ltx_dist.models.family import FAMILIES, StageContext

    (clip,) = decoder.run([request], [{DENOISE: latents}], StageContext(FAMILIES[0].recipe[DECODE], tiling=tiling))
    return clip.frames


def digest_of(frames: Iterator[Any]) -> str:
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(frame.tobytes())
    return digest.hexdigest()


def caps(scale: Scale) -> Iterator[Row]:
    """Decode a clip in one piece under falling caps of the allocator: success, seconds, memory, digest of the frames.

    The first cap that fails shows what decoding needs. If the digest changes, the engine that cuDNN chooses for
    convolutions depends on free memory.
    """
    from ltx_dist.pipeline.storage import UNTILED

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = checkpoint_of(scale, "2b", Path(folder))
        decoder = decoder_of(scale, checkpoint)
        request = request_of(scale, 0, scale.shapes[0], 2)
        latents = latents_of(scale, request, checkpoint)
        first = ""
        for cap in CAPS_GB if scale.is_cuda else CAPS_GB[:1]:
            emptied(scale)
            if scale.is_cuda:
                total = torch.cuda.get_device_properties(scale.device).total_memory
                torch.cuda.set_per_process_memory_fraction(min(1.0, cap * GB / total), scale.device)
            row: Row = {"case": f"{cap} GB"}
            try:
                with torch.inference_mode():
                    seconds, found = timed(scale, lambda: digest_of(frames_of(decoder, request, latents, UNTILED)))
            except RuntimeError as error:
                yield row | {"works": False, "error": f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"}
                continue
            first = first or found
            same = {"ok": found == first, "aim": "frames as under the largest cap"}
            yield row | {"works": True, "seconds": round(seconds, 3), "sha256": found[:12], **same, **memory(scale)}


def slots(scale: Scale) -> Iterator[Row]:
    """Seconds per clip for decoding while up to 1 to 6 mp4s are being made."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = checkpoint_of(scale, "2b", Path(folder))
        num_clips = 6 if scale.is_cuda else 2
        requests = [request_of(scale, index, scale.shapes[0], 2) for index in range(num_clips)]
        latents = [latents_of(scale, request, checkpoint) for request in requests]
        for count in SLOTS if scale.is_cuda else SLOTS[:2]:
            worker = worker_of(scale, checkpoint, "time_sliced", host_slots=count)
            worker.run(DECODE, [requests[0]], latents[0])
            worker.run(ENCODE_VIDEO, [requests[0]], None)
            started, decoding = time.perf_counter(), 0.0
            waiting: list[Any] = []
            for request, one in zip(requests, latents, strict=True):
                if len(waiting) == count:
                    worker.run(ENCODE_VIDEO, [waiting.pop(0)], None)
                _, report = worker.run(DECODE, [request], one)
                decoding += report.seconds
                waiting.append(request)
            for request in waiting:
                worker.run(ENCODE_VIDEO, [request], None)
            each = (time.perf_counter() - started) / num_clips
            yield {"case": f"{count} slots", "clip_s": round(each, 3), "decode_s": round(decoding / num_clips, 3)}
            del worker
            emptied(scale)


def frames(scale: Scale) -> Iterator[Row]:
    """Seconds to copy frames to the host: one by one as planes, one by one contiguous, and in groups. Equal bytes."""
    if not scale.is_cuda:
        yield NEEDS_CUDA
        return
    height, width, num_frames = scale.shapes[0]
    piece = torch.rand(1, 3, num_frames, height, width, device=scale.device)

    def planes() -> list[Any]:
        return [_uint8(piece[0, :, i]).permute(1, 2, 0).cpu().numpy().copy("C") for i in range(num_frames)]

    def contiguous() -> list[Any]:
        return [_uint8(piece[0, :, i]).permute(1, 2, 0).contiguous().cpu().numpy() for i in range(num_frames)]

    def grouped(size: int = 16) -> list[Any]:
        groups = [_uint8(some).permute(1, 2, 3, 0).contiguous().cpu().numpy() for some in piece[0].split(size, dim=1)]
        return [frame for group in groups for frame in group]

    for name, way in {"planes": planes, "contiguous": contiguous, "groups of 16": grouped}.items():
        way()
        seconds, found = timed(scale, way)
        digest = hashlib.sha256(b"".join(frame.tobytes() for frame in found)).hexdigest()[:12]
        yield {"case": name, "clip_s": round(seconds, 4), "sha256": digest}


def _uint8(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels * 255).round().to(torch.uint8)
