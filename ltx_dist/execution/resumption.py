"""What a run leaves for the next one: latents on disk, and where each request goes on."""

from __future__ import annotations

from collections.abc import Callable

from ltx_dist.output.spool import Spool, SpoolWriter
from ltx_dist.types import Latents, RenderRequest, StageOutput


class Resumption:
    """Finds requests that are denoised already, and keeps the latents of this run until their clip is published.

    keep_latents: leave them there for good, so that clips can be decoded again with other settings. Embeddings are not
    kept: a rerun encodes again the few prompts that were encoded and not yet denoised.
    """

    def __init__(self, spool: Spool, latents_key: Callable[[RenderRequest], str], keep_latents: bool = False) -> None:
        self._spool = spool
        self._writer = SpoolWriter(spool)
        self._latents_key = latents_key
        self._keep_latents = keep_latents

    def is_denoised(self, request: RenderRequest) -> bool:
        """Whether latents made with exactly these settings are there."""
        return self._spool.holds(request.request_id, self._latents_key(request))

    def load(self, request: RenderRequest) -> Latents:
        return self._spool.load(request.request_id)

    def keep(self, request: RenderRequest, fetch: Callable[[], StageOutput]) -> None:
        """Write the latents of a request that was just denoised, without waiting for it."""
        self._writer.keep(request.request_id, self._latents_key(request), fetch)

    def forget(self, request: RenderRequest) -> None:
        """The clip is published: nothing of it needs to be resumed."""
        if not self._keep_latents:
            self._writer.drop(request.request_id)

    def close(self) -> int:
        """Wait for the disk; how many latents had no room. Raises OutputError when some could not be written."""
        self._writer.close()
        return self._spool.num_refused
