"""Checks the first promise on a card: the same bits as diffusers' own pipeline, however the weights are held."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers

from .models import checkpoint_of, plain_pipeline, request_of
from .rendering import ours, theirs, worker_of
from .scale import Row, Scale, emptied, memory

PIPELINES = (("0.9.0", "LTXPipeline"), ("0.9.1", "LTXPipeline"), ("0.9.5", "LTXPipeline"))
CONDITIONS = ("0.9.5", "LTXConditionPipeline")

WAYS: Mapping[str, Mapping[str, Any]] = {
    "resident": {"residency": "resident"},
    "time_sliced": {"residency": "time_sliced"},
    "prefetched": {"residency": "time_sliced", "capacity": 10**13, "peak_bytes": 0},
    "read again": {"residency": "time_sliced", "keeps_host_copy": False},
    "streamed": {"residency": "streamed"},
}
"""Ways in which a worker may hold its weights; none of them may change a bit."""

AIM = "latents and frames as diffusers makes them"


def small(scale: Scale) -> Iterator[Row]:
    """Compare tiny checkpoints of four kinds, with two clips each, in every way; and float8 streamed with resident.

    On a CPU, one clip of each of two kinds shows that the probe works. The tests check that no residency changes a bit
    there.
    """
    import tiny

    from ltx_dist.checkpoints.checkpoint import open_checkpoint
    from ltx_dist.pipeline.storage import Storage

    scale = replace(scale, name="tiny", shapes=((64, 64, 9),))
    kinds = (*PIPELINES, CONDITIONS) if scale.is_cuda else (PIPELINES[1], CONDITIONS)
    with tempfile.TemporaryDirectory() as folder:
        for version, pipeline_class in kinds:
            name = f"{version} {pipeline_class}"
            path = tiny.save_checkpoint(Path(folder) / name, version, pipeline_class)
            checkpoint = open_checkpoint(str(path))
            timesteps = (1000.0, 500.0) if pipeline_class == "LTXConditionPipeline" else None
            clips = range(2 if scale.is_cuda else 1)
            requests = [request_of(scale, index, scale.shapes[0], 2, timesteps=timesteps) for index in clips]
            pipeline = whole_pipeline(scale, checkpoint)
            expected = theirs(pipeline, requests)
            again = theirs(pipeline, requests)
            yield {"case": f"{name}: diffusers twice", "ok": expected.digests == again.digests, "aim": "the same"}
            for way, fields in WAYS.items():
                found = ours(worker_of(scale, checkpoint, **fields), requests)
                yield {"case": f"{name}: {way}", "ok": found.digests == expected.digests, "aim": AIM}
                emptied(scale)
            float8 = Storage("float8")
            resident, streamed = (
                ours(worker_of(scale, checkpoint, **WAYS[way], storage=float8), requests).digests
                for way in ("resident", "streamed")
            )
            yield {"case": f"{name}: float8", "ok": resident == streamed, "aim": "streamed as resident"}


def whole_pipeline(scale: Scale, checkpoint: Any) -> Any:
    """diffusers' pipeline on the device, as it loads the folder by itself."""
    pipeline = getattr(diffusers, checkpoint.pipeline_class).from_pretrained(checkpoint.path, dtype=scale.dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(scale.device)


def full_2b(scale: Scale) -> Iterator[Row]:
    yield from _full(scale, "2b", 2)


def full_13b(scale: Scale) -> Iterator[Row]:
    yield from _full(scale, "13b", 1)


def _full(scale: Scale, model: str, steps: int) -> Iterator[Row]:
    """Compare the full-size model, for which other kernels are chosen than for a tiny one."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = checkpoint_of(scale, model, Path(folder))
        requests = [request_of(scale, 0, scale.shapes[0], steps)]
        pipeline = plain_pipeline(scale, checkpoint).to(scale.device)
        expected = theirs(pipeline, requests)
        yield {"case": f"{model}: diffusers", "sha256": expected.frames[0][:12], **memory(scale)}
        del pipeline
        for way in ("resident", "streamed"):
            emptied(scale)
            found = ours(worker_of(scale, checkpoint, **WAYS[way]), requests)
            same = {"latents": found.latents == expected.latents, "frames": found.frames == expected.frames}
            row: Row = {"case": f"{model}: {way}", "ok": all(same.values()), "aim": AIM, **same}
            yield row | {"seconds": round(found.seconds, 2), **memory(scale)}
