"""Saves stage outputs on disk in the background, and finds those that a rerun resumes from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial

from ltx_dist.inputs.config import CacheConfig
from ltx_dist.messages import count
from ltx_dist.pipeline.payloads import StageOutput
from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.run.placed_batch import PlacedBatch
from ltx_dist.store.artifact_folder import spool_folder
from ltx_dist.store.artifacts import ArtifactStore
from ltx_dist.store.background_writer import BackgroundWriter
from ltx_dist.store.files import INTERNAL
from ltx_dist.store.output import Output
from ltx_dist.user_cache import from_home, user_cache

KeysOf = Callable[[RenderRequest], Mapping[str, str]]
"""The keys of a request's stages, by stage."""


class Resumption:
    """Finds the saved outputs of each request, and saves new ones.

    Spool: for the stages that the recipe keeps there, each clip's latest output is saved under the clip's name until it
    is published, or, with keep_latents, permanently, so that it can be decoded again with other settings.
    Cache: for the stages that the recipe keeps there, every output is saved under its key, for all requests and later
    batches. cache: None for no cache.
    cache_keys: of the stages kept in the cache; unlike other keys they include the devices and libraries that made the
    outputs, so that no clip depends on whether its prompt was in a cache.
    """

    def __init__(
        self,
        recipe: Recipe,
        keys: KeysOf,
        spool: ArtifactStore,
        keep_latents: bool = False,
        cache: ArtifactStore | None = None,
        cache_keys: KeysOf | None = None,
    ) -> None:
        self._recipe, self._keys = recipe, keys
        self._spool, self._keep_latents = spool, keep_latents
        self._cache, self._cache_keys = cache, cache_keys or keys
        self._cache_problem: str | None = None
        self._spool_writer = BackgroundWriter("spool")
        # Two writers, so that a burst of prompts does not fill the queue of the latents.
        self._cache_writer = BackgroundWriter("cache")

    def made(self, request: RenderRequest) -> frozenset[str]:
        """The stages whose saved outputs were made with the request's settings."""
        return frozenset(name for name in self._recipe.of(request) if self._holds(request, name))

    def todo(self, requests: Sequence[RenderRequest]) -> dict[str, tuple[str, ...]]:
        """The stages that each of these still has to run."""
        return {r.request_id: self._recipe.needed(self._recipe.of(r), self.made(r)) for r in requests}

    def load(self, request: RenderRequest, stage: str) -> StageOutput | None:
        """The output of a stage that `made` found; None if it has disappeared since or is damaged, in which case `made`
        no longer finds it.
        """
        store, name, key = self._place(request, stage)
        return None if store is None else store.load(name, key)

    def keep(self, request: RenderRequest, stage: str, fetch: Callable[[], StageOutput]) -> None:
        """Save the output of a request's stage in the background, if it is of use later."""
        store, name, key = self._place(request, stage)
        if store is None:
            return
        if store is self._spool:
            told = {"request": json.dumps(asdict(request))}
            self._spool_writer.keep(fetch, lambda output: store.keep(name, key, output, told))
        elif self._cache_problem is None and not store.holds(name, key):
            self._cache_writer.keep(fetch, partial(self._keep_in_cache, store, name, key))

    def forget(self, request: RenderRequest) -> None:
        """Forget a published clip: it needs no saved outputs."""
        if not self._keep_latents:
            self._spool_writer.do(lambda: self._spool.drop(request.request_id))

    def close(self) -> list[str]:
        """Wait for the disk, and return lines about outputs that could not be kept. Raises OutputError if the spool
        cannot be written."""
        self._cache_writer.close()
        self._spool_writer.close()
        notes = []
        if refused := self._spool.num_refused:
            notes.append(f"latents of {count(refused, 'clip')} did not fit in recovery.spool_gb")
        if self._cache_problem is not None:
            notes.append(
                f"encoded prompts and images could not be kept for later ({self._cache_problem}); see cache.embeddings"
            )
        return notes

    def _holds(self, request: RenderRequest, stage: str) -> bool:
        store, name, key = self._place(request, stage)
        return store is not None and store.holds(name, key)

    def _place(self, request: RenderRequest, stage: str) -> tuple[ArtifactStore | None, str, str]:
        """The store, name and key of the stage's output. The store is None if the output is not kept."""
        match self._recipe[stage].keeps:
            case "spool":
                return self._spool, request.request_id, self._keys(request)[stage]
            case "cache":
                key = self._cache_keys(request)[stage]
                return self._cache, key, key
            case _:
                return None, "", ""

    def _keep_in_cache(self, cache: ArtifactStore, name: str, key: str, output: StageOutput) -> None:
        """Save an output in the cache. If that fails, stop writing to it; no clip fails because of this."""
        if self._cache_problem is None and not cache.holds(name, key):
            try:
                cache.keep(name, key, output)
            except OSError as error:
                self._cache_problem = f"{error.filename}: {error.strerror}" if error.filename else str(error)


def open_resumption(placed: PlacedBatch, out: Output, remaining: Sequence[RenderRequest]) -> Resumption:
    """A `Resumption` for the requests of a batch that have no clip in the output yet. May raise OSError."""
    config = placed.batch.config
    kept = placed.batch.requests if config.recovery.keep_latents else remaining
    limit = int(config.recovery.spool_gb * 1e9)
    names = {request.request_id for request in kept}
    spool = ArtifactStore(spool_folder(out.folder), out.folder / INTERNAL / "tmp", limit, names, out.held)
    return Resumption(
        placed.batch.family.recipe,
        placed.keys.of,
        spool,
        config.recovery.keep_latents,
        _cache(config.cache),
        placed.cache_keys,
    )


def _cache(config: CacheConfig) -> ArtifactStore | None:
    if config.embeddings is None:
        return None
    folder = (
        user_cache() / "embeddings" if config.embeddings == "auto" else from_home(config.embeddings, "cache.embeddings")
    )
    return ArtifactStore(folder, folder / "tmp", int(config.embeddings_gb * 1e9), is_shared=True)
