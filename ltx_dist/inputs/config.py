"""RenderConfig: the schema of YAML files and `--set`. Strict and frozen; an unknown key is an error that names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, create_model, field_validator

from ltx_dist.inputs.clip_settings import defaults_fields
from ltx_dist.inputs.media_rows import LoraRow
from ltx_dist.inputs.names import check_template
from ltx_dist.inputs.reading_config import PromptsConfig
from ltx_dist.pipeline.request import MAX_SEED
from ltx_dist.pipeline.storage import AlsoFormat
from ltx_dist.pipeline.worker import MAX_HOST_SLOTS, DeviceWish

Precision = Literal["float32", "bfloat16", "float16"]
Layout = Literal["pinned", "shared", "replicated", "elastic"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelConfig(_Section):
    """The weights and their precision."""

    checkpoint: str = Field(
        default="demo",
        min_length=1,
        description="`demo` (packaged), a folder in diffusers layout, an official .safetensors file, or owner/name or "
        "owner/name@REVISION (a commit, branch or refs/pr/N) on the Hugging Face hub.",
    )
    text_encoder: str | None = Field(
        default=None,
        min_length=1,
        description="The text encoder: a folder with text_encoder/ and tokenizer/, a folder with T5 itself, or "
        "owner/name on the hub; if not set, the checkpoint's own. Official .safetensors files have none, so set it.",
    )
    upscaler: str | None = Field(
        default=None,
        min_length=1,
        description="The spatial latent upscaler for two passes: `demo` (packaged), a folder in diffusers layout, an "
        "official .safetensors file, or owner/name or owner/name@commit on the hub.",
    )
    loras: list[LoraRow] = Field(
        default=[],
        description="LoRAs for rows that set no `loras`: mappings with `path`, `weight`, and a `name` by which rows "
        "can refer to one.",
    )
    version: str = Field(
        default="auto",
        min_length=1,
        description="The model's version, as the preset table names it; `auto` recognises it from the checkpoint.",
    )
    precision: Literal["auto", Precision] = Field(
        default="auto",
        description="dtype of the weights on the device; `auto` is bfloat16 on GPUs, and float32 on a CPU or if all "
        "GPUs are older than Ampere (compute capability 8.0). If only some are older, `auto` does not use those.",
    )
    vae_precision: Literal["auto", Precision] = Field(
        default="auto",
        description="dtype of the VAE, as in `pipe.vae.to(...)`; `auto` is the same as `precision`, but float32 if "
        "that is float16. A CPU without bfloat16 instructions decodes much faster in float32.",
    )
    transformer_storage: Literal["same", "float8"] = Field(
        default="same",
        description="`float8` halves the transformer's memory: weights have 8 bits and are cast to `precision` layer "
        "by layer.",
    )
    text_encoder_quantization: Literal["none", "int8", "int4"] = Field(
        default="none",
        description="`int8` halves the memory of the layers of T5 or Gemma, `int4` quarters it (GPU only). Needs "
        "bitsandbytes (int4, and int8 of T5 on a GPU) or torchao (int8 otherwise), which are not installed by default.",
    )


class PlacementConfig(_Section):
    """The workers, and the stages that each runs."""

    layout: Literal["auto", Layout] = Field(
        default="auto",
        description="`pinned`: one device per stage; extra devices denoise. `shared`: one device runs all stages. "
        "`replicated`: every device runs all stages. `elastic`: every device runs the stages that fit on it together. "
        "`auto`: simulates all layouts that fit and takes the one with the shortest makespan.",
    )
    device: DeviceWish = Field(default="auto", description="`auto` is cuda if a GPU is found, otherwise cpu.")
    devices: int | None = Field(
        default=None, ge=1, le=4096, description="Number of devices, each with one worker; every free GPU if not set."
    )
    memory_gb: float | None = Field(
        default=None, gt=0, description="Memory per device in GB (1e9 bytes); detected if not set."
    )
    threads: int | None = Field(default=None, ge=1, le=1024, description="CPU threads per worker for torch.")
    host_memory_gb: float | None = Field(
        default=None, gt=0, description="Memory of a worker's host in GB (1e9 bytes); detected if not set."
    )
    residency: Literal["auto", "resident", "time_sliced", "streamed"] = Field(
        default="auto",
        description="`resident`: all components of a worker stay on its device. `time_sliced`: they take turns, in "
        "waves. `streamed`: their blocks are copied to it one by one, as needed. `auto`: the first of these that fits.",
    )
    wave: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Maximum number of clips that wait between two stages, which is the size of a wave.",
    )
    host_slots: int | None = Field(
        default=None,
        ge=1,
        le=MAX_HOST_SLOTS,
        description="Maximum number of clips per worker whose frames are in the host's memory, being encoded as mp4 "
        "while the device works on other clips; if not set, 2, or as many as a fast GPU is predicted to need.",
    )


_OfRows: Any = create_model("_OfRows", __base__=_Section, **defaults_fields())


class DefaultsConfig(_OfRows):
    """Settings for requests whose row does not set them. What neither sets comes from the preset.

    Names and meanings are those of rows. `seed` is that of the batch: a request's own default is `seed` plus its
    position.
    """

    seed: int = Field(
        default=0, ge=0, le=MAX_SEED, description="seed of the first clip; each later clip's is this plus its position"
    )

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    def remember(self, origins: Mapping[str, str]) -> None:
        """Note where each dotted key was given: `my.yaml:7`, `--set defaults.width=130`, or `--vary`."""
        self._origins.update(origins)

    def named(self, key: str) -> str:
        """The key and where it was given, for errors that are only found once the checkpoint is known."""
        origin = self._origins.get(f"defaults.{key}", "")
        if origin.startswith("--"):
            return origin
        return f"{origin}: defaults.{key}" if origin else f"defaults.{key}"


class DenoiseConfig(_Section):
    """How clips pass through the transformer."""

    batch_size: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Maximum number of clips of equal size and settings that share a forward pass, for clips too "
        "small to keep a device busy. Above 1, a clip's low-order bits depend on the clips it shares a pass with, "
        "so `recovery.exact` refuses it.",
    )


class DecodeConfig(_Section):
    """The tiles in which the VAE decodes. Chosen once per batch; tiles change pixels a little."""

    tile_size: int | Literal["auto", "off"] = Field(
        default="auto",
        description="Height and width of a tile in pixels. `auto`: the largest that fits, or `off` if the whole clip "
        "fits.",
    )
    tile_frames: int | Literal["auto", "off"] = Field(
        default="auto", description="Number of frames of a tile; `auto` and `off` as for `tile_size`."
    )

    @field_validator("tile_size", "tile_frames", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: object) -> object:
        """YAML 1.1 reads `off` as false."""
        return "off" if value is False else value


OF_THE_FOLDER = frozenset({"name", "poster"})
"""Keys of `output` that change no byte of an mp4; the others do, and are part of the render key."""


class OutputConfig(_Section):
    """How frames become an mp4, and the files beside it."""

    crf: int = Field(
        default=17, ge=0, le=51, description="x264's constant rate factor; 0 is lossless, 17 is visually lossless."
    )
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower"] = Field(
        default="medium", description="x264's preset: slower ones make smaller files."
    )
    threads: int = Field(
        default=2,
        ge=1,
        le=64,
        description="x264's threads; the same on every machine, because they change the file's bytes.",
    )
    audio: Literal["aac", "alac", "none"] = Field(
        default="aac",
        description="Format of the sound, where a model makes sound: aac (192 kb/s), alac (24 bits, lossless) or none.",
    )
    pad_audio: bool = Field(
        default=True,
        description="Pad the sound with silence up to the end of the video; the models' sound ends some 0.03 s early.",
    )
    also: list[AlsoFormat] = Field(
        default=[],
        description="Further files beside each `NAME.mp4`, with the same frames and sound: `prores` (`NAME.mov`: "
        "ProRes 422 HQ), `ffv1` (`NAME.mkv`: lossless RGB), `av1` (`NAME.webm`: small, 10 bits, for the web).",
    )
    name: str | None = Field(
        default=None,
        min_length=1,
        description="Template of the clips' names, such as `{index:04}-{prompt:.40}` or `{meta.group}/{name}`: any "
        "field, `index` (position, from 1), `name` (as without a template), `meta.KEY`, with Python's format specs; "
        "`/` makes folders. If not set, clips have the names of their rows.",
    )
    poster: bool = Field(
        default=True,
        description="Write `NAME.webp` beside each clip: its middle frame, at most 320 pixels wide, some 10 kB.",
    )

    @field_validator("name")
    @classmethod
    def _is_template(cls, value: str | None) -> str | None:
        return None if value is None else check_template(value)


class RecoveryConfig(_Section):
    """What a run saves for the next one, besides finished clips."""

    spool_gb: float = Field(
        default=20.0,
        ge=0,
        description="Disk space in GB for saved stage outputs, so that a rerun resumes mid-clip; 0 disables it.",
    )
    keep_latents: bool = Field(
        default=False,
        description="Keep the latents of finished clips; `ltx-dist decode` can decode them again with other settings.",
    )
    exact: bool = Field(
        default=False,
        description="Fail a clip that runs out of memory instead of retrying in ways that change pixels (smaller "
        "tiles, 8-bit weights).",
    )
    grace_seconds: float = Field(
        default=3.0,
        ge=0,
        le=3600,
        description="Maximum seconds from a stop to the end of the process, in which clips that are nearly done are "
        "still published. Ray gives a stopped job 3.",
    )


class CacheConfig(_Section):
    """What a run saves for every later one on this machine."""

    embeddings: str | None = Field(
        default="auto",
        min_length=1,
        description="Folder for encoded prompts and images: a batch whose prompts are all in it needs no text encoder. "
        "`auto` is a folder in the user's cache; null disables it.",
    )
    embeddings_gb: float = Field(
        default=5.0,
        gt=0,
        description="Disk space in GB for encoded prompts and images: 2 to 4 MB per prompt of LTX-Video, 13 to 25 MB "
        "of LTX-2. The least recently used are removed first.",
    )


class RenderConfig(_Section):
    """Everything that a batch needs besides its prompts."""

    model: ModelConfig = ModelConfig()
    placement: PlacementConfig = PlacementConfig()
    defaults: DefaultsConfig = DefaultsConfig()
    prompts: PromptsConfig = PromptsConfig()
    denoise: DenoiseConfig = DenoiseConfig()
    decode: DecodeConfig = DecodeConfig()
    output: OutputConfig = OutputConfig()
    recovery: RecoveryConfig = RecoveryConfig()
    cache: CacheConfig = CacheConfig()
