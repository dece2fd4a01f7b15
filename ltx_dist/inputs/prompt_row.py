"""Schema and validation of one prompt row."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.inputs.clip_settings import SOUND_FIELDS, RowSettings
from ltx_dist.inputs.explain import explain_within
from ltx_dist.inputs.media_rows import ConditionRow, LoraRow, SegmentRow, WindowsRow, lora_rows
from ltx_dist.inputs.names import usable_name
from ltx_dist.inputs.preset import TAKES_TIMESTEPS
from ltx_dist.inputs.schedules import falling_numbers
from ltx_dist.messages import show
from ltx_dist.pipeline.request import MAX_TOKENS

T5_TOKENS, GEMMA_TOKENS = 512, MAX_TOKENS

MAX_PROMPT_BYTES = 8 << 10
MAX_META_BYTES = 64 << 10

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Unicode's categories Cc (control characters) and Cs (halves of surrogate pairs)."""

_OF_THE_BATCH = ("model", "checkpoint", "model_id", "model_name", "model_path", "model_type", "model_version")
"""Keys that other programs' rows name their model with."""

ONE_CHECKPOINT = (
    "a batch has one checkpoint, model.checkpoint; put the clips of another model into a prompt file of their own"
)


class Row(RowSettings):
    """A row, completed from config and preset. Sizes are checked against the checkpoint given as context.

    Settings come from the tables of pipeline/. Declared here are fields that a request expresses differently.
    """

    prompt: str = Field(description=RowSettings.model_fields["prompt"].description)
    image: str | None = Field(
        default=None,
        min_length=1,
        description="the first frame: a file, relative to the prompt file's folder, or a URL that fsspec reads",
    )
    conditions: list[ConditionRow] | None = Field(
        default=None,
        description="images and videos that the clip shows at given frames: a list of mappings with `image` "
        "or `video`, `frame_index` (-1 is the last), `strength`, and for a video `start_frame` and `num_frames`",
    )
    video: str | None = Field(
        default=None,
        min_length=1,
        description="video to video: the video that the clip starts from, a file or URL; see `denoise_strength`",
    )
    reference: str | None = Field(
        default=None,
        min_length=1,
        description="the control video, a file or URL, for an IC-LoRA in `loras`: depth, poses, edges, or a clip to "
        "add detail to; at least as long as the clip",
    )
    segments: list[SegmentRow] | None = Field(
        default=None,
        min_length=1,
        description="for a long clip, instead of `prompt`: a list of mappings, each with a `prompt` and its "
        "`num_frames`",
    )
    windows: WindowsRow | None = Field(
        default=None,
        description="denoise a long clip in windows: a mapping with `temporal_tile_size` (80 frames), "
        "`temporal_overlap` (24), `temporal_overlap_cond_strength`, `adain_factor`; in `prompt`, `|` separates the "
        "prompts of the windows",
    )
    loras: list[LoraRow] | None = Field(
        default=None,
        description="LoRAs that replace `model.loras`: files, or mappings with `weight` and either a `path` or the "
        "`name` of an entry of `model.loras`",
    )
    meta: dict[Any, Any] | None = Field(
        default=None, description="anything else about the clip; copied into its sidecar without changing the video"
    )
    name: str | None = Field(
        default=None,
        description="the file name without its extension: letters and digits of any script, `.`, `_` and `-`, starting "
        "with a letter or digit, at most 200 bytes; `coast/storm` is a clip in a folder; must be unique, ignoring "
        "case, must not be `run`, `index`, `trace` or a Windows device name, and must not end in `.mp4`, `.json` or "
        "`.`; if not set, made from position and first words: `001-a-lighthouse`; see also `output.name`",
    )

    @field_validator("height", "width")
    @classmethod
    def _multiple_of_the_ratio(cls, value: int, info: ValidationInfo[Checkpoint]) -> int:
        # diffusers' pipelines require multiples of 32 whatever the VAE; the latents require multiples of its ratio.
        side = math.lcm(32, info.context.spatial_compression_ratio)
        below = value - value % side
        if below != value:
            raise ValueError(f"{value} is not a multiple of {side}; use {_either(below, below + side)}")
        return value

    @field_validator("num_frames")
    @classmethod
    def _whole_latent_frames(cls, value: int, info: ValidationInfo[Checkpoint]) -> int:
        frames = info.context.temporal_compression_ratio
        below = value - (value - 1) % frames
        if below != value:
            raise ValueError(f"{value} is not a multiple of {frames} plus 1; use {_either(below, below + frames)}")
        return value

    @field_validator("timesteps", mode="before")
    @classmethod
    def _falling(cls, value: object, info: ValidationInfo[Checkpoint]) -> tuple[float, ...]:
        numbers = falling_numbers(value)
        if numbers is None:
            raise ValueError(f"{show(value)} is not a list of decreasing numbers, from at most 1000 to above 0")
        if info.context.pipeline_class != TAKES_TIMESTEPS:
            raise ValueError(f"{info.context.pipeline_class} takes no timesteps; set num_inference_steps")
        if numbers[0] <= 1:
            as_timesteps = ", ".join(f"{1000 * number:.6g}" for number in numbers if number > 0)
            raise ValueError(f"begins at {numbers[0]:g}: these are sigmas of 0 to 1; write timesteps: {as_timesteps}")
        steps = info.data.get("num_inference_steps")
        if steps is not None and steps != len(numbers):
            raise ValueError(f"{len(numbers)} timesteps, but num_inference_steps is {steps}; leave one of the two out")
        return numbers

    @field_validator("sigmas", mode="before")
    @classmethod
    def _falling_sigmas(cls, value: object, info: ValidationInfo[Checkpoint]) -> tuple[float, ...]:
        if not info.context.generation:
            raise ValueError("is only for LTX-2; for this checkpoint write timesteps: 1000 times the sigmas")
        numbers = falling_numbers(value)
        if numbers is None or numbers[0] > 1 or numbers[-1] <= 0:
            raise ValueError(f"{show(value)} is not a list of decreasing numbers, from at most 1 to above 0")
        steps = info.data.get("num_inference_steps")
        if steps is not None and steps != len(numbers):
            raise ValueError(f"{len(numbers)} sigmas, but num_inference_steps is {steps}; leave one of the two out")
        return numbers

    @field_validator("spatio_temporal_guidance_blocks", mode="before")
    @classmethod
    def _blocks(cls, value: object, info: ValidationInfo[Checkpoint]) -> tuple[int, ...]:
        listed = [value] if type(value) is int else value
        count = info.context.num_layers
        if not isinstance(listed, (list, tuple)) or not all(type(one) is int and 0 <= one < count for one in listed):
            raise ValueError(f"{show(value)} is not a list of blocks, of which this transformer has 0 to {count - 1}")
        return tuple(listed)

    @field_validator(*SOUND_FIELDS)
    @classmethod
    def _of_sound(cls, value: object, info: ValidationInfo[Checkpoint]) -> object:
        if not info.context.generation:
            raise ValueError("is only for LTX-2, whose clips have sound; leave it out")
        return value

    @field_validator("max_sequence_length")
    @classmethod
    def _of_t5(cls, value: int, info: ValidationInfo[Checkpoint]) -> int:
        if value > max_tokens(info.context):
            raise ValueError(f"{value} is too large; T5 takes at most {T5_TOKENS}")
        return value

    @field_validator("loras", mode="before")
    @classmethod
    def _paths_alone(cls, value: object) -> object:
        return lora_rows(value)

    @field_validator("meta")
    @classmethod
    def _fits_into_a_sidecar(cls, value: dict[Any, Any]) -> dict[Any, Any]:
        try:
            size = len(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError, RecursionError):
            raise ValueError(
                "holds what JSON cannot: only text, finite numbers, true, false, lists and mappings"
            ) from None
        if size > MAX_META_BYTES:
            raise ValueError(f"takes {size} bytes as JSON; at most {MAX_META_BYTES} are allowed")
        return value

    @field_validator("negative_prompt", "prompt")
    @classmethod
    def _clean(cls, value: str) -> str:
        text = re.sub(r"\r\n|\n|\t", " ", value).strip()
        if control := _CONTROL.search(text):
            raise ValueError(f"has the control character U+{ord(control[0]):04X}; remove it")
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
        return usable_name(value)


def max_tokens(checkpoint: Checkpoint) -> int:
    """Maximum number of tokens for the checkpoint's text encoder."""
    return GEMMA_TOKENS if checkpoint.generation else T5_TOKENS


def check_row(given: Mapping[str, Any], checkpoint: Checkpoint) -> tuple[dict[str, Any], dict[str, str]]:
    """The valid values, converted to their fields' types, and the errors of the other values, both by key."""
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
            wrong.setdefault(key, ONE_CHECKPOINT if key in _OF_THE_BATCH else explain_within(Row, details))
        return {key: value for key, value in given.items() if key not in wrong}, wrong


def _either(below: int, above: int) -> str:
    return f"{below} or {above}" if below >= 1 else str(above)
