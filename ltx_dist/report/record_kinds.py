"""Checks that a run record is one of ours: every part that a view reads exists, has the right type, and is finite.

`run.json` may have been edited, or come from elsewhere; views rely on a record that has passed this check.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from typing import Any, cast

MAX_SECONDS = 1e10
"""Maximum seconds, three centuries: durations are drawn and multiplied, and larger ones would overflow."""


def check_kinds(record: Any) -> None:
    """Raise ValueError, KeyError, TypeError or AttributeError if a part is missing or has another type."""
    for stage in _list(record.get("stages", [])):
        _stage(stage)
    workers = [_worker(worker) for worker in _list(record["workers"])]
    _texts([record["layout"], *workers])
    if len(set(workers)) != len(workers):
        raise ValueError("two workers of one name")
    for name in ("submitted", "done", "failed", "remaining"):
        _count(record[name])
    _count(record.get("skipped", 0))
    if record["exit_code"] is not None:
        _count(record["exit_code"])
    for name in ("startup_seconds", "makespan_seconds", "lower_bound_seconds"):
        _seconds(record.get(name, 0) if name == "startup_seconds" else record[name])
    shares = _mapping(record["busy_share"])
    for worker in workers:
        _seconds(shares[worker])
    for seconds in _mapping(record.get("losses", {})).values():
        _seconds(seconds)
    known = frozenset(workers)
    for event in _list(record["events"]):
        _event(event, known)
    for name in ("requests", "unfinished", "warnings"):
        _texts(_list(record.get(name, [])))


def _stage(stage: Any) -> None:
    _texts([stage["name"], *_list(stage["components"]), *_mapping(stage["label"]).values()])
    _seconds(stage["share"])
    if stage["runs_on"] not in ("device", "host"):
        raise ValueError("a stage that runs nowhere")


def _worker(worker: Any) -> str:
    _texts([worker["worker_id"], worker["device"], worker.get("device_name", ""), *_list(worker["stages"])])
    return worker["worker_id"]


def _event(event: Any, workers: Container[str]) -> None:
    _texts([event["request_id"], event["stage"], event["worker_id"], *_list(event.get("shared_with", []))])
    _texts([event.get("error") or "", event.get("failure", "")])
    if event["worker_id"] not in workers:
        raise ValueError("an event of an unknown worker")
    started, finished = _seconds(event["started"]), _seconds(event["finished"])
    _seconds(event["load_seconds"])
    if finished < started:
        raise ValueError("an event that ends before it starts")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return cast("list[Any]", value)


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return cast("dict[str, Any]", value)


def _texts(values: Iterable[Any]) -> None:
    for value in values:
        if not isinstance(value, str):
            raise TypeError("not a text")
        value.encode()  # ValueError for half of a surrogate pair, which no file can hold


def _count(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise ValueError("not a count")


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("not a number")
    if not math.isfinite(value) or not 0 <= value <= MAX_SECONDS:
        raise ValueError("not a duration")
    return float(value)
