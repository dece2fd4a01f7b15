"""`Checkpoint`: facts about a model that need no weights, and the place of each component."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ltx_dist.checkpoints.hub import (
    CHECKPOINT_FILES,
    T5_FILES,
    TEXT_ENCODER_FILES,
    NotCachedError,
    Snapshot,
    fetch_snapshot,
    is_hub_name,
)
from ltx_dist.checkpoints.places import what_is_wrong
from ltx_dist.pipeline.conditions import Lora
from ltx_dist.user_cache import from_home

Fetch = Callable[[str, Sequence[str], str], Snapshot]
"""`fetch_snapshot` or a substitute. Its arguments: a hub name, patterns of files, and the field to name in errors."""

DEMO_MODEL = Path(__file__).parent.parent / "demo" / "model"


@dataclass(frozen=True, slots=True)
class InFile:
    """A component whose weights are in a file with LTX-Video's original key names, among other components'.

    config_name: the packaged config that it is built from. changes: values that replace the config's, as its tensors'
    shapes require.
    """

    file: Path
    config_name: str
    changes: dict[str, Any] = field(default_factory=dict)


Source = Path | InFile
"""The place of a component: a folder in diffusers layout, or a part of an official file."""

PARTS = ("text_encoder", "tokenizer", "transformer", "vae", "scheduler")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete model: a folder in diffusers layout, or an official file with a text encoder.

    name: as asked for. Compression ratios: pixels (frames) per latent pixel (frame), by diffusers' own rule.
    weights: bytes of the tensors of text_encoder, transformer and vae as stored; num_parameters: their elements.
    decoder_inject_noise: whether any block of the VAE's decoder adds noise (LTX-Video 0.9.1 does).
    num_encoder_parameters: those of the VAE's encoder. num_layers: the transformer's blocks.
    distilled: None where nothing in the checkpoint says.
    sources: components that are not in a folder of their name under `path`.
    generation: `2.0`, `2.3` or `2.5` of LTX-2, by the config's flags; empty for LTX-Video.
    text_encoder, upscaler: names of those given separately; like `name`, with the commit if they are on the hub.
    loras: all LoRAs of the batch's clips, each once; loaded with the transformer, but inactive.
    """

    name: str
    path: Path
    pipeline_class: str
    spatial_compression_ratio: int
    temporal_compression_ratio: int
    timestep_conditioning: bool
    latent_channels: int
    weights: dict[str, int]
    num_parameters: dict[str, int]
    decoder_inject_noise: bool = False
    num_encoder_parameters: int = 0
    num_layers: int = 28
    distilled: bool | None = None
    sources: Mapping[str, Source] = field(default_factory=dict)
    text_encoder: str | None = None
    generation: str = ""
    upscaler: str | None = None
    loras: tuple[Lora, ...] = ()

    def num_loaded(self) -> dict[str, int]:
        """Number of parameters that each component loads; `vae` is the VAE's decoder, `vae_encoder` its encoder."""
        halves = {"vae": self.num_parameters["vae"] - self.num_encoder_parameters}
        return self.num_parameters | halves | {"vae_encoder": self.num_encoder_parameters}

    def source(self, component: str) -> Source:
        """The place of a component: text_encoder, tokenizer, transformer, vae or scheduler."""
        return self.sources.get(component, self.path / component)

    def folder(self, component: str) -> Path:
        """The folder of a component that an official file cannot hold: text_encoder or tokenizer."""
        source = self.source(component)
        assert isinstance(source, Path), component
        return source


def unseen_checkpoint(name: str, pipeline_class: str) -> Checkpoint:
    """A checkpoint that is not on this machine, with the sizes that all released versions have in common."""
    unknown: dict[str, int] = dict.fromkeys(("text_encoder", "transformer", "vae"), 0)
    return Checkpoint(
        name=name,
        path=Path(name),
        pipeline_class=pipeline_class,
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
        timestep_conditioning=True,
        latent_channels=128,
        weights=unknown,
        num_parameters=unknown,
    )


def open_checkpoint(
    name: str, text_encoder: str | None = None, upscaler: str | None = None, fetch: Fetch = fetch_snapshot
) -> Checkpoint:
    """Look at `demo` (packaged), a folder in diffusers layout, an official .safetensors file or a name on the hub.

    text_encoder: a folder with T5 and its tokenizer (or a name on the hub), in place of the checkpoint's own; an
    official file has none. upscaler: the latent upscaler of two passes, likewise. What is on the hub and not in its
    cache on this machine is downloaded. fetch: `fetch_headers` downloads no weights, for a look at the model alone.
    Raises ValueError with a line for each missing or unusable part, and the remedy.
    """
    path = DEMO_MODEL if name == "demo" else from_home(name, "model.checkpoint")
    if _is_on_hub(name, path):
        name = _fetch_checked(name, CHECKPOINT_FILES, "model.checkpoint")
    encoder_name, encoder = _find_text_encoder(text_encoder, fetch) if text_encoder is not None else (None, None)
    checkpoint = replace(_open(name, path, encoder, fetch), text_encoder=encoder_name)
    if upscaler is None:
        return checkpoint
    from ltx_dist.checkpoints.upscaler import with_upscaler

    return with_upscaler(checkpoint, upscaler, fetch)


def on_this_machine(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint with this machine's paths: one from the hub is downloaded to this machine's cache if need be.

    Raises ValueError if it is neither on this machine nor on the hub.
    """
    asked = checkpoint.name, checkpoint.text_encoder, checkpoint.upscaler
    parts = dict.fromkeys((*PARTS, *checkpoint.weights))
    missing = [path for part in parts if not (path := _place(checkpoint.source(part))).exists()]
    names = [name for name in asked if name is not None]
    if any("@" in name and is_hub_name(name) for name in names):
        # Even if it exists: another worker may be downloading it, which only the hub's own locks show.
        try:
            return replace(open_checkpoint(*asked), loras=checkpoint.loras)
        except NotCachedError:
            if missing:
                raise
    elif missing and checkpoint.name == "demo":
        return replace(open_checkpoint(*asked), loras=checkpoint.loras)
    elif missing:
        raise ValueError(f"{missing[0]} is not on this machine; put the checkpoint at the same path on every machine")
    return checkpoint


def _place(source: Source) -> Path:
    return source.file if isinstance(source, InFile) else source


def _open(name: str, path: Path, encoder: Path | None, fetch: Fetch) -> Checkpoint:
    # Both make a Checkpoint, so they import this module.
    from ltx_dist.checkpoints.diffusers_folder import open_folder
    from ltx_dist.checkpoints.official_file import open_official_file

    if path.is_dir():
        return open_folder(name, path, encoder)
    if path.suffix == ".safetensors" and path.is_file():
        return open_official_file(name, path, encoder)
    if _is_on_hub(name, path):
        files = CHECKPOINT_FILES if encoder is None else tuple(set(CHECKPOINT_FILES) - set(TEXT_ENCODER_FILES))
        snapshot = fetch(name, files, "model.checkpoint")
        try:
            return open_folder(snapshot.name, snapshot.path, encoder)
        except ValueError as error:
            raise ValueError(
                f"{error}\n  From {snapshot.name} only safetensors are downloaded: other formats can run code when "
                "opened"
            ) from None
    raise ValueError(f"model.checkpoint: {name}: {what_is_wrong(name, path)}")


def _is_on_hub(name: str, path: Path) -> bool:
    return path.suffix not in (".safetensors", ".gguf") and not path.exists() and is_hub_name(name)


def _fetch_checked(name: str, files: Sequence[str], field: str) -> str:
    """The name with its commit, after downloading everything but the weights and checking that the model is supported.

    So the gigabytes of an unsupported model are never downloaded. Raises ValueError as the folder's own checks do.
    """
    from ltx_dist.checkpoints.diffusers_folder import require_supported_model
    from ltx_dist.checkpoints.text_encoder_folder import require_t5

    snapshot = fetch_snapshot(name, [file for file in files if not file.endswith(".safetensors")], field)
    if field == "model.text_encoder":
        require_t5(snapshot.path)
    elif (snapshot.path / "model_index.json").exists():
        require_supported_model(snapshot.path)
    else:
        raise ValueError(
            f"{field}: {snapshot.name}: has no model_index.json, so it is not in diffusers layout; download one of its "
            "files with `hf download`, and give that file's path"
        )
    return snapshot.name


def _find_text_encoder(name: str, fetch: Fetch) -> tuple[str, Path]:
    """Its name, with the commit for one on the hub, and its path."""
    path = from_home(name, "model.text_encoder")
    if "://" in name:
        raise ValueError(f"model.text_encoder: {name}: {what_is_wrong(name, path)}")
    if path.exists() or not is_hub_name(name):
        return name, path
    snapshot = fetch(_fetch_checked(name, T5_FILES, "model.text_encoder"), T5_FILES, "model.text_encoder")
    return snapshot.name, snapshot.path
