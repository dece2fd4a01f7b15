"""Schema and validation of one prompt row."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.inputs.explain import explain
from ltx_dist.inputs.media_rows import ConditionRow, Fit, LoraRow, Preprocess, SecondPassRow
from ltx_dist.inputs.preset import TAKES_TIMESTEPS
from ltx_dist.messages import show

SOUND_FIELDS = (
    "stg_scale", "modality_scale", "audio_guidance_scale", "audio_guidance_rescale", "audio_stg_scale",
    "audio_modality_scale", "spatio_temporal_guidance_blocks", "sigmas",
)  # fmt: skip
"""What only rows of LTX-2 may have: the settings of SoundSettings."""

T5_TOKENS, GEMMA_TOKENS = 512, 1024

MAX_PROMPT_BYTES = 8 << 10
MAX_SEED = 2**63 - 1

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Unicode's categories Cc (control characters) and Cs (halves of surrogate pairs)."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_OWN_FILES = ("run", "index", "trace")  # run.json, index.html and trace.json lie beside the clips
_WINDOWS_NAMES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


class Row(BaseModel):
    """A row with what config and preset fill in. Sizes are checked against the checkpoint given as context."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    negative_prompt: str | None = Field(
        None,
        description="what the clip should not show; used if `guidance_scale` is above 1; like `prompt`, but may be "
        "empty",
    )
    # libx264 refuses to open above 16384 pixels a side (tried with PyAV 18.1: 16384 x 16 encodes, 16400 x 16 does not).
    # An hour of frames is far beyond what any LTX-Video was trained for.
    height: int | None = Field(None, ge=1, le=16384, description="pixels; a multiple of 32 and of the VAE's ratio (32)")
    width: int | None = Field(None, ge=1, le=16384, description="like `height`")
    num_frames: int | None = Field(
        None, ge=1, le=100_000, description="8k + 1 (given by the VAE's ratio; 4k + 1 for the demo model)"
    )
    frame_rate: float | None = Field(None, gt=0, le=240, description="frames per second; also an input of the model")
    num_inference_steps: int | None = Field(None, ge=1, le=1000, description="denoising steps")
    guidance_scale: float | None = Field(
        None, ge=0, description="strength of guidance; at 1 or below guidance is off, and a clip takes half the time"
    )
    guidance_rescale: float | None = Field(None, ge=0, le=1, description="reduces overexposure caused by guidance")
    seed: int | None = Field(
        None,
        ge=0,
        le=MAX_SEED,
        description="seed of the clip's noise; if not set, `defaults.seed` + position, counted from 0",
    )
    decode_timestep: float | None = Field(
        None, ge=0, le=1, description="noise level given to the VAE, if the VAE takes one"
    )
    decode_noise_scale: float | None = Field(
        None, ge=0, le=1, description="noise mixed in before decoding; if not set, equal to `decode_timestep`"
    )
    max_sequence_length: int | None = Field(
        None,
        ge=1,
        le=GEMMA_TOKENS,
        description="maximum number of the text encoder's tokens (512 for T5); longer prompts are cut off",
    )
    stg_scale: float | None = Field(
        None, ge=0, description="LTX-2: spatio-temporal guidance of the video; 0 turns it off, and saves a pass a step"
    )
    modality_scale: float | None = Field(
        None, ge=0, description="LTX-2: how much video and sound are to fit; 1 turns it off, and saves a pass a step"
    )
    audio_guidance_scale: float | None = Field(None, ge=0, description="LTX-2: `guidance_scale` of the sound")
    audio_guidance_rescale: float | None = Field(None, ge=0, le=1, description="LTX-2: `guidance_rescale` of the sound")
    audio_stg_scale: float | None = Field(None, ge=0, description="LTX-2: `stg_scale` of the sound")
    audio_modality_scale: float | None = Field(None, ge=0, description="LTX-2: `modality_scale` of the sound")
    spatio_temporal_guidance_blocks: tuple[int, ...] | None = Field(
        None, description="LTX-2: blocks of the transformer that `stg_scale` and `audio_stg_scale` leave out"
    )
    sigmas: tuple[float, ...] | None = Field(
        None,
        description="LTX-2: a schedule in place of `num_inference_steps`: falling, from at most 1; used as it is",
    )
    timesteps: tuple[float, ...] | None = Field(
        None,
        description="a schedule that replaces `num_inference_steps`, for checkpoints of `LTXConditionPipeline`: "
        "falling numbers, from at most 1000",
    )
    image: str | None = Field(
        None,
        min_length=1,
        description="the first frame: a file, relative to the prompt file's folder, or a URL that fsspec reads",
    )
    conditions: list[ConditionRow] | None = Field(
        None,
        description="images and videos that the clip shows from one of its frames on: a list of mappings with `image` "
        "or `video`, `frame_index` (-1 is the last), `strength`, and of a video `start_frame` and `num_frames`",
    )
    video: str | None = Field(
        None, min_length=1, description="a video that the clip starts from, a file or URL; see `denoise_strength`"
    )
    denoise_strength: float | None = Field(
        None, gt=0, le=1, description="share of the schedule that runs over `video`; lower values keep more of it"
    )
    image_cond_noise_scale: float | None = Field(
        None, ge=0, le=1, description="noise on conditions of full strength; more noise gives more motion"
    )
    fit: Fit | None = Field(
        None,
        description="how images and videos of another aspect ratio are fitted; `crop` if not set; diffusers uses "
        "`stretch`",
    )
    preprocess: Preprocess | None = Field(
        None,
        description="how images are prepared: as in diffusers, which is the default, or slightly blurred and "
        "compressed, as in Lightricks' own program",
    )
    crf: int | None = Field(
        None,
        ge=0,
        le=51,
        description="for `preprocess: official`: CRF of its compression as an H.264 frame; 29 if not set",
    )
    blur: bool | None = Field(None, description="for `preprocess: official`: blur before compression; true if not set")
    recipe: Literal["one_pass", "two_passes"] | None = Field(
        None,
        description="`two_passes`: denoise at a smaller size, double it with `model.upscaler`, and denoise again; if "
        "not set and there is an upscaler, as the version was published",
    )
    second_pass: SecondPassRow | None = Field(
        None,
        description="settings that replace those of the preset: `downscale_factor`, `timesteps` or "
        "`num_inference_steps` and `denoise_strength`, `guidance_scale`, `guidance_rescale`, `image_cond_noise_scale`, "
        "`adain_factor`, `tone_map_compression_ratio`, `tone_map_at`",
    )
    loras: list[LoraRow] | None = Field(
        None,
        description="LoRAs that replace `model.loras`: files, or mappings with `weight` and either `path` or the "
        "`name` of one of those",
    )
    name: str | None = Field(
        None,
        description="the file name without its ending: 1 to 100 of `A-Z a-z 0-9 . _ -`, starting with a letter or "
        "digit; unique, ignoring case; not `run`, `index`, `trace` or a Windows device, and not ending in `.mp4`, "
        "`.json` or `.`; if not set, position and words: `001-a-lighthouse`",
    )
    prompt: str = Field(
        description="what the clip shows; at most 8 KiB, not empty, no control characters; line breaks become spaces"
    )

    @field_validator("height", "width")
    @classmethod
    def _multiple_of_the_ratio(cls, value: int, info: ValidationInfo) -> int:
        # diffusers' pipelines ask for multiples of 32 whatever the VAE; the latents for multiples of its ratio.
        side = math.lcm(32, info.context.spatial_compression_ratio)
        below = value - value % side
        if below != value:
            raise ValueError(f"{value} is not a multiple of {side}; use {_either(below, below + side)}")
        return value

    @field_validator("num_frames")
    @classmethod
    def _whole_latent_frames(cls, value: int, info: ValidationInfo) -> int:
        frames = info.context.temporal_compression_ratio
        below = value - (value - 1) % frames
        if below != value:
            raise ValueError(f"{value} is not a multiple of {frames} plus 1; use {_either(below, below + frames)}")
        return value

    @field_validator("timesteps", mode="before")
    @classmethod
    def _falling(cls, value: object, info: ValidationInfo) -> tuple[float, ...]:
        numbers = _numbers(value)
        if numbers is None:
            raise ValueError(f"{show(value)} is not a list of falling numbers, from at most 1000 to above 0")
        if info.context.pipeline_class != TAKES_TIMESTEPS:
            raise ValueError(f"{info.context.pipeline_class} takes no timesteps of your own; set num_inference_steps")
        if numbers[0] <= 1:
            as_timesteps = ", ".join(f"{1000 * number:.6g}" for number in numbers if number > 0)
            raise ValueError(f"begins at {numbers[0]:g}: these are sigmas of 0 to 1; write timesteps: {as_timesteps}")
        steps = info.data.get("num_inference_steps")
        if steps is not None and steps != len(numbers):
            raise ValueError(f"{len(numbers)} timesteps, but num_inference_steps is {steps}; leave one of the two out")
        return numbers

    @field_validator("sigmas", mode="before")
    @classmethod
    def _falling_sigmas(cls, value: object, info: ValidationInfo) -> tuple[float, ...]:
        if not info.context.generation:
            raise ValueError("is of LTX-2; for this checkpoint write timesteps: 1000 times the sigmas")
        numbers = _numbers(value)
        if numbers is None or numbers[0] > 1 or numbers[-1] <= 0:
            raise ValueError(f"{show(value)} is not a list of falling numbers, from at most 1 to above 0")
        steps = info.data.get("num_inference_steps")
        if steps is not None and steps != len(numbers):
            raise ValueError(f"{len(numbers)} sigmas, but num_inference_steps is {steps}; leave one of the two out")
        return numbers

    @field_validator("spatio_temporal_guidance_blocks", mode="before")
    @classmethod
    def _blocks(cls, value: object, info: ValidationInfo) -> tuple[int, ...]:
        listed = [value] if type(value) is int else value
        count = info.context.num_layers
        if not isinstance(listed, (list, tuple)) or not all(type(one) is int and 0 <= one < count for one in listed):
            raise ValueError(f"{show(value)} is not a list of blocks, of which this transformer has 0 to {count - 1}")
        return tuple(listed)

    @field_validator(*SOUND_FIELDS)
    @classmethod
    def _of_sound(cls, value: object, info: ValidationInfo) -> object:
        if not info.context.generation:
            raise ValueError("is of LTX-2, whose clips have sound; this checkpoint's have none: leave it out")
        return value

    @field_validator("max_sequence_length")
    @classmethod
    def _of_t5(cls, value: int, info: ValidationInfo) -> int:
        if value > max_tokens(info.context):
            raise ValueError(f"{value} is too large; T5 takes at most {T5_TOKENS}")
        return value

    @field_validator("loras", mode="before")
    @classmethod
    def _paths_alone(cls, value: object) -> object:
        """One path, or a list with paths in it, for mappings with a path."""
        listed = [value] if isinstance(value, str) else value
        return [{"path": one} if isinstance(one, str) else one for one in listed] if isinstance(listed, list) else value

    @field_validator("negative_prompt", "prompt")
    @classmethod
    def _clean(cls, value: str) -> str:
        text = re.sub(r"\r\n|\n|\t", " ", value).strip()
        if control := _CONTROL.search(text):
            raise ValueError(f"has the control character U+{ord(control[0]):04X}; take it out")
        if (size := len(text.encode())) > MAX_PROMPT_BYTES:
            raise ValueError(f"is {size} bytes long; at most {MAX_PROMPT_BYTES} are allowed")
        return text

    @field_validator("prompt")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value:
            raise ValueError("empty; write what the clip shows")
        return value

    @field_validator("name")
    @classmethod
    def _usable_as_file_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError(f"{show(value)}: use 1 to 100 of A-Z a-z 0-9 . _ - and begin with a letter or digit")
        if value.casefold() in _OWN_FILES:
            raise ValueError(f"{value!r} is the name of a file written beside the clips; choose another")
        if value.casefold().endswith((".mp4", ".json")):
            raise ValueError(f"{value!r}: leave the ending out; it is added")
        if value.endswith(".") or value.casefold().partition(".")[0] in _WINDOWS_NAMES:
            raise ValueError(f"{value!r} cannot be a file on Windows; choose another")
        return value


def max_tokens(checkpoint: Checkpoint) -> int:
    """How many tokens the checkpoint's text encoder can be given."""
    return GEMMA_TOKENS if checkpoint.generation else T5_TOKENS


def check_row(given: Mapping[str, Any], checkpoint: Checkpoint) -> tuple[dict[str, Any], dict[str, str]]:
    """The values that are right, as their fields want them, and what is wrong with each of the others, by key."""
    try:
        checked = Row.model_validate(given, context=checkpoint)
        row = {name: getattr(checked, name) for name in checked.model_fields_set}
        for schedule in ("timesteps", "sigmas"):
            if row.get(schedule) is not None:
                row["num_inference_steps"] = len(row[schedule])
        return row, {}
    except ValidationError as error:
        wrong = {}
        for details in error.errors():
            key = str(details["loc"][0])
            wrong.setdefault(key, _explained(details))
        return {key: value for key, value in given.items() if key not in wrong}, wrong


def _explained(details: ErrorDetails) -> str:
    """In words, and where inside the field: `[0].frame_index: ...`."""
    model: Any = Row
    field, known, name, where = None, Row.model_fields, "", ""
    for part in details["loc"]:
        if isinstance(part, int):
            where += f"[{part}]"
            continue
        known = model.model_fields if model is not None else {}
        field, name = known.get(part), part
        where += f".{part}" if where else part
        model = _model_in(field.annotation) if field else None
    message = explain(details, field, known, name)
    inside = where.partition(str(details["loc"][0]))[2].removeprefix(".")
    return f"{inside}: {message}" if inside else message


def _model_in(annotation: Any) -> Any:
    """The model that the values of a field are, or those of its list; None for plain ones."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both, and where both say it, what is above. A number of steps hides a schedule below, and a schedule a number."""
    hidden: set[str] = set()
    if above.get("num_inference_steps") is not None:
        hidden |= {"timesteps", "sigmas"}
    if above.get("timesteps") is not None or above.get("sigmas") is not None:
        hidden.add("num_inference_steps")
    return {key: value for key, value in below.items() if key not in hidden} | dict(above)


def _numbers(value: object) -> tuple[float, ...] | None:
    """A schedule as a list, or as text in a CSV cell; None if it is none. Sigmas of 0 to 1 may end in 0."""
    parts: list[Any] = value.strip("[] ").replace(",", " ").split() if isinstance(value, str) else _as_list(value)
    try:
        numbers = tuple(float(part) for part in parts if not isinstance(part, bool))
    except (TypeError, ValueError):
        return None
    end = 0.0 if not numbers or numbers[0] > 1 else -1.0
    falling = all(1000 >= one > next_ for one, next_ in pairwise((*numbers, end))) and (not numbers or numbers[0] > 0)
    return numbers if numbers and len(numbers) == len(parts) <= 1000 and falling else None


def _as_list(value: object) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _either(below: int, above: int) -> str:
    return f"{below} or {above}" if below >= 1 else str(above)
