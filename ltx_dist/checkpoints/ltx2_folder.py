"""Opens a folder of LTX-2.0, 2.3 or 2.5 in diffusers layout by its JSON files and safetensors headers.

All versions use the same classes; flags in their configs distinguish them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.checkpoints.config_checks import read_checked_config, refuse_code
from ltx_dist.checkpoints.weight_files import attempt, measure_weights, read_header, weight_files
from ltx_dist.strict_files import read_json

PIPELINE_CLASSES = ("LTX2Pipeline", "LTX2ImageToVideoPipeline", "LTX2ConditionPipeline")

UPSAMPLER = "latent_upsampler"

COMPONENT_CLASSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "text_encoder": ("Gemma3ForConditionalGeneration", "Gemma4UnifiedForConditionalGeneration"),
        "connectors": ("LTX2TextConnectors",),
        "transformer": ("LTX2VideoTransformer3DModel",),
        "vae": ("AutoencoderKLLTX2Video",),
        "audio_vae": ("AutoencoderKLLTX2Audio",),
        "vocoder": ("LTX2Vocoder", "LTX2VocoderWithBWE"),
        "latent_upsampler": ("LTX2LatentUpsamplerModel",),
        "scheduler": ("FlowMatchEulerDiscreteScheduler",),
    }
)
"""The classes that are loaded, by component; no other ever is."""

OPTIONAL = (UPSAMPLER,)

GEMMA: Mapping[str, str] = MappingProxyType({"2.0": "gemma3", "2.3": "gemma3", "2.5": "gemma4_unified"})
"""`model_type` of each version's text encoder."""

AUDIO_DOWNSAMPLING = 4
"""Ratio of the sound's VAE in time and frequency: LATENT_DOWNSAMPLE_FACTOR in autoencoder_kl_ltx2_audio.py."""


def open_ltx2_folder(name: str, path: Path, text_encoder: Path | None) -> Checkpoint:
    """The checkpoint in the folder `path`. Raises ValueError with a line for each missing or unusable part."""
    if text_encoder is not None:
        raise ValueError(
            f"model.text_encoder: {text_encoder}: an LTX-2 checkpoint has its own Gemma in text_encoder/, which the "
            "connectors were trained with (that of 2.5 is no published Gemma); leave it out"
        )
    present = [part for part in COMPONENT_CLASSES if part not in OPTIONAL or (path / part).is_dir()]
    problems: list[str] = []
    configs = {part: attempt(problems, {}, lambda part=part: _read_config(path, part)) for part in present}
    sizes = {
        part: attempt(problems, (0, 0), lambda part=part: measure_weights(path / part, part))
        for part in present
        if part != "scheduler"
    }
    loaded = attempt(problems, {}, lambda: _loaded_elements(path, sizes))
    attempt(problems, None, lambda: _require_tokenizer(path / "tokenizer"))
    problems += _differences(configs)
    if problems:
        lines = "\n".join(f"  {problem.replace(f'{path}{os.sep}', '')}" for problem in problems)
        raise ValueError(
            f"model.checkpoint: {path} is not a usable LTX-2 folder; complete or replace it (on the hub accept the "
            f"model's terms, then run `hf auth login`):\n{lines}"
        )
    vae, transformer = configs["vae"], configs["transformer"]
    return Checkpoint(
        name=name,
        path=path,
        pipeline_class=str(read_json(path / "model_index.json")["_class_name"]),
        spatial_compression_ratio=_ratio(vae, "spatial_compression_ratio", "patch_size"),
        temporal_compression_ratio=_ratio(vae, "temporal_compression_ratio", "patch_size_t"),
        timestep_conditioning=False,
        latent_channels=vae["latent_channels"],
        weights={part: num_bytes for part, (num_bytes, _) in sizes.items()},
        num_parameters={part: elements for part, (_, elements) in sizes.items()} | loaded,
        num_encoder_parameters=loaded["vae_encoder"],
        num_layers=transformer["num_layers"],
        distilled=not configs["scheduler"].get("use_dynamic_shifting", False),
        generation=generation_of(transformer),
        sources={"vae_encoder": path / "vae"} | ({UPSAMPLER: path / UPSAMPLER} if UPSAMPLER in present else {}),
    )


def generation_of(transformer: Mapping[str, Any]) -> str:
    """2.0, 2.3 or 2.5, by the flags of the transformer's config."""
    if not transformer.get("cross_attn_mod", False):
        return "2.0"
    return "2.3" if transformer.get("ff_bias", True) else "2.5"


def _read_config(path: Path, part: str) -> dict[str, Any]:
    """A component's config. Raises ValueError for one of another class, that names code, or of quantized weights."""
    file = path / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    config, classes = read_checked_config(file), COMPONENT_CLASSES[part]
    named = config.get("_class_name") or (config.get("architectures") or [None])[0]
    if named not in classes:
        raise ValueError(f"{file}: {named!r} is not supported; only {' or '.join(classes)} is loaded")
    return config


def _require_tokenizer(folder: Path) -> None:
    """Raises ValueError without a vocabulary, or for a tokenizer with code of its own."""
    if not (folder / "tokenizer.json").is_file():
        raise ValueError(f"{folder}: tokenizer.json is missing: without it no prompt can be read; download it again")
    for name in ("tokenizer_config.json", "tokenizer.json"):
        if (folder / name).is_file():
            refuse_code(folder / name, read_json(folder / name))


def _loaded_elements(path: Path, sizes: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """Number of parameters that are loaded, for components that are only loaded in part.

    These are Gemma's language model and the decoder of the sound's VAE. The video's VAE is loaded by halves: its
    encoder is counted here, the whole elsewhere. `NAME.block` is one of the blocks in which a component can be
    streamed.
    """
    return {
        "text_encoder.block": _block(path, "text_encoder", BLOCKS["text_encoder"]),
        "transformer.block": _block(path, "transformer", BLOCKS["transformer"]),
        "text_encoder": _count(path, "text_encoder", lambda key: "language_model." in key and "lm_head" not in key),
        "vae_encoder": _count(path, "vae", lambda key: key.startswith("encoder.")),
        "audio_vae": sizes["audio_vae"][1] - _count(path, "audio_vae", lambda key: key.startswith("encoder.")),
    }


BLOCKS = {"text_encoder": r"language_model\.(?:model\.)?layers\.(\d+)\.", "transformer": r"transformer_blocks\.(\d+)\."}
"""The name pattern of a block's tensors, by component."""


def _block(path: Path, part: str, pattern: str) -> int:
    """Number of elements of a block. If blocks differ (some of Gemma 4's are larger), the mean of all but the two
    largest, so that a plan for streaming has room for these two.
    """
    sizes: dict[str, int] = {}
    for file in weight_files(path / part, part):
        for key, info in read_header(file).tensors.items():
            if found := re.search(pattern, key):
                sizes[found[1]] = sizes.get(found[1], 0) + info.num_elements
    if len(sizes) < 3:
        return min(sizes.values(), default=0)
    return (sum(sizes.values()) - 2 * max(sizes.values())) // (len(sizes) - 2)


def _count(path: Path, part: str, is_wanted: Any) -> int:
    headers = [read_header(file).tensors for file in weight_files(path / part, part)]
    return sum(info.num_elements for tensors in headers for key, info in tensors.items() if is_wanted(key))


def _ratio(vae: Mapping[str, Any], key: str, patch: str) -> int:
    """The rule of AutoencoderKLLTX2Video.__init__ in diffusers 0.42."""
    given = vae.get(key)
    blocks = 2 ** sum(bool(scaled) for scaled in vae.get("spatio_temporal_scaling", (True,) * 4))
    return given if given is not None else vae.get(patch, {"patch_size": 4, "patch_size_t": 1}[patch]) * blocks


def _differences(configs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Reasons why components do not fit together."""
    if not all(configs.get(part) for part in ("text_encoder", "connectors", "transformer", "vae", "audio_vae")):
        return
    transformer, connectors = configs["transformer"], configs["connectors"]
    generation, gemma = generation_of(transformer), configs["text_encoder"]
    expected = GEMMA[generation]
    if gemma.get("model_type") != expected:
        yield (
            f"text_encoder/config.json: model_type is {gemma.get('model_type')!r}, but LTX-{generation} was trained "
            f"with {expected!r}; give the text encoder that is published with it"
        )
        return
    text = gemma.get("text_config", {})
    for ours, its, what in (
        (connectors.get("caption_channels"), text.get("hidden_size"), "hidden_size"),
        (connectors.get("text_proj_in_factor"), text.get("num_hidden_layers", -1) + 1, "num_hidden_layers + 1"),
    ):
        if ours != its:
            yield f"text_encoder/config.json: {what} is {its}, but the connectors take {ours}"
    vae, audio = configs["vae"], configs["audio_vae"]
    if vae.get("timestep_conditioning"):
        yield "vae/config.json: timestep_conditioning: no published LTX-2 has it; give the VAE that it was trained with"
    if vae.get("latent_channels") != transformer.get("in_channels"):
        yield (
            f"vae/config.json: latent_channels is {vae.get('latent_channels')}, but the transformer's in_channels is "
            f"{transformer.get('in_channels')}"
        )
    mel = audio.get("latent_channels", 8) * (audio.get("mel_bins") or 64) // AUDIO_DOWNSAMPLING
    if mel != transformer.get("audio_in_channels"):
        yield (
            f"audio_vae/config.json: makes latents of {mel} channels, but the transformer's audio_in_channels is "
            f"{transformer.get('audio_in_channels')}"
        )
