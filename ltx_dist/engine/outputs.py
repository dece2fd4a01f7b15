"""Keeps track of stage outputs: which an executor holds for later stages, and which stages still have to run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from ltx_dist.engine.executor import Executor
from ltx_dist.pipeline.payloads import StageOutput
from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.work import Assignment

T = TypeVar("T")


class Outputs(Generic[T]):
    """Holds each output, or a reference to it, by request and stage, until no later stage of the request reads it.

    The output of a device stage that host stages follow never leaves its worker, so it is not held; the inputs of that
    device stage are held until the host stages have ended, because the clip returns to it when one of them fails.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._held: dict[str, dict[str, T]] = {}

    def inputs(self, stage: str, requests: Sequence[RenderRequest]) -> list[T | None]:
        """The stage's inputs, request by request; None for those that are not held."""
        held = [self._held.get(request.request_id, {}) for request in requests]
        return [outputs.get(name) for outputs in held for name in self._recipe[stage].inputs]

    def get(self, request_id: str, stage: str) -> T:
        return self._held[request_id][stage]

    def holds(self, request_id: str, stage: str) -> bool:
        return stage in self._held.get(request_id, {})

    def put(self, request_id: str, stage: str, output: T) -> None:
        self._held.setdefault(request_id, {})[stage] = output

    def ended(self, stage: str, requests: Sequence[RenderRequest], outputs: Sequence[T]) -> None:
        """Hold the stage's outputs, one per request, and free those that no later stage reads."""
        is_held = self._recipe.hands_on(stage)
        for request, output in zip(requests, outputs, strict=True):
            if is_held:
                self.put(request.request_id, stage, output)
            self._free(request, stage)

    def release(self, request_id: str) -> None:
        """Free all of a request's outputs."""
        self._held.pop(request_id, None)

    def clear(self) -> None:
        self._held.clear()

    def _free(self, request: RenderRequest, stage: str) -> None:
        position = self._recipe.position(stage)
        wanted = self._recipe.of(request)
        later = [self._recipe[name] for name in wanted if self._recipe.position(name) > position]
        if later and later[0].runs_on == "host":
            return
        read = {name for spec in later for name in self._recipe.reads(spec.name, wanted)}
        held = self._held.get(request.request_id, {})
        self._held[request.request_id] = {name: output for name, output in held.items() if name in read}


class SavedOutputs(Protocol):
    """Stage outputs on disk, for reading."""

    def made(self, request: RenderRequest) -> frozenset[str]:
        """The stages whose saved outputs were made with the request's settings."""
        ...

    def load(self, request: RenderRequest, stage: str) -> StageOutput | None:
        """The output of a stage that `made` found; None if it has disappeared since or is damaged."""
        ...


class MadeOutputs:
    """Tracks which outputs of open requests the executor holds, and which it can be given from disk.

    saved: None if nothing is kept on disk.
    """

    def __init__(self, recipe: Recipe, executor: Executor, saved: SavedOutputs | None) -> None:
        self._recipe, self._executor, self._saved = recipe, executor, saved
        self._held: dict[str, set[str]] = {}
        self._on_disk: dict[str, set[str]] = {}

    def todo_from_disk(self, request: RenderRequest) -> tuple[str, ...]:
        """The stages that a request has left when the executor holds none of its outputs. Outputs on disk are loaded
        when a stage that reads them starts."""
        name, wanted = request.request_id, self._recipe.of(request)
        made = frozenset[str]() if self._saved is None else self._saved.made(request)
        todo = self._recipe.needed(wanted, made)
        read = {source for stage in todo for source in self._recipe[stage].inputs}
        self._held.pop(name, None)
        self._on_disk[name] = {stage for stage in made if stage in read and stage in wanted}
        return todo

    def todo(self, request: RenderRequest, from_disk: bool) -> tuple[str, ...]:
        """The stages that a request has left. from_disk: the executor's outputs of it are lost, so only those on disk
        count."""
        if from_disk:
            self._executor.release(request.request_id)
            return self.todo_from_disk(request)
        made = self._held.get(request.request_id, set()) | self._on_disk.get(request.request_id, set())
        return self._recipe.needed(self._recipe.of(request), made)

    def ended(self, assignment: Assignment) -> None:
        """Record that the executor holds the stage's outputs, so that it need not run again.

        Frames, which host stages take, stay with their worker; so whichever host stage fails, the clip goes back to
        its last device stage.
        """
        if self._recipe[assignment.stage].runs_on == "device" and self._recipe.hands_on(assignment.stage):
            for name in assignment.request_ids:
                self._held.setdefault(name, set()).add(assignment.stage)

    def restore(self, request: RenderRequest, stage: str) -> bool:
        """Load the stage's inputs from disk into the executor. False if one of them no longer exists."""
        on_disk = self._on_disk.get(request.request_id, set())
        for source in on_disk.intersection(self._recipe[stage].inputs):
            assert self._saved is not None
            output = self._saved.load(request, source)
            if output is None:
                return False
            on_disk.remove(source)
            self._held.setdefault(request.request_id, set()).add(source)
            self._executor.restore(request.request_id, source, output)
        return True

    def release(self, request_id: str) -> None:
        """Forget a request that has its terminal result."""
        self._executor.release(request_id)
        self._on_disk.pop(request_id, None)
        self._held.pop(request_id, None)
