"""The workers of a run: those it starts with, and one for each GPU that joins the cluster later."""

from __future__ import annotations

from collections.abc import Callable

from ltx_dist.pipeline.worker import Worker
from ltx_dist.placement.inventory import DeviceInfo
from ltx_dist.placement.placement import with_changed, with_device
from ltx_dist.run.placed_batch import PlacedBatch
from ltx_dist.worker.spec import WorkerSpec


class Crew:
    """The workers of a run. placement: has every worker so far, including lost ones."""

    def __init__(self, placed: PlacedBatch, note: Callable[[str], None] = lambda line: None) -> None:
        """note: takes a warning about a GPU that joined and cannot be used, once per model of GPU."""
        self._placed, self._note = placed, note
        self._unsuitable: set[str] = set()
        self._wishes = placed.batch.wishes
        self._demand = placed.batch.demand(placed.precision)
        self.placement = placed.placement

    @property
    def known_nodes(self) -> frozenset[str]:
        """The Ray nodes in the placement, and those whose GPUs have been added since."""
        return self._placed.inventory.node_ids

    def specs(self) -> list[WorkerSpec]:
        return [self._spec(worker) for worker in self.placement.workers]

    def hire(self, gpu: DeviceInfo, num_workers: int) -> WorkerSpec | None:
        """A worker for a GPU that joined; None if the run already has `num_workers`, or if it does not fit."""
        limit = 1 if self._wishes.layout == "shared" else self._wishes.devices
        on_gpus = any(worker.num_gpus for worker in self.placement.workers)
        if not on_gpus or (limit is not None and num_workers >= limit):
            return None
        try:
            self.placement = with_device(self.placement, gpu, len(self.placement.workers), self._wishes, self._demand)
        except ValueError as error:  # smaller or older than every GPU that the run was placed on
            if gpu.name not in self._unsuitable:
                self._unsuitable.add(gpu.name)
                self._note(f"warning: a GPU that joined is not used: {gpu.name}: {error}")
            return None
        return self._spec(self.placement.workers[-1])

    def change(self, worker: Worker) -> None:
        """Record that a worker holds its weights in another way than planned."""
        self.placement = with_changed(self.placement, worker, self._wishes)

    def _spec(self, worker: Worker) -> WorkerSpec:
        batch = self._placed.batch
        return WorkerSpec(
            worker,
            batch.checkpoint,
            self._placed.precision,
            batch.mp4_settings,
            self._placed.storage,
            batch.config.recovery.exact,
            batch.family,
        )
