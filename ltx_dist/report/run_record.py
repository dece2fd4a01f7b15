"""`run.json`: the results of a batch in numbers, for people and for tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ltx_dist.estimates.costs import Costs, UniformCosts
from ltx_dist.models.ltx_video.recipes import RECIPE
from ltx_dist.pipeline.recipe import Recipe, StageLabel, StageSpec
from ltx_dist.pipeline.timeline import busy_shares, first_start, makespan
from ltx_dist.pipeline.work import Assignment, Completion, Failure, RenderResult, StageReport
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.planning.losses import losses, measured_bound
from ltx_dist.report.record_kinds import check_kinds
from ltx_dist.store.files import HeldFolder, to_json, write_atomically
from ltx_dist.store.found import MAX_RUN_BYTES, ForeignFileError, read_found_json


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of clips. `skipped` existed before the run and are part of `done`; `remaining` have no result yet."""

    submitted: int
    done: int
    failed: int
    remaining: int
    skipped: int = 0

    def __post_init__(self) -> None:
        assert self.done + self.failed + self.remaining == self.submitted, self
        assert 0 <= self.skipped <= self.done, self


@dataclass
class RunProgress:
    """The results of a batch so far; written as `run.json` however the run ends.

    names: of the clips, in the order of the batch; unfinished: those without a result. checkpoint: its name and
    digests, as in sidecars.
    """

    placement: Placement
    names: Sequence[str]
    checkpoint: Mapping[str, Any]
    exit_code: int | None = None
    skipped: int = 0
    done: int = 0
    failed: int = 0
    unfinished: set[str] = field(default_factory=set)
    completions: Sequence[Completion] = ()
    costs: Costs = field(default_factory=UniformCosts)
    warnings: list[str] = field(default_factory=list)

    @property
    def submitted(self) -> int:
        return len(self.names)

    def count(self, result: RenderResult) -> None:
        self.unfinished.discard(result.request.request_id)
        if result.status == "done":
            self.done += 1
        else:
            self.failed += 1

    @property
    def counts(self) -> Counts:
        done = self.skipped + self.done
        return Counts(self.submitted, done, self.failed, self.submitted - done - self.failed, self.skipped)

    def write(self, folder: Path, held: HeldFolder | None = None) -> None:
        """May raise OSError."""
        record = build_run_record(self.counts, self.placement, self.completions, self.exit_code, self.costs)
        batch = {"requests": list(self.names), "checkpoint": dict(self.checkpoint)}
        write_run_record(
            folder, record | batch | {"unfinished": sorted(self.unfinished), "warnings": self.warnings}, held
        )


def build_run_record(
    counts: Counts,
    placement: Placement,
    completions: Sequence[Completion],
    exit_code: int | None,
    costs: Costs | None = None,
) -> dict[str, Any]:
    """The content of `run.json`.

    completions: all of this run, including those of failed and unfinished clips. costs: how workers of different kinds
    compare. exit_code: None during the run, so it stays None if the run is killed.

    Times count from the run's start, when its workers begin to load. startup_seconds: until the first work.
    makespan_seconds: from then to the end of the last work. lower_bound_seconds: what no order of the same work could
    beat, see `measured_bound`; lower_bound_by: the stage or the clip that sets it; makespan_over_bound: their ratio.
    losses: where the makespan went, see `Losses`. busy_share: of the makespan, by worker. events: one per completion,
    by start; shared_with: the other clips of its pass.
    """
    workers, recipe = placement.workers, placement.recipe
    shares, total = busy_shares(completions, recipe), makespan(completions)
    bound = measured_bound(completions, workers, recipe, costs or UniformCosts())
    return {
        "submitted": counts.submitted,
        "done": counts.done,
        "failed": counts.failed,
        "remaining": counts.remaining,
        "skipped": counts.skipped,
        "exit_code": exit_code,
        "layout": placement.layout,
        "stages": [_stage_of(stage) for stage in recipe],
        "workers": [worker_of(worker) for worker in workers],
        "startup_seconds": first_start(completions),
        "makespan_seconds": total,
        "lower_bound_seconds": bound.seconds,
        "lower_bound_by": bound.by,
        "makespan_over_bound": total / bound.seconds if bound.seconds else None,
        "losses": asdict(losses(completions, workers, recipe)),
        "busy_share": {worker.worker_id: shares.get(worker.worker_id, 0.0) for worker in workers},
        "events": [event_of(c) for c in sorted(completions, key=lambda c: (c.started, c.finished))],
    }


def write_run_record(folder: Path, record: dict[str, Any], held: HeldFolder | None = None) -> None:
    """Write `record` to `run.json`, atomically. folder: a Publisher's. May raise OSError."""
    write_atomically(folder / "run.json", to_json(record), folder / ".ltx-dist" / "tmp", held)


def read_run_record(folder: Path) -> dict[str, Any]:
    """The record that `write_run_record` wrote. Raises ValueError naming the file if there is none, or none of ours."""
    path = folder / "run.json"
    try:
        record = read_found_json(path, MAX_RUN_BYTES)
    except FileNotFoundError:
        raise ValueError(f"{path}: not found; `ltx-dist render ... -o {folder}` writes it") from None
    except ForeignFileError:
        raise
    except ValueError as error:
        raise ValueError(f"{path}: damaged, not JSON: {error}; rerunning the batch writes it again") from None
    if not _is_run_record(record):
        raise ValueError(f"{path}: not a run record of ltx-dist; rerunning the batch writes it again")
    return record


def records_work(folder: Path) -> bool:
    """Whether `run.json` records a run that rendered something and ended with all of its clips finished."""
    try:
        record = read_run_record(folder)
    except ValueError:
        return False
    return bool(record["events"]) and record["exit_code"] == 0


def _is_run_record(record: Any) -> bool:
    """Whether all parts that are read exist and have the right type."""
    try:
        check_kinds(record)
        recipe = recorded_recipe(record)
        for completion in recorded_completions(record):
            recipe.position(completion.assignment.stage)
        for worker in record["workers"]:
            list(map(recipe.position, worker["stages"]))
        Counts(
            *(record[name] for name in ("submitted", "done", "failed", "remaining")), skipped=record.get("skipped", 0)
        )
        return True
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError, OverflowError, IndexError):
        return False


def recorded_completions(record: dict[str, Any]) -> list[Completion]:
    """The events of a run as completions: their times, without the videos."""
    return [
        Completion(
            Assignment((event["request_id"], *event.get("shared_with", ())), event["stage"], event["worker_id"]),
            event["started"],
            event["finished"],
            StageReport(event["finished"] - event["started"], event["load_seconds"], event.get("error")),
            Failure(event["failure"]) if "failure" in event else None,
        )
        for event in record["events"]
    ]


def recorded_recipe(record: Mapping[str, Any]) -> Recipe:
    """The stages of a run, as far as views need them. Older records, which do not name them, have LTX-Video's."""
    if "stages" not in record:
        return RECIPE
    stages = [
        StageSpec(
            name=stage["name"],
            operation=stage["name"],
            label=StageLabel(*(str(stage["label"][part]) for part in ("letter", "verb", "noun", "colour"))),
            components=tuple(map(str, stage["components"])),
            runs_on=stage["runs_on"],
            share=float(stage["share"]),
        )
        for stage in record["stages"]
    ]
    return Recipe("as recorded", tuple(stages))


def _stage_of(stage: StageSpec) -> dict[str, Any]:
    label = asdict(stage.label)
    return {"name": stage.name, "label": label, "components": list(stage.components)} | {
        "runs_on": stage.runs_on, "share": stage.share,
    }  # fmt: skip


def worker_of(worker: Worker) -> dict[str, Any]:
    device = "cpu" if worker.device == "cpu" else f"{worker.device}:{worker.device_index}"
    stages = [str(stage) for stage in worker.stages]
    return {"worker_id": worker.worker_id, "stages": stages, "device": device, "device_name": worker.device_name}


def event_of(completion: Completion) -> dict[str, Any]:
    assignment = completion.assignment
    first, *others = assignment.request_ids
    event: dict[str, Any] = {
        "request_id": first,
        "stage": str(assignment.stage),
        "worker_id": assignment.worker_id,
        "started": completion.started,
        "finished": completion.finished,
        "load_seconds": completion.report.load_seconds,
    }
    if others:
        event["shared_with"] = others
    if completion.error is not None:
        event["error"] = completion.error
    if completion.failure is not None:
        event["failure"] = str(completion.failure)
    return event
