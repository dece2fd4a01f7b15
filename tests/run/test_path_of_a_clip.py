"""How many files of the package run from `Scheduler.schedule` to a clip's mp4, as a reader would follow them."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import ltx_dist
from ltx_dist.engine.loop import BatchLoop
from ltx_dist.inputs.config import RenderConfig
from ltx_dist.placement.inventory import Inventory
from ltx_dist.run.batch import open_batch
from ltx_dist.run.crew import Crew
from ltx_dist.run.placed_batch import PlacedBatch, place_batch
from ltx_dist.scheduling.batching import batch_key
from ltx_dist.scheduling.scheduler import Scheduler
from ltx_dist.worker.local_executor import LocalExecutor

PACKAGE = Path(ltx_dist.__file__).parent
MOST_FILES = 43
"""More make it harder to follow a clip: merge what is always read together. docs/decisions.md has the list."""


class Calls:
    """Calls of Python functions by file of the package, in all threads that begin after this is installed."""

    def __init__(self) -> None:
        self.by_file: Counter[str] = Counter()
        self._counts = False
        self._names: dict[str, str | None] = {}

    @contextmanager
    def installed(self) -> Iterator[Calls]:
        threading.setprofile(self._called)
        sys.setprofile(self._called)
        try:
            yield self
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # pyright: ignore[reportArgumentType]

    @contextmanager
    def counted(self) -> Iterator[None]:
        self._counts = True
        try:
            yield
        finally:
            self._counts = False

    def _called(self, frame: FrameType, event: str, argument: object) -> None:
        if not self._counts or event != "call" or frame.f_code.co_name == "<module>":
            return
        file = frame.f_code.co_filename
        if file not in self._names:
            path = Path(file)
            self._names[file] = path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else None
        if name := self._names[file]:
            self.by_file[name] += 1


def loop_of(placed: PlacedBatch, executor: LocalExecutor) -> BatchLoop:
    recipe, costs = placed.placement.recipe, placed.batch.costs(placed.precision)
    scheduler = Scheduler(placed.placement, costs, batch_key(recipe, placed.batch.requests))
    return BatchLoop(scheduler, executor, keys=placed.keys.of)


def test_one_clip_runs_through_few_files(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\na blue square\n")
    config = RenderConfig.model_validate({
        "defaults": {"height": 64, "width": 64, "num_frames": 9, "num_inference_steps": 2},
        "placement": {"device": "cpu"},
    })  # fmt: skip
    placed = place_batch(open_batch(str(prompts), config), Inventory((), 2))
    first, second = placed.batch.requests
    with Calls().installed() as calls:
        executor = LocalExecutor(Crew(placed).specs())
        try:
            list(loop_of(placed, executor).render([first]))  # loads the weights, which is not part of a clip
            loop = loop_of(placed, executor)
            with calls.counted():
                (result,) = loop.render([second])
        finally:
            executor.shutdown()
    assert result.video is not None, result.error
    lines = [f"{number:6} calls  {name}" for name, number in sorted(calls.by_file.items())]
    listing = "\n".join([*lines, f"{len(lines)} files"])
    print(f"\n{listing}")
    assert len(lines) <= MOST_FILES, listing
