"""A batch with its placement: workers, precision, digests, and its part in keys and sidecars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from typing import Any

from ltx_dist.checkpoints.digests import checkpoint_digest
from ltx_dist.inputs.config import OF_THE_FOLDER, RenderConfig
from ltx_dist.inputs.cut_off import cut_off
from ltx_dist.pipeline.keys import BatchKeys, digest_of
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import DecodeTiling, Storage
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.placement.inventory import Inventory
from ltx_dist.placement.tilings import TileLength, candidate_tilings
from ltx_dist.planning.simulator import Todo
from ltx_dist.run.batch import Batch
from ltx_dist.user_cache import from_home


@dataclass(frozen=True, slots=True)
class PlacedBatch:
    """A batch on the devices that were found.

    digest: the checkpoint's, by component. keys: of each request's stages. made_on: for each device stage, the models
    and threads of the devices that run it if all stages are placed.
    """

    batch: Batch
    inventory: Inventory
    placement: Placement
    precision: str
    digest: dict[str, str]
    keys: BatchKeys
    made_on: Mapping[str, str]

    @property
    def storage(self) -> Storage:
        return self.batch.storage(self.precision)

    def hosting(self, todo: Todo) -> PlacedBatch:
        """The same batch with workers for only these stages of its requests, if such a placement fits.

        In the pinned layout a device may then get another stage, which may not fit on unequal devices. Another layout
        may be the fastest, but if its tiles differ, which would change the pixels, this placement stays.
        """
        try:
            placement = self.batch.placement(self.inventory, todo)
        except ValueError:
            return self
        return replace(self, placement=placement) if placement.tiling == self.placement.tiling else self

    def checkpoint_record(self) -> dict[str, Any]:
        """The checkpoint for sidecars and `run.json`: its name, with the commit if it is on the hub."""
        checkpoint = self.batch.checkpoint
        record: dict[str, Any] = {"name": checkpoint.name, "sha256": self.digest}
        others = {"text_encoder": checkpoint.text_encoder, "upscaler": checkpoint.upscaler}
        return record | {name: where for name, where in others.items() if where is not None}

    def resolved_model(self) -> dict[str, str | None]:
        """The values of `model` that select this very model again, from any working directory."""
        checkpoint = self.batch.checkpoint
        return {
            "checkpoint": _from_anywhere(checkpoint.name),
            "text_encoder": None if checkpoint.text_encoder is None else _from_anywhere(checkpoint.text_encoder),
            "upscaler": None if checkpoint.upscaler is None else _from_anywhere(checkpoint.upscaler),
            "version": self.batch.preset.version,
            "precision": self.precision,
        }

    def sidecar_notes(self) -> dict[str, dict[str, Any]]:
        """What each clip's sidecar holds besides its request, by name: settings to repeat it, its row's meta, and texts
        that were cut off."""
        settings, requests = self.settings_to_repeat(), self.batch.requests
        of_rows = self.batch.notes
        notes: dict[str, dict[str, Any]] = {
            name: {"settings": settings, **of_rows.get(name, {})} for name in (one.request_id for one in requests)
        }
        for name, texts in cut_off(requests, self.batch.checkpoint).items():
            notes[name]["cut_off"] = {text.field: {"tokens": text.tokens, "limit": text.limit} for text in texts}
        return notes

    def settings_to_repeat(self) -> dict[str, Any]:
        """The config values that are needed to render clips of this run again, besides their requests, by dotted key.

        `auto` is resolved if pixels depend on it; other settings at their defaults are left out.
        """
        config, defaults = self.batch.config.model_dump(mode="json"), RenderConfig().model_dump(mode="json")
        settings = {
            f"{section}.{key}": value
            for section in ("model", "denoise", "output")
            for key, value in config[section].items()
            if value != defaults[section][key] and not (section == "output" and key in OF_THE_FOLDER)
        }
        tiling = self.placement.tiling
        settings |= {f"model.{key}": value for key, value in self.resolved_model().items() if value is not None}
        settings |= {"decode.tile_size": tiling.tile_size or "off", "decode.tile_frames": tiling.tile_frames or "off"}
        return settings | (
            {} if (threads := self.batch.config.placement.threads) is None else {"placement.threads": threads}
        )

    def key_to_keep(self, request: RenderRequest, found: str | None) -> str:
        """The key that a published clip must have to be kept. found: the key recorded with the clip, if any.

        With `auto`, tiles depend on the whole batch and the devices. A clip that was made in other tiles, on another
        machine or before a larger clip was added, is as good, so its own key is returned.
        """
        planned, batch = self.keys.render_key(request), self.batch
        if found is None or found == planned:
            return planned
        ratios = batch.checkpoint.spatial_compression_ratio, batch.checkpoint.temporal_compression_ratio
        shape = replace(request, request_id="", prompt="", negative_prompt="", seed=0)
        tilings = _tilings_of(shape, batch.config.decode.tile_size, batch.config.decode.tile_frames, ratios)
        return found if found in self.keys.in_tilings(request, tilings) else planned

    def cache_keys(self, request: RenderRequest) -> dict[str, str]:
        """The keys of outputs in the shared cache, by stage.

        They include devices and libraries, which change the low bits: a clip must not depend on whether its prompt was
        in the cache.
        """
        keys, versions = self.keys.of(request), _library_versions()
        return {
            stage: digest_of({"key": keys[stage], "made_on": self.made_on[stage], "versions": versions})
            for stage in keys
            if self.batch.family.recipe[stage].keeps == "cache"
        }


def place_batch(batch: Batch, inventory: Inventory) -> PlacedBatch:
    """The batch with its best placement. Reads the whole checkpoint once for its digests, unless they are cached.
    Raises ValueError as `Batch.placement` does."""
    placement, precision = batch.placement(inventory), batch.precision(inventory)
    digest = checkpoint_digest(batch.checkpoint)
    keys = BatchKeys(batch.making(digest, precision), placement.tiling)
    made_on = {
        stage: "+".join(sorted({_device(worker) for worker in placement.workers if stage in worker.stages}))
        for stage in placement.recipe.on_device
    }
    return PlacedBatch(batch.warned_of(inventory), inventory, placement, precision, digest, keys, made_on)


def _device(worker: Worker) -> str:
    """The properties of a worker that change the low bits of its outputs."""
    return worker.device_name if worker.device != "cpu" else f"{worker.device_name}, {worker.threads} threads"


@cache
def _tilings_of(
    shape: RenderRequest, tile_size: TileLength, tile_frames: TileLength, ratios: tuple[int, int]
) -> tuple[DecodeTiling, ...]:
    """All tilings that may be chosen for a shape. Cached, because there are hundreds, the same for all its clips."""
    return tuple(candidate_tilings(tile_size, tile_frames, (shape,), ratios))


def _from_anywhere(name: str) -> str:
    """`demo` and names on the hub are the same in every folder; a path is not."""
    path = from_home(name, "model")
    return str(path.resolve()) if name != "demo" and path.exists() else name


@cache
def _library_versions() -> dict[str, str]:
    """Versions of the libraries that compute the stages' outputs, read from metadata without importing them."""
    return {name: version(name) for name in ("torch", "transformers", "diffusers")}
