"""The line of facts at the head of the page: number of clips, model, devices and speed.

A folder may have clips of several commands, but the record is only about the last run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from ltx_dist.messages import count, duration
from ltx_dist.report.clips import Clip
from ltx_dist.report.tally import rate_text


def headline(record: Mapping[str, Any] | None, clips: Sequence[Clip], makespan_seconds: float) -> list[str]:
    """The facts in order; those about a run only if there is a record."""
    if record is None:
        return [count(len(clips), "clip"), *_model(None, clips)]
    others = _clips_of_others(record, clips)
    of_run = _done_of(record["done"], record["submitted"])
    if others:
        num_done = record["done"] + sum(clip.status == "done" for clip in others)
        of_all = _done_of(num_done, record["submitted"] + len(others))
        facts = [of_all, *_model(None, clips), f"last run: {of_run}"]
    else:
        facts = [of_run, *_model(record, clips)]
    facts.append(_devices(record["workers"]))
    if makespan_seconds > 0:
        ended = record["done"] - record.get("skipped", 0) + record["failed"]
        facts += [duration(makespan_seconds), f"{rate_text(3600 * ended / makespan_seconds)} clips/h"]
    if record.get("skipped"):
        facts.append(f"{record['skipped']} finished earlier")
    return facts


def num_failed(record: Mapping[str, Any], clips: Sequence[Clip]) -> int:
    """Failed clips of the last run and of other commands."""
    return record["failed"] + sum(clip.status == "failed" for clip in _clips_of_others(record, clips))


def _clips_of_others(record: Mapping[str, Any], clips: Sequence[Clip]) -> list[Clip]:
    """The clips that were not part of the last run; empty if its record does not name the run's clips."""
    of_run = set(record.get("requests", ()))
    return [clip for clip in clips if clip.name not in of_run] if of_run else []


def _done_of(done: int, number: int) -> str:
    return count(number, "clip") if done == number else f"{done} of {count(number, 'clip')}"


def _model(record: Mapping[str, Any] | None, clips: Sequence[Clip]) -> list[str]:
    """Checkpoint, version and precision; each only if it is the same for all clips."""
    recorded = (record or {}).get("checkpoint")
    name = recorded.get("name") if isinstance(recorded, Mapping) else None
    settings = [clip.settings for clip in clips if clip.settings]
    said = {
        key: values.pop()
        for key in ("model.checkpoint", "model.version", "model.precision")
        if len(values := {str(json.loads(own.get(key, '""'))) for own in settings}) == 1
    }
    checkpoint = name if isinstance(name, str) else said.get("model.checkpoint", "")
    model = PurePath(checkpoint).name if checkpoint.startswith("/") else checkpoint
    version = said.get("model.version", "")
    parts = [model, *([version] if version and version not in ("auto", model) else []), said.get("model.precision", "")]
    return [", ".join(part for part in parts if part)] if model else []


def _devices(workers: Sequence[Mapping[str, Any]]) -> str:
    """`4 × NVIDIA GeForce RTX 4090`, or `3 CPU workers`, which share the cores of their hosts."""
    names = Counter(_device(worker) for worker in workers)
    return ", ".join(
        count(number, f"{name} worker" if name == "CPU" else name) if name in ("CPU", "GPU") else f"{number} × {name}"
        for name, number in names.items()
    )


def _device(worker: Mapping[str, Any]) -> str:
    """The worker's device model; in older records, which lack it, only the kind of device."""
    if worker["device"] == "cpu":
        return "CPU"
    name = worker.get("device_name", "cpu")
    return "GPU" if name == "cpu" else name
