"""The key of a stage's output, as one digest: equal keys mean equal outputs, so an output can be reused.

    key(stage) = sha256(operation, settings, weights and files that it reads, how they are stored, keys of its inputs)

The key of a clip is that of its last stage. What cannot change an output is in no key: names, layout, workers, order,
recovery. Keys are computed in the driver alone and sent along with the work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import cast

from ltx_dist.pipeline.recipe import Recipe, StageSpec
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import PLAIN, UNTILED, DecodeTiling, Mp4Settings, Storage

KEY_VERSION = 3
"""Raise it when a change of this package gives other pixels or other mp4 bytes for the same settings."""

NO_KEYS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Making:
    """What all requests of a batch are made with, besides their own settings.

    part_of: by component, the part of the checkpoint that holds its weights, if its name differs. digest: by part of
    the checkpoint, its sha256. ratios: pixels and frames per latent. precision: the dtype of the weights as resolved,
    never `auto`. batch_size: how many clips may share a pass; above 1, which clips do depends on the run, so equal keys
    then mean outputs that are equal except for low bits. Libraries and devices also affect low bits; the caller records
    them beside the key.
    """

    recipe: Recipe
    digest: Mapping[str, str]
    pipeline_class: str
    ratios: tuple[int, int]
    precision: str
    storage: Storage = PLAIN
    mp4: Mp4Settings = field(default_factory=Mp4Settings)
    batch_size: int = 1
    part_of: Mapping[str, str] = field(default_factory=dict[str, str])


def stage_keys(
    making: Making, request: RenderRequest, tiling: DecodeTiling = UNTILED, known: Mapping[str, str] = NO_KEYS
) -> dict[str, str]:
    """The key of each stage that the request runs, in order: sha256 hex.

    tiling: the pieces in which this clip is decoded, as resolved. known: keys that need not be computed.
    """
    keys: dict[str, str] = {}
    wanted = making.recipe.of(request)
    for name in wanted:
        if name in known:
            keys[name] = known[name]
            continue
        stage = making.recipe[name]
        document = _making(making, stage, request, tiling) | {
            "settings": _settings(stage, request),
            "inputs": {given: keys[given] for given in making.recipe.reads(name, wanted)},
        }
        keys[name] = digest_of(document)
    return keys


def render_key(keys: Mapping[str, str]) -> str:
    """The key of the clip: that of its last stage."""
    *_, last = keys.values()
    return last


class BatchKeys:
    """The keys of a batch's requests, each computed once.

    tiling: the pieces in which clips are decoded; a clip no larger than a piece is not cut.
    """

    def __init__(self, making: Making, tiling: DecodeTiling) -> None:
        self._making, self._tiling = making, tiling
        self._keys: dict[str, Mapping[str, str]] = {}

    def of(self, request: RenderRequest) -> Mapping[str, str]:
        """The request's keys by stage, in order; cached by `request_id`, which is unique in a batch."""
        keys = self._keys.get(request.request_id)
        if keys is None:
            keys = self._keys[request.request_id] = stage_keys(self._making, request, self._cut(request, self._tiling))
        return keys

    def render_key(self, request: RenderRequest) -> str:
        return render_key(self.of(request))

    def in_tilings(self, request: RenderRequest, tilings: Iterable[DecodeTiling]) -> Iterator[str]:
        """The clip's key in each of these tilings, lazily, because there may be hundreds."""
        recipe = self._making.recipe
        first = min(recipe.position(stage.name) for stage in recipe if "tiling" in stage.run_settings)
        known = {name: key for name, key in self.of(request).items() if recipe.position(name) < first}
        for tiling in tilings:
            yield render_key(stage_keys(self._making, request, self._cut(request, tiling), known))

    def _cut(self, request: RenderRequest, tiling: DecodeTiling) -> DecodeTiling:
        _, frames = self._making.ratios
        return tiling.of(*request.decoded_size, request.num_frames, frames)


def digest_of(document: Mapping[str, object]) -> str:
    """sha256 hex of a JSON value, whatever the order of its keys."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _making(making: Making, stage: StageSpec, request: RenderRequest, tiling: DecodeTiling) -> dict[str, object]:
    """Everything that decides the stage's output, except the request's settings and the outputs of earlier stages.

    Neutral defaults are left out, so that keys stay valid when a setting is added.
    """
    parts = {*(making.part_of.get(name, name) for name in stage.components), *stage.files}
    document: dict[str, object] = {
        "key_version": KEY_VERSION,
        "operation": stage.operation,
        "pipeline_class": making.pipeline_class,
        "ratios": making.ratios,
        "precision": making.precision,
        "digests": {part: making.digest[part] for part in parts if part in making.digest},
    }
    storage = {name: how for name, how in _changed(making.storage).items() if name in parts}
    document |= {"storage": storage} if storage else {}
    if stage.shares_with(request) and making.batch_size > 1:
        document["batch_size"] = making.batch_size
    if "tiling" in stage.run_settings and tiling != UNTILED:
        document["tiling"] = asdict(tiling)
    if "mp4" in stage.run_settings:
        document["mp4"] = _mp4(making.mp4, request)
    return document


def _mp4(mp4: Mp4Settings, request: RenderRequest) -> dict[str, object]:
    """The mp4 settings, without those of sound for a silent clip, and without `also` if it asks for no file."""
    settings: dict[str, object] = {one.name: getattr(mp4, one.name) for one in fields(mp4)}
    if request.sound is None:
        del settings["audio"], settings["pad_audio"]
    if not mp4.also:
        del settings["also"]
    return settings


def _changed(storage: Storage) -> dict[str, str]:
    named = {one.name: getattr(storage, one.name) for one in fields(storage)}
    return {name: how for name, how in named.items() if how != getattr(PLAIN, name)}


def _settings(stage: StageSpec, request: RenderRequest) -> dict[str, object]:
    """The request's settings that the stage reads; 25 and 25.0 frames per second are equal.

    A field at its default is left out, so that clips rendered before the field existed keep their keys.
    """
    found: dict[str, object] = {}
    for name in stage.settings:
        value = getattr(request, name)
        declared = FIELDS.get(name)
        if declared is None or value != declared[1]:
            found[name] = _plain(value, "" if declared is None else declared[0])
    return found


FIELDS = {one.name: (str(one.type), one.default) for one in fields(RenderRequest)}
"""Declared type and default of each field of a request; its properties have neither."""


def _plain(value: object, declared: str) -> object:
    """The value as JSON: dataclasses without their `place`, because where media and LoRAs lie does not matter; numbers
    as floats where floats are declared."""
    if is_dataclass(value) and not isinstance(value, type):
        named = [one for one in fields(value) if one.name != "place"]
        return {one.name: _plain(getattr(value, one.name), str(one.type)) for one in named}
    if isinstance(value, tuple):
        items = cast("tuple[object, ...]", value)
        return [_plain(item, declared.removeprefix("tuple[")) for item in items]
    return float(value) if declared.startswith("float") and isinstance(value, int) else value
