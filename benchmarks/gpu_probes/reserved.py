"""Measures the bytes of every stage as the card sees them, to compare with the plan, with either allocator setting.

A process has one setting: the runner starts one with `PYTORCH_ALLOC_CONF=expandable_segments:True`, and one without.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .decoding import frames_of, latents_of, operation_of
from .models import checkpoint_of, request_of
from .rendering import DECODE, DENOISE, ENCODE, worker_of
from .scale import GB, Row, Scale, emptied, memory, timed

TILES = ((None, None), (576, 72), (320, 64), (256, 32))


def reserved(scale: Scale) -> Iterator[Row]:
    """Bytes allocated and reserved, retries and seconds of each stage, with only its weights on the card."""
    from ltx_dist.models.family import StageContext
    from ltx_dist.pipeline.storage import DecodeTiling

    setting = os.environ.get("PYTORCH_ALLOC_CONF", "default")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = checkpoint_of(scale, "2b", Path(folder))
        worker = worker_of(scale, checkpoint, "time_sliced")
        for shape in scale.shapes:
            request = request_of(scale, 0, shape, 1)
            name = f"{shape[1]}x{shape[0]}x{shape[2]}, {setting}"
            encoder = operation_of(worker, ENCODE)
            context = StageContext(worker._recipe[DENOISE])

            def one_prompt(encoder: Any = encoder, request: Any = request, context: Any = context) -> Any:
                return encoder.run([request], [{}], context)[0]

            conditioning = yield from _measured(scale, f"encode {name}", one_prompt)
            denoiser = operation_of(worker, DENOISE)

            def one_step(
                denoiser: Any = denoiser, request: Any = request, given: Any = conditioning, context: Any = context
            ) -> Any:
                return denoiser.run([request], [{ENCODE: given}], context)

            yield from _measured(scale, f"denoise {name}", one_step)
            decoder, latents = operation_of(worker, DECODE), latents_of(scale, request, checkpoint)
            for size, length in TILES if not scale.is_tiny else TILES[:1]:
                count = partial(_count_frames, decoder, request, latents, DecodeTiling(size, length))
                yield from _measured(scale, f"decode {name}, tiles {size} {length}", count)


def _count_frames(decoder: Any, request: Any, latents: Any, tiling: Any) -> int:
    return sum(1 for _ in frames_of(decoder, request, latents, tiling))


def _measured(scale: Scale, case: str, call: Any) -> Any:
    """Yield the row of the second run, when kernels are already loaded. Returns what the call made."""
    weights = torch.cuda.memory_allocated(scale.device) / GB if scale.is_cuda else 0.0
    try:
        with torch.inference_mode():
            first, made = timed(scale, call)
            del made
            emptied(scale)
            seconds, made = timed(scale, call)
    except RuntimeError as error:
        yield {"case": case, "error": f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"}
        return None
    row: Row = {"case": case, "first_s": round(first, 3), "seconds": round(seconds, 3), "weights_gb": round(weights, 3)}
    yield row | memory(scale)
    return made
