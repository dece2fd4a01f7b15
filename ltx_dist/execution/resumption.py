"""What a run leaves for the next one: stage outputs on disk, and where each request goes on."""

from __future__ import annotations

from collections.abc import Callable

from ltx_dist.output.spool import Spool, SpoolWriter
from ltx_dist.types import RenderRequest, Stage, StageOutput

StageKey = Callable[[Stage, RenderRequest], str]


class Resumption:
    """Finds a request's last finished stage, and keeps the outputs of this run's stages until its clip is published.

    keep_latents: leave the latents there for good, so that clips can be decoded again with other settings.
    """

    def __init__(self, spool: Spool, stage_key: StageKey, keep_latents: bool = False) -> None:
        self._spool = spool
        self._writer = SpoolWriter(spool)
        self._stage_key = stage_key
        self._keep_latents = keep_latents

    def finished_stage(self, request: RenderRequest) -> Stage | None:
        """The last stage whose output is there, made with exactly these settings."""
        for stage in (Stage.DENOISE, Stage.ENCODE_TEXT):
            if self._spool.holds(request.request_id, stage, self._stage_key(stage, request)):
                return stage
        return None

    def load(self, request: RenderRequest, stage: Stage) -> StageOutput:
        return self._spool.load(request.request_id, stage)

    def keep(self, request: RenderRequest, stage: Stage, fetch: Callable[[], StageOutput]) -> None:
        """Write the output of a stage that just ended, without waiting for it."""
        self._writer.keep(request.request_id, stage, self._stage_key(stage, request), fetch)

    def forget(self, request: RenderRequest) -> None:
        """The clip is published: nothing of it needs to be resumed."""
        if not self._keep_latents:
            self._writer.drop(request.request_id)

    def close(self) -> None:
        """Wait for the disk. Raises OutputError when an output could not be written."""
        self._writer.close()
