"""`index.html`: the clips of a folder, playing, and what each worker did when; from run.json and sidecars alone.

One file that asks for nothing but the clips beside it: style and script are inline, allowed by their hashes.
Sidecars may come from elsewhere: whatever they hold is text on the page, never markup.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import shlex
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from ltx_dist.output.files import write_atomically
from ltx_dist.output.publisher import RESERVED_NAMES
from ltx_dist.output.run_record import read_run_record, recorded_completions
from ltx_dist.output.tally import clean, duration
from ltx_dist.scheduling.timeline import first_start, lane_of, lanes, makespan, went_wrong
from ltx_dist.types import STAGES, Assignment, Completion, Stage

TEMPLATES = Path(__file__).parent / "templates"

VERBS = {Stage.ENCODE_TEXT: "encode text", Stage.DENOISE: "denoise", Stage.DECODE: "decode", Stage.ENCODE_VIDEO: "mp4"}
NOUNS = {Stage.ENCODE_TEXT: "Text encoding", Stage.DENOISE: "Denoising", Stage.DECODE: "Decoding"}

STATES = {None: "running", 0: "done", 1: "ended by an error", 3: "finished, some failed", 75: "stopped, resumable"}
"""By exit code, for people; None is also what a killed run leaves behind."""

SATURATED = 0.9
"""A worker that was busy for this share of the makespan could hardly have done more."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One card. `status` is done, failed, or unknown for an mp4 or a sidecar that lacks its other half.

    url: of the mp4, relative to the page; None without one. seconds: of work, without loading and waiting.
    """

    name: str
    status: str
    url: str | None
    error: str = ""
    command: str = ""
    seconds: float = 0.0
    request: Mapping[str, Any] | None = None
    stages: tuple[tuple[Stage, Mapping[str, Any]], ...] = ()
    mp4_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """One completion on a lane; `x`, `width` and `load` (before `x`) are percent of the makespan."""

    name: str
    stage: Stage
    x: float
    width: float
    load: float
    shade: int
    label: str
    failed: bool


def write_report(folder: Path) -> Path:
    """Write `folder/index.html` from what the folder holds now, while a run goes on or after it; returns its path.

    Without run.json there are only clips. May raise OSError; ValueError for a run.json that is not ours.
    """
    path, scratch = folder / "index.html", folder / ".ltx-dist" / "tmp"
    write_atomically(path, render_page(folder).encode(), scratch if scratch.is_dir() else None)
    return path


def render_page(folder: Path) -> str:
    """The page as text. It has no clock and no random part: the same folder gives the same page."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    environment.filters |= {"seconds": _seconds, "percent": "{:.0%}".format, "number": _number}
    style, script = ((TEMPLATES / name).read_text("utf-8") for name in ("page.css", "page.js"))
    record = read_run_record(folder) if (folder / "run.json").exists() else None
    return environment.get_template("page.html.j2").render(
        title=folder.resolve().name,
        style=Markup(style),
        script=Markup(script),
        style_hash=_csp_hash(style),
        script_hash=_csp_hash(script),
        clips=read_clips(folder),
        verbs=VERBS,
        **(_run(record) if record else {"record": None}),
    )


def read_clips(folder: Path) -> list[Clip]:
    """Every clip of the folder, finished or failed, in the order of names (2 before 10)."""
    names = {path.stem for path in folder.glob("*.mp4")} | {path.stem for path in folder.glob("*.json")}
    return [_clip(folder, name) for name in sorted(names - RESERVED_NAMES, key=_natural)]


def advice(record: Mapping[str, Any]) -> str:
    """What kept the batch from being faster, in a sentence of measured facts; empty where there are none yet."""
    completions = [c for c in recorded_completions(dict(record)) if not went_wrong(c)]
    hosts = {stage: [w["worker_id"] for w in record["workers"] if stage in w["stages"]] for stage in STAGES}
    total = record["makespan_seconds"]
    if not completions or total <= 0:
        return ""
    by_clip, by_stage = _sums(completions)
    pole = max(by_stage, key=lambda stage: by_stage[stage] / len(hosts[stage]))
    longest = max(by_clip.values())
    if len(record["workers"]) > 1 and longest >= SATURATED * total:
        return f"The longest clip alone took {_seconds(longest)} of {_seconds(total)}: more workers would not help."
    shares = record["busy_share"]
    busy = sum(shares[worker] for worker in hosts[pole]) / len(hosts[pole])
    who = hosts[pole][0] if len(hosts[pole]) == 1 else f"its {len(hosts[pole])} workers"
    was = "was" if len(hosts[pole]) == 1 else "were"
    if busy < SATURATED:
        loading = sum(c.report.load_seconds for c in completions if c.started > first_start(completions))
        loaded = f" Loading weights took {_seconds(loading)} of the workers' time." if loading > 0.01 * total else ""
        return f"{NOUNS[pole]} bounds this batch, yet {who} waited {1 - busy:.0%} of the makespan.{loaded}"
    if len(hosts[pole]) == len(record["workers"]):
        every = "The worker was" if len(hosts[pole]) == 1 else "The workers were"
        return f"{every} busy {busy:.0%} of the makespan: only another or a faster device would shorten this batch."
    return f"{NOUNS[pole]} is the long pole: {who} {was} busy {busy:.0%}; another worker for it would help most."


def _run(record: dict[str, Any]) -> dict[str, Any]:
    """What the template asks of a run."""
    completions = recorded_completions(record)
    origin, total = first_start(completions), makespan(completions)
    # Long ones first, so that short ones are drawn on top of them.
    by_worker = {
        worker: sorted(lane, key=lambda c: c.started - c.finished) for worker, lane in lanes(completions).items()
    }
    began = list(dict.fromkeys(c.assignment.request_id for c in completions))
    order = {name: position for position, name in enumerate(began)}
    bound = record["lower_bound_seconds"]
    return {
        "record": record,
        "state": STATES.get(record["exit_code"], f"ended with exit code {record['exit_code']}"),
        "ratio": total / bound if bound else None,
        "advice": advice(record),
        "order": order,
        "lanes": [
            (worker, [_bar(c, origin, total, order) for c in by_worker.get(worker["worker_id"], [])])
            for worker in _lane_heads(record["workers"], by_worker)
        ],
    }


def _lane_heads(workers: Sequence[Mapping[str, Any]], lane_names: Container[str]) -> Iterator[Mapping[str, Any]]:
    """The workers, each followed by its host's lane of mp4s where it has one."""
    for worker in workers:
        yield worker
        name = lane_of(Assignment("", Stage.ENCODE_VIDEO, worker["worker_id"]))
        if name in lane_names:
            yield {**worker, "worker_id": name, "stages": [Stage.ENCODE_VIDEO]}


def _bar(completion: Completion, origin: float, total: float, order: Mapping[str, int]) -> Bar:
    assignment, scale = completion.assignment, 100 / max(total, 1e-6)
    x = (completion.started - origin) * scale
    seconds, load = completion.report.seconds, completion.report.load_seconds
    parts = [assignment.request_id, VERBS[assignment.stage], _seconds(seconds)]
    parts += [f"loading {_seconds(load)}"] * (load >= 0.005)
    parts.append(f"from {_seconds(completion.started - origin)} on {assignment.worker_id}")
    parts += [clean(completion.error or "worker lost")] * went_wrong(completion)
    return Bar(
        name=assignment.request_id,
        stage=assignment.stage,
        x=round(x, 4),
        width=round(seconds * scale, 4),
        load=round(min(load * scale, x), 4),
        shade=order[assignment.request_id] % 2,
        label=" · ".join(parts),
        failed=went_wrong(completion),
    )


def _clip(folder: Path, name: str) -> Clip:
    mp4 = f"{name}.mp4"
    url = quote(os.fsencode(mp4)) if (folder / mp4).is_file() else None
    try:
        sidecar = json.loads((folder / f"{name}.json").read_bytes())
        request, done = sidecar["request"], sidecar["status"] == "done"
        stages = tuple((stage, sidecar["stages"][stage]) for stage in STAGES if stage in sidecar["stages"])
        return Clip(
            name=name,
            status=("done" if url else "unknown") if done else "failed",
            url=url if done else None,
            error=("" if url else f"{mp4} is missing") if done else str(sidecar["error"]),
            command=_command(request, sidecar["checkpoint"]["name"]),
            seconds=sum(_checked_seconds(report) for _, report in stages),
            request=dict(request),
            stages=stages,
            mp4_sha256=sidecar.get("mp4_sha256", ""),
        )
    except FileNotFoundError:
        return Clip(name, "unknown", url, f"{name}.json is missing")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return Clip(name, "unknown", url, f"{name}.json is damaged or not a sidecar")


def _checked_seconds(report: Mapping[str, Any]) -> float:
    seconds = report["seconds"]
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        raise ValueError(f"{seconds!r} are no seconds")
    return seconds


def _command(request: Mapping[str, Any], checkpoint: str) -> str:
    """What renders the clip again, for a POSIX shell: every setting of its request as a prompt file of one row.

    printf and not echo, which in some shells reads the backslashes of JSON. A setting of null is one not given.
    """
    row = {"name": request["request_id"], **{key: value for key, value in request.items() if value is not None}}
    del row["request_id"]
    command = f"printf '%s\\n' {shlex.quote(json.dumps(row))} | ltx-dist render - -o again"
    if checkpoint != "demo":
        command += f" --set {shlex.quote(f'model.checkpoint={json.dumps(checkpoint)}')}"
    return command


def _sums(completions: list[Completion]) -> tuple[dict[str, float], dict[Stage, float]]:
    """Seconds of work by clip and by stage."""
    by_clip: dict[str, float] = {}
    by_stage: dict[Stage, float] = {}
    for completion in completions:
        assignment, seconds = completion.assignment, completion.report.seconds
        by_clip[assignment.request_id] = by_clip.get(assignment.request_id, 0.0) + seconds
        by_stage[assignment.stage] = by_stage.get(assignment.stage, 0.0) + seconds
    return by_clip, by_stage


def _shown(value: object) -> object:
    """Every value on its way to the page: text without control characters, its line breaks kept."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "\n".join(clean(line) for line in value.split("\n"))


def _number(value: object) -> object:
    """12.0 as 12; what is no number as it is."""
    return f"{value:g}" if isinstance(value, float) else value


def _seconds(value: float) -> str:
    return duration(value) if value >= 59.95 else f"{value:.{1 if value >= 9.995 else 2}f} s"


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
