"""Where each request goes on, by what is on disk of it: latents of an earlier run, or its prompt's embeddings.

Whatever a stage made is written down by the driver, beside its loop, and taken up as if it had just been made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ltx_dist.inputs.config import CacheConfig
from ltx_dist.pipeline.payloads import Conditioning, Latents, StageOutput
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.stages import STAGES, Stage
from ltx_dist.run.batch import PlacedBatch
from ltx_dist.store.background_writer import BackgroundWriter
from ltx_dist.store.embedding_cache import EmbeddingCache
from ltx_dist.store.files import INTERNAL
from ltx_dist.store.output import Output
from ltx_dist.store.spool import Spool
from ltx_dist.store.spool_folder import spool_folder
from ltx_dist.user_cache import user_cache


class Resumption:
    """The latest output known of each request, and the keeping of those that are made now.

    Latents are kept until their clip is published, or with keep_latents for good, so that clips can be decoded again
    with other settings. Embeddings are shared by all batches; embeddings None: there is no cache for them.
    """

    def __init__(
        self,
        spool: Spool,
        latents_key: Callable[[RenderRequest], str],
        keep_latents: bool = False,
        embeddings: EmbeddingCache | None = None,
        embedding_keys: Callable[[RenderRequest], tuple[str, ...]] | None = None,
    ) -> None:
        self._spool, self._latents_key, self._keep_latents = spool, latents_key, keep_latents
        self._embeddings, self._embedding_keys = embeddings, embedding_keys
        self._spool_writer = BackgroundWriter("spool")
        # Of its own, so that a burst of prompts takes no latents' place in the queue.
        self._cache_writer = BackgroundWriter("embeddings")

    def first_stage(self, request: RenderRequest) -> Stage:
        """The stage a request goes on with: the one after the last whose output is there, made with its settings."""
        if self._spool.holds(request.request_id, self._latents_key(request)):
            return Stage.DECODE
        if self._embeddings is not None and self._embeddings.holds(self._keys(request)):
            return Stage.DENOISE
        return STAGES[0]

    def needed_stages(self, requests: Sequence[RenderRequest]) -> tuple[Stage, ...]:
        """The stages that any of these still has to run."""
        first = min((STAGES.index(self.first_stage(request)) for request in requests), default=0)
        return STAGES[first:]

    def load(self, request: RenderRequest, stage: Stage) -> StageOutput | None:
        """What `stage` takes, as `first_stage` found it; None if it has gone since or turns out to be damaged.

        `first_stage` then does not find it any more.
        """
        if stage is Stage.DENOISE:
            assert self._embeddings is not None
            return self._embeddings.load(self._keys(request))
        return self._spool.load(request.request_id, self._latents_key(request))

    def keep(self, request: RenderRequest, stage: Stage, fetch: Callable[[], StageOutput]) -> None:
        """Write down what a request's stage just made, if it is of any use later, without waiting for it."""
        if stage is Stage.DENOISE:
            key = self._latents_key(request)
            self._spool_writer.keep(fetch, lambda output: self._spool.keep(request, key, _latents(output)))
        elif stage is Stage.ENCODE_TEXT and (cache := self._embeddings) is not None:
            keys = self._keys(request)
            if not cache.holds(keys):
                self._cache_writer.keep(fetch, lambda output: cache.keep(keys, _conditioning(output)))

    def forget(self, request: RenderRequest) -> None:
        """The clip is published: nothing of it needs to be resumed."""
        if not self._keep_latents:
            self._spool_writer.do(lambda: self._spool.drop(request.request_id))

    def close(self) -> list[str]:
        """Wait for the disk; what could not be kept, in words. Raises OutputError when the spool cannot be written."""
        self._cache_writer.close()
        self._spool_writer.close()
        notes = []
        if refused := self._spool.num_refused:
            notes.append(f"latents of {refused} clip{'s' * (refused > 1)} had no room in recovery.spool_gb")
        if self._embeddings is not None and (problem := self._embeddings.problem):
            notes.append(f"text embeddings could not be kept for later ({problem}); see cache.embeddings")
        return notes

    def _keys(self, request: RenderRequest) -> tuple[str, ...]:
        assert self._embedding_keys is not None
        return self._embedding_keys(request)


def open_resumption(placed: PlacedBatch, out: Output, remaining: Sequence[RenderRequest]) -> Resumption:
    """For the requests of a batch that have no clip in the output yet. May raise OSError."""
    config = placed.batch.config
    kept = placed.batch.requests if config.recovery.keep_latents else remaining
    limit = int(config.recovery.spool_gb * 1e9)
    names = {request.request_id for request in kept}
    spool = Spool(spool_folder(out.folder), out.folder / INTERNAL / "tmp", limit, names, out.held)
    return Resumption(
        spool, placed.latents_key, config.recovery.keep_latents, _embedding_cache(config.cache), placed.embedding_keys
    )


def _embedding_cache(config: CacheConfig) -> EmbeddingCache | None:
    if config.embeddings is None:
        return None
    folder = user_cache() / "embeddings" if config.embeddings == "auto" else Path(config.embeddings).expanduser()
    return EmbeddingCache(folder, int(config.embeddings_gb * 1e9))


def _latents(output: StageOutput) -> Latents:
    assert isinstance(output, Latents), output
    return output


def _conditioning(output: StageOutput) -> Conditioning:
    assert isinstance(output, Conditioning), output
    return output
