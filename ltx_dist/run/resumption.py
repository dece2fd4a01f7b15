"""Outputs of stages that are kept on disk: the driver saves them in the background, and a rerun resumes from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ltx_dist.inputs.config import CacheConfig
from ltx_dist.messages import count
from ltx_dist.pipeline.payloads import Conditioning, Latents, StageOutput
from ltx_dist.pipeline.recipe import Recipe, StageSpec
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.run.batch import PlacedBatch
from ltx_dist.store.background_writer import BackgroundWriter
from ltx_dist.store.embedding_cache import EmbeddingCache
from ltx_dist.store.files import INTERNAL
from ltx_dist.store.output import Output
from ltx_dist.store.spool import Spool
from ltx_dist.store.spool_folder import spool_folder
from ltx_dist.user_cache import from_home, user_cache


class Resumption:
    """The latest output known of each request, and the keeping of those that are made now.

    Latents are kept until their clip is published, or with keep_latents for good, so that clips can be decoded again
    with other settings. Embeddings are shared by all batches; embeddings None: there is no cache for them.
    """

    def __init__(
        self,
        recipe: Recipe,
        spool: Spool,
        latents_key: Callable[[RenderRequest], str],
        keep_latents: bool = False,
        embeddings: EmbeddingCache | None = None,
        embedding_keys: Callable[[RenderRequest], tuple[str, ...]] | None = None,
    ) -> None:
        self._recipe = recipe
        self._spool, self._latents_key, self._keep_latents = spool, latents_key, keep_latents
        self._embeddings, self._embedding_keys = embeddings, embedding_keys
        self._spool_writer = BackgroundWriter("spool")
        # Of its own, so that a burst of prompts takes no latents' place in the queue.
        self._cache_writer = BackgroundWriter("embeddings")

    def made(self, request: RenderRequest) -> frozenset[str]:
        """The stages whose outputs are there, made with the request's settings."""
        wanted = self._recipe.of(request)
        made = {
            name
            for name in self._kept("spool")
            if name in wanted and self._spool.holds(request.request_id, self._spool_key(request, name))
        }
        cached = self._kept("cache")
        if cached and self._embeddings is not None and self._embeddings.holds(self._keys(request)):
            made.update(cached)
        return frozenset(made)

    def todo(self, requests: Sequence[RenderRequest]) -> dict[str, tuple[str, ...]]:
        """The stages that each of these still has to run."""
        return {r.request_id: self._recipe.needed(self._recipe.of(r), self.made(r)) for r in requests}

    def load(self, request: RenderRequest, stage: str) -> StageOutput | None:
        """The output of a stage, as `made` found it; None if it has gone since or turns out to be damaged.

        `made` then does not find it any more.
        """
        if self._recipe[stage].keeps == "cache":
            assert self._embeddings is not None
            return self._embeddings.load(self._keys(request))
        return self._spool.load(request.request_id, self._spool_key(request, stage))

    def keep(self, request: RenderRequest, stage: str, fetch: Callable[[], StageOutput]) -> None:
        """Write down what a request's stage just made, if it is of any use later, without waiting for it."""
        keeps = self._recipe[stage].keeps
        if keeps == "spool":
            key = self._spool_key(request, stage)
            self._spool_writer.keep(fetch, lambda output: self._spool.keep(request, key, _latents(output)))
        elif keeps == "cache" and (cache := self._embeddings) is not None:
            keys = self._keys(request)
            if not cache.holds(keys):
                self._cache_writer.keep(fetch, lambda output: cache.keep(keys, _conditioning(output)))

    def _spool_key(self, request: RenderRequest, stage: str) -> str:
        """One file per clip holds its latest latents; those that replace others have a key of their own."""
        return spool_key(self._latents_key(request), self._recipe[stage])

    def _kept(self, retention: str) -> list[str]:
        return [stage.name for stage in self._recipe if stage.keeps == retention]

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
            notes.append(f"latents of {count(refused, 'clip')} did not fit in recovery.spool_gb")
        if self._embeddings is not None and (problem := self._embeddings.problem):
            notes.append(f"text embeddings could not be kept for later ({problem}); see cache.embeddings")
        return notes

    def _keys(self, request: RenderRequest) -> tuple[str, ...]:
        assert self._embedding_keys is not None
        return self._embedding_keys(request)


def spool_key(latents_key: str, stage: StageSpec) -> str:
    """What the latents that a stage makes of a request are kept under."""
    return f"{latents_key} {stage.name}" if stage.replaces else latents_key


def open_resumption(placed: PlacedBatch, out: Output, remaining: Sequence[RenderRequest]) -> Resumption:
    """For the requests of a batch that have no clip in the output yet. May raise OSError."""
    config = placed.batch.config
    kept = placed.batch.requests if config.recovery.keep_latents else remaining
    limit = int(config.recovery.spool_gb * 1e9)
    names = {request.request_id for request in kept}
    spool = Spool(spool_folder(out.folder), out.folder / INTERNAL / "tmp", limit, names, out.held)
    return Resumption(
        placed.batch.family.recipe,
        spool,
        placed.latents_key,
        config.recovery.keep_latents,
        _embedding_cache(config.cache),
        placed.embedding_keys,
    )


def _embedding_cache(config: CacheConfig) -> EmbeddingCache | None:
    if config.embeddings is None:
        return None
    folder = (
        user_cache() / "embeddings" if config.embeddings == "auto" else from_home(config.embeddings, "cache.embeddings")
    )
    return EmbeddingCache(folder, int(config.embeddings_gb * 1e9))


def _latents(output: StageOutput) -> Latents:
    assert isinstance(output, Latents), output
    return output


def _conditioning(output: StageOutput) -> Conditioning:
    assert isinstance(output, Conditioning), output
    return output
