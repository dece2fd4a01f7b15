"""RenderConfig: what a YAML file and `--set` may say. Strict and frozen; an unknown key is an error naming it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator

from ltx_dist.inputs.media_rows import LoraRow

Precision = Literal["float32", "bfloat16", "float16"]
Layout = Literal["pinned", "shared", "replicated", "elastic"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelConfig(_Section):
    """Which weights, and in which precision."""

    checkpoint: str = Field(
        "demo",
        min_length=1,
        description="`demo` (packaged), a folder in diffusers layout, an official .safetensors file, or owner/name or "
        "owner/name@REVISION (a commit, branch or refs/pr/N) on the Hugging Face hub.",
    )
    text_encoder: str | None = Field(
        None,
        min_length=1,
        description="A folder with text_encoder/ and tokenizer/, or with T5 itself; the checkpoint's own if not set. "
        "Official .safetensors files have none.",
    )
    upscaler: str | None = Field(
        None,
        min_length=1,
        description="The spatial latent upscaler of clips in two passes: a folder in diffusers layout, an official "
        ".safetensors file, or owner/name or owner/name@commit on the hub.",
    )
    loras: list[LoraRow] = Field(
        [],
        description="LoRAs of clips whose row has no `loras`: mappings with `path`, `weight`, and a `name` for rows.",
    )
    version: str = Field(
        "auto", min_length=1, description="A row of the preset table; `auto` reads it from the checkpoint."
    )
    precision: Literal["auto", Precision] = Field(
        "auto", description="dtype of the weights on the device; `auto` is bfloat16 on a GPU, float32 on a CPU."
    )
    vae_precision: Literal["auto", Precision] = Field(
        "auto",
        description="dtype of the VAE alone, as `pipe.vae.to(...)`; `auto` is that of `precision`. float32 is what a "
        "CPU without bfloat16 instructions decodes fast in.",
    )
    transformer_storage: Literal["same", "float8"] = Field(
        "same",
        description="`float8` halves the transformer's memory: 8-bit weights, cast to `precision` layer by layer.",
    )
    text_encoder_quantization: Literal["none", "int8", "int4"] = Field(
        "none",
        description="T5 in half or a quarter of its memory, by bitsandbytes on a GPU and torchao on a CPU; "
        "needs `pip install '.[quantize]'` in the checkout.",
    )


class PlacementConfig(_Section):
    """Which worker runs which stages, and where."""

    layout: Literal["auto", Layout] = Field(
        "auto",
        description="`pinned`: a device a stage, further devices denoise. `shared`: one device runs all stages. "
        "`replicated`: every device runs all stages. `elastic`: every device runs the stages that fit it together. "
        "`auto`: each that can be placed is simulated, and the shortest is taken.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` is cuda where a GPU is found.")
    devices: int | None = Field(None, ge=1, le=4096, description="How many workers; every free GPU if not set.")
    memory_gb: float | None = Field(None, gt=0, description="Bytes of one device / 1e9; read from it if not set.")
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads of each worker's torch.")
    host_memory_gb: float | None = Field(
        None, gt=0, description="Memory of a worker's host / 1e9; read from the machine if not set."
    )
    residency: Literal["auto", "resident", "time_sliced", "streamed"] = Field(
        "auto",
        description="`resident`: a worker keeps all its components on its device. `time_sliced`: one at a time, in "
        "waves. `streamed`: block by block through it. `auto`: the first of these that fits.",
    )
    wave: int | None = Field(
        None, ge=1, le=10_000, description="How many clips may wait between two stages: the size of a wave."
    )
    host_slots: int | None = Field(
        None,
        ge=1,
        le=16,
        description="Clips per worker whose frames may be in the host's memory, where they become mp4s while the "
        "device works on other clips. 2 if not set.",
    )


class DefaultsConfig(_Section):
    """Settings of every request that its row does not set; what neither sets, the checkpoint's preset does.

    Names and meanings are diffusers'. `seed` is the batch's: a request's own default is it plus its position.
    """

    negative_prompt: str | None = None
    height: int | None = None
    width: int | None = None
    num_frames: int | None = None
    frame_rate: float | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    guidance_rescale: float | None = None
    decode_timestep: float | None = None
    decode_noise_scale: float | None = None
    max_sequence_length: int | None = None
    timesteps: list[float] | None = None
    image_cond_noise_scale: float | None = None
    fit: str | None = None
    preprocess: str | None = None
    crf: int | None = None
    blur: bool | None = None
    recipe: str | None = None
    second_pass: dict[str, Any] | None = None
    seed: int = Field(0, ge=0, lt=2**63)

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    def remember(self, origins: Mapping[str, str]) -> None:
        """Where each dotted key was given: `my.yaml:7`, or `--set defaults.width=130`."""
        self._origins.update(origins)

    def named(self, key: str) -> str:
        """The key and where it was given, for an error that shows only once a checkpoint is known."""
        origin = self._origins.get(f"defaults.{key}", "")
        if origin.startswith("--set"):
            return origin
        return f"{origin}: defaults.{key}" if origin else f"defaults.{key}"


class DenoiseConfig(_Section):
    """How clips go through the transformer."""

    batch_size: int = Field(
        1,
        ge=1,
        le=64,
        description="How many clips of equal size and settings may share a forward pass, and their prompts one of the "
        "text encoder: for clips too small to fill a device. Above 1 the low bits of a clip depend on its company, "
        "which `recovery.exact` does not allow.",
    )


class DecodeConfig(_Section):
    """In which pieces the VAE decodes. Settled once for a batch; pieces change the pixels a little."""

    tile_size: int | Literal["auto", "off"] = Field(
        "auto", description="Height and width of a piece in pixels. `auto`: the largest that fits, `off` if all does."
    )
    tile_frames: int | Literal["auto", "off"] = Field("auto", description="Frames of a piece; as `tile_size`.")

    @field_validator("tile_size", "tile_frames", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: object) -> object:
        """YAML 1.1 reads `off` as false."""
        return "off" if value is False else value


class OutputConfig(_Section):
    """How frames become an mp4. Each of these changes the file's bytes, so each is part of the render key."""

    crf: int = Field(17, ge=0, le=51, description="x264's constant rate factor; 0 is lossless, 17 looks so.")
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower"] = Field(
        "medium", description="x264's effort."
    )
    threads: int = Field(2, ge=1, le=64, description="x264's threads. Fixed, because the count changes the bytes.")
    audio: Literal["aac", "alac", "none"] = Field(
        "aac", description="Sound of models that make some: aac (192 kb/s), alac (24 bits, lossless) or none."
    )
    pad_audio: bool = Field(
        True, description="Add silence to the end of the video; the models' sound ends some 0.03 s before it."
    )


class RecoveryConfig(_Section):
    """What a run leaves behind for the next one, beside finished clips."""

    spool_gb: float = Field(
        20.0,
        ge=0,
        description="Room for outputs of unfinished clips, so that a rerun goes on at their stage; 0 for none.",
    )
    keep_latents: bool = Field(
        False,
        description="Keep latents of finished clips: with other decode or output settings they are only decoded again.",
    )
    exact: bool = Field(
        False,
        description="A clip that finds no memory fails rather than be made with other pixels: in smaller pieces or "
        "with 8-bit weights.",
    )
    grace_seconds: float = Field(
        3.0,
        ge=0,
        le=3600,
        description="From a stop to the end of the process; clips nearly there are published. Ray gives a job 3.",
    )


class CacheConfig(_Section):
    """What a run leaves behind for every later one on this machine."""

    embeddings: str | None = Field(
        "auto",
        min_length=1,
        description="A folder for text embeddings: a batch whose prompts are all there needs no text encoder. `auto` "
        "is one in the user's cache folder; null for none.",
    )
    embeddings_gb: float = Field(
        5.0, gt=0, description="Room for them; a prompt takes some 2 MB. The least recently used go first."
    )


class RenderConfig(_Section):
    """Everything of a batch but its prompts."""

    model: ModelConfig = ModelConfig()
    placement: PlacementConfig = PlacementConfig()
    defaults: DefaultsConfig = DefaultsConfig()
    denoise: DenoiseConfig = DenoiseConfig()
    decode: DecodeConfig = DecodeConfig()
    output: OutputConfig = OutputConfig()
    recovery: RecoveryConfig = RecoveryConfig()
    cache: CacheConfig = CacheConfig()
