"""RenderConfig: what a YAML file and `--set` may say. Strict and frozen; an unknown key is an error naming it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from ltx_dist.reading import StrictLoader, read_text, yaml_errors
from ltx_dist.wording import did_you_mean, explain, printable

Precision = Literal["float32", "bfloat16", "float16"]
Layout = Literal["pinned", "shared", "replicated", "elastic"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelConfig(_Section):
    """Which weights, and in which precision."""

    checkpoint: str = Field(
        "demo",
        description="`demo` (packaged), a folder in diffusers layout, an official .safetensors file, or owner/name or "
        "owner/name@commit on the Hugging Face hub.",
    )
    text_encoder: str | None = Field(
        None,
        description="A folder with text_encoder/ and tokenizer/, or with T5 itself; the checkpoint's own if not set. "
        "Official .safetensors files have none.",
    )
    version: str = Field("auto", description="A row of the preset table; `auto` reads it from the checkpoint.")
    precision: Literal["auto", Precision] = Field(
        "auto", description="dtype of the weights on the device; `auto` is bfloat16 on a GPU, float32 on a CPU."
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
    devices: int | None = Field(None, ge=1, le=4096, description="How many workers at most; all GPUs if not set.")
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
    video_slots: int | None = Field(
        None,
        ge=0,
        le=16,
        description="Clips of a worker whose mp4 is made on its host while its device goes on: 2 on a GPU, 0 on a CPU.",
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
    seed: int = Field(0, ge=0, lt=2**63)


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
    decode: DecodeConfig = DecodeConfig()
    output: OutputConfig = OutputConfig()
    recovery: RecoveryConfig = RecoveryConfig()
    cache: CacheConfig = CacheConfig()


MAX_CONFIG_BYTES = 1 << 20


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> RenderConfig:
    """The config of a YAML file with dotted overrides (`placement.layout=pinned`, the value in YAML) on top.

    Raises ValueError with a line for every error of the file and of the overrides.
    """
    problems: list[str] = []
    document: dict[str, Any] = {}
    if path is not None:
        try:
            document = _read_config(path)
            problems += _problems(document, str(path))
        except ValueError as error:
            problems.append(str(error))
    for override in overrides:
        try:
            section, key, value = _parse_override(override)
        except ValueError as error:
            problems.append(str(error))
            continue
        problems += _problems({section: {key: value}}, f"--set {override}", with_key=False)
        if not problems:
            document[section] = {**document.get(section, {}), key: value}
    if problems:
        raise ValueError("\n".join(problems))
    return RenderConfig.model_validate(document)


def _read_config(path: Path) -> dict[str, Any]:
    text = read_text(path, MAX_CONFIG_BYTES)
    with yaml_errors(str(path), text):
        document = yaml.load(text, StrictLoader)
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ValueError(f"{path}: not a mapping; write sections: {', '.join(RenderConfig.model_fields)}")
    # `placement:` with every line below it commented out is an empty section, not an error.
    return {str(section): values for section, values in document.items() if values is not None}


def _parse_override(override: str) -> tuple[str, str, Any]:
    dotted, equals, text = override.partition("=")
    if not equals:
        raise ValueError(f"--set {override}: no value; write section.key=value")
    if dotted not in _known_keys():
        raise ValueError(f"--set {override}: unknown key{did_you_mean(dotted, _candidates(dotted))}")
    with yaml_errors(f"--set {override}", text, with_line=False):
        section, _, key = dotted.partition(".")
        return section, key, yaml.load(text, StrictLoader)


def _candidates(dotted: str) -> list[str]:
    """What a wrong key may have been meant for: a key of its section, else a section or any section's key."""
    section = dotted.partition(".")[0]
    in_section = [key for key in _known_keys() if key.startswith(f"{section}.")]
    meant = [key for key in _known_keys() if key.endswith(f".{dotted.rpartition('.')[2]}")]
    return in_section or meant or list(RenderConfig.model_fields)


def _known_keys() -> list[str]:
    sections = {name: field.annotation for name, field in RenderConfig.model_fields.items()}
    return [f"{name}.{key}" for name, model in sections.items() for key in model.model_fields]  # type: ignore[union-attr]


def _problems(document: Mapping[str, Any], label: str, with_key: bool = True) -> list[str]:
    try:
        RenderConfig.model_validate(document)
    except ValidationError as error:
        return [f"{label}: {_explain_key(details, with_key)}" for details in error.errors()]
    return []


def _explain_key(error: ErrorDetails, with_key: bool) -> str:
    dotted = ".".join(str(part) for part in error["loc"])
    section = RenderConfig.model_fields.get(str(error["loc"][0]))
    field = section.annotation.model_fields.get(dotted.partition(".")[2]) if section else None  # type: ignore[union-attr]
    message = explain(error, field, _candidates(dotted), dotted)
    return f"{printable(dotted)}: {message}" if with_key else message
