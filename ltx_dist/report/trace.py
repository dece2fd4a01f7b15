"""`trace.json`: what each worker did when, for Perfetto (ui.perfetto.dev) and chrome://tracing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.report.run_record import read_run_record, recorded_recipe
from ltx_dist.store.files import HeldFolder, to_json, write_atomically

PROCESS = 1
"""All workers are threads of one process here: Perfetto draws them as lanes one below the other."""


def write_trace(folder: Path, held: HeldFolder | None = None) -> Path:
    """Write `folder/trace.json` from its run.json; returns its path. ValueError without one; may raise OSError."""
    path, scratch = folder / "trace.json", folder / ".ltx-dist" / "tmp"
    content = to_json(chrome_trace(read_run_record(folder)))
    write_atomically(path, content, scratch if scratch.is_dir() else None, held)
    return path


def chrome_trace(record: Mapping[str, Any]) -> dict[str, Any]:
    """A run record in Chrome's trace event format: one thread per worker, one slice per stage, loading apart.

    Times are microseconds from the run's start. Slices are named by their stage, so that each stage has one colour.
    """
    recipe = recorded_recipe(record)
    threads = {worker["worker_id"]: number for number, worker in enumerate(record["workers"], start=1)}
    events = [_name("process_name", 0, f"ltx-dist, {record['layout']}")]
    for worker in record["workers"]:
        number = threads[worker["worker_id"]]
        events.append(_name("thread_name", number, f"{worker['worker_id']} ({worker['device']})"))
        events.append(_metadata("thread_sort_index", number, {"sort_index": number}))
    for event in record["events"]:
        events += _slices(event, threads[event["worker_id"]], recipe)
    counts = {key: record[key] for key in ("submitted", "done", "failed", "remaining", "exit_code")}
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": counts}


def _slices(event: Mapping[str, Any], thread: int, recipe: Recipe) -> list[dict[str, Any]]:
    """The work of an event, and before it the loading of weights where there was any."""
    clip, stage, load = (
        ", ".join([event["request_id"], *event.get("shared_with", ())]),
        event["stage"],
        event["load_seconds"],
    )
    if recipe[stage].runs_on == "host":
        return _beside(event, recipe[stage].label.verb)
    details = {key: event[key] for key in ("error", "failure") if key in event}
    work = _slice(stage, stage, event["started"], event["finished"], thread, {"clip": clip} | details)
    if load <= 0:
        return [work]
    began = max(0.0, event["started"] - load)
    return [_slice(f"load for {stage}", "load", began, event["started"], thread, {"clip": clip}), work]


def _beside(event: Mapping[str, Any], verb: str) -> list[dict[str, Any]]:
    """Host stages run beside the device's work, and several at a time: an async slice in a track of its own."""
    shared = {"name": f"{verb} {event['worker_id']}", "cat": event["stage"], "id": event["request_id"], "pid": PROCESS}
    began = shared | {"ph": "b", "ts": round(event["started"] * 1e6), "args": {"clip": event["request_id"]}}
    return [began, shared | {"ph": "e", "ts": round(event["finished"] * 1e6)}]


def _slice(
    name: str, category: str, started: float, finished: float, thread: int, args: dict[str, Any]
) -> dict[str, Any]:
    # Whole microseconds, so that a slice ends no later than the next begins.
    start, end = round(started * 1e6), round(finished * 1e6)
    place = {"pid": PROCESS, "tid": thread, "ts": start, "dur": end - start}
    return {"name": name, "cat": category, "ph": "X", "args": args} | place


def _name(kind: str, thread: int, name: str) -> dict[str, Any]:
    return _metadata(kind, thread, {"name": name})


def _metadata(kind: str, thread: int, args: dict[str, Any]) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": PROCESS, "tid": thread, "args": args}
