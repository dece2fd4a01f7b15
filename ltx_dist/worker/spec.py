"""WorkerSpec: all that a worker needs to start. Imports no torch, so that the driver can make it."""

from __future__ import annotations

from dataclasses import dataclass

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.models.family import Family, family_of
from ltx_dist.pipeline.storage import PLAIN, Mp4Settings, Storage
from ltx_dist.pipeline.worker import Worker


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """Everything that a worker needs to start on any machine: small and picklable.

    exact: whether a clip that runs out of memory fails rather than being made with other pixels.
    family_override: used instead of the checkpoint's own family.
    """

    worker: Worker
    checkpoint: Checkpoint
    precision: str
    output: Mp4Settings
    storage: Storage = PLAIN
    exact: bool = False
    family_override: Family | None = None

    @property
    def family(self) -> Family:
        return self.family_override or family_of(self.checkpoint)
