"""What a clip is made of, as one digest: equal keys mean equal pixels and equal mp4 bytes, so a clip can be reused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from typing import cast

from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import PLAIN, UNTILED, DecodeTiling, Mp4Settings, Storage

KEY_VERSION = 2
"""Raise it when a change of this package gives other pixels or other mp4 bytes for the same settings."""


def render_key(
    request: RenderRequest,
    checkpoint_digest: Mapping[str, str],
    pipeline_class: str,
    precision: str,
    output: Mp4Settings,
    storage: Storage = PLAIN,
    tiling: DecodeTiling = UNTILED,
    batch_size: int = 1,
) -> str:
    """sha256 hex of everything that decides the clip and of nothing else: not its name, layout, workers or order.

    precision: the dtype of the weights as resolved, never `auto`; the tiling as well. batch_size: how many clips may
    share a pass. Above 1 it depends on the run which do, so equal keys then mean clips that are equal but for low bits.
    Libraries and devices, whose low bits differ, are the caller's to record beside the key.
    """
    (key,) = render_keys(request, checkpoint_digest, pipeline_class, precision, output, storage, [tiling], batch_size)
    return key


def render_keys(
    request: RenderRequest,
    checkpoint_digest: Mapping[str, str],
    pipeline_class: str,
    precision: str,
    output: Mp4Settings,
    storage: Storage,
    tilings: Iterable[DecodeTiling],
    batch_size: int,
) -> Iterator[str]:
    """`render_key` for one tiling after the other, of which there may be hundreds: the rest is written down once."""
    document = {
        "key_version": KEY_VERSION,
        "request": _settings(request),
        "checkpoint": _used(checkpoint_digest, request),
        "pipeline_class": pipeline_class,
        "precision": precision,
        "output": _output(output, request),
    } | _unless_default(storage, batch_size=batch_size)
    plain, gap = _canonical(document), _canonical({"tiling": None})[1:-1]
    before, _, after = _canonical(document | {"tiling": None}).rpartition(gap)
    for tiling in tilings:
        cut = before + _canonical({"tiling": asdict(tiling)})[1:-1] + after
        yield hashlib.sha256((plain if tiling == UNTILED else cut).encode("ascii")).hexdigest()


def _output(output: Mp4Settings, request: RenderRequest) -> dict[str, object]:
    """How sound is stored is a setting of clips that have some."""
    of_sound = () if request.sound is not None else ("audio", "pad_audio")
    return {name: value for name, value in asdict(output).items() if name not in of_sound}


DECODE_FIELDS = frozenset({"decode_timestep", "decode_noise_scale"})
"""The settings that do not decide the latents: these outlive a change of them."""


def latents_key(
    request: RenderRequest,
    checkpoint_digest: Mapping[str, str],
    pipeline_class: str,
    precision: str,
    storage: Storage = PLAIN,
    batch_size: int = 1,
) -> str:
    """sha256 hex of everything that decides the latents and of nothing else: not how they are decoded."""
    document = {
        "key_version": KEY_VERSION,
        "request": {name: value for name, value in _settings(request).items() if name not in DECODE_FIELDS},
        "checkpoint": _used(checkpoint_digest, request),
        "pipeline_class": pipeline_class,
        "precision": precision,
    } | _unless_default(storage if _uses_vae(request) else replace(storage, vae="same"), batch_size)
    return _sha256(document)


def _uses_vae(request: RenderRequest) -> bool:
    """Whether the latents depend on the VAE's precision: on its encoder, or on its statistics between two passes."""
    return request.has_media or request.second_pass is not None


def _used(checkpoint_digest: Mapping[str, str], request: RenderRequest) -> dict[str, str]:
    """An upscaler is no part of a clip of one pass."""
    without = () if request.second_pass is not None else ("latent_upsampler",)
    return {part: digest for part, digest in checkpoint_digest.items() if part not in without}


def _unless_default(storage: Storage = PLAIN, batch_size: int = 1) -> dict[str, object]:
    """Nothing for what clips were made with before these settings existed, so that they keep their keys."""
    document: dict[str, object] = {} if storage.vae == "same" else {"vae_precision": storage.vae}
    bits = {"transformer": storage.transformer, "text_encoder": storage.text_encoder}
    if bits != {"transformer": PLAIN.transformer, "text_encoder": PLAIN.text_encoder}:
        document |= {"storage": bits}
    return document if batch_size == 1 else document | {"batch_size": batch_size}


def embedding_keys(
    request: RenderRequest,
    checkpoint_digest: Mapping[str, str],
    pipeline_class: str,
    precision: str,
    quantization: str,
    device: str,
    versions: Mapping[str, str],
    batch_size: int = 1,
) -> tuple[str, ...]:
    """For the prompt and, with guidance, the negative prompt: sha256 hex of all that decides its text embeddings.

    pipeline_class: it tells whether T5 gets the attention mask. precision, quantization: of the text encoder's weights.
    device: the model of the one that encodes, and versions: of the libraries that do; both change the low bits, and a
    rendered clip must not tell whether its prompt was in a cache.
    """
    texts = [request.prompt, *([request.negative_prompt] if request.do_classifier_free_guidance else [])]
    around = {
        "key_version": KEY_VERSION,
        "max_sequence_length": request.max_sequence_length,
        "checkpoint": {part: checkpoint_digest[part] for part in ("text_encoder", "tokenizer")},
        "pipeline_class": pipeline_class,
        "precision": precision,
        "quantization": quantization,
        "device": device,
        "versions": dict(versions),
    } | _unless_default(batch_size=batch_size)
    return tuple(_sha256({**around, "text": text}) for text in texts)


def _sha256(document: dict[str, object]) -> str:
    return hashlib.sha256(_canonical(document).encode("ascii")).hexdigest()


def _canonical(document: Mapping[str, object]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _settings(request: RenderRequest) -> dict[str, object]:
    """The request without its name; 25 and 25.0 frames a second are one setting.

    A field with its default is no setting: requests had none of those once, and clips rendered then keep their keys.
    Where media and LoRAs lie does not matter; their digests do.
    """
    return {
        field.name: _plain(getattr(request, field.name), str(field.type))
        for field in fields(request)
        if field.name != "request_id" and getattr(request, field.name) != field.default
    }


def _plain(value: object, declared: str) -> object:
    """As JSON has it: dataclasses without their `place`; numbers as floats where floats are declared."""
    if is_dataclass(value) and not isinstance(value, type):
        named = [field for field in fields(value) if field.name != "place"]
        return {field.name: _plain(getattr(value, field.name), str(field.type)) for field in named}
    if isinstance(value, tuple):
        items = cast("tuple[object, ...]", value)
        return [_plain(item, declared.removeprefix("tuple[")) for item in items]
    return float(value) if declared.startswith("float") and isinstance(value, int) else value
