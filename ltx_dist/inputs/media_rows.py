"""Schema of the mappings in a row, such as images, LoRAs and the second pass. Files are checked elsewhere."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator, model_validator

from ltx_dist.inputs.declared_fields import optional_fields
from ltx_dist.pipeline.conditions import SecondPass
from ltx_dist.pipeline.sound import SoundSecondPass

Fit = Literal["crop", "stretch", "pad"]
Preprocess = Literal["diffusers", "official"]

OFFICIAL_CRF = 29
"""CRF of the H.264 frame that an image becomes, after a blur: inference.py of Lightricks/LTX-Video."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Preparation(BaseModel):
    """How images and videos are fitted to the clip, for a row or a single condition."""

    fit: Fit | None = Field(
        default=None,
        description="how images and videos of another aspect ratio are fitted; `crop` if not set (diffusers itself "
        "uses `stretch`)",
    )
    preprocess: Preprocess | None = Field(
        default=None,
        description="how images are prepared: `diffusers` (the default), or `official`: slightly blurred and "
        "compressed, as in Lightricks' own program",
    )
    crf: int | None = Field(
        default=None,
        ge=0,
        le=51,
        description="for `preprocess: official`, and always for LTX-2: CRF with which an image is compressed as an "
        "H.264 frame; if not set, 29 (LTX-2: as in training)",
    )
    blur: bool | None = Field(
        default=None, description="for `preprocess: official`: blur before compression; true if not set"
    )


class ConditionRow(Preparation, _Part):
    """An image or a video that the clip shows from a given frame on."""

    image: str | None = Field(default=None, min_length=1)
    video: str | None = Field(default=None, min_length=1)
    frame_index: int = 0
    strength: float = Field(default=1.0, gt=0, le=1)
    start_frame: int = Field(default=0, ge=0)
    num_frames: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_medium(self) -> ConditionRow:
        if (self.image is None) == (self.video is None):
            raise ValueError("give either image or video")
        if self.image is not None and (self.start_frame or self.num_frames is not None):
            raise ValueError("start_frame and num_frames are for videos; an image has one frame")
        return self


class LoraRow(_Part):
    """A file, or the name of one of `model.loras`, and how much of it to add."""

    path: str | None = Field(default=None, min_length=1)
    name: str | None = Field(default=None, min_length=1)
    weight: float = Field(default=1.0, ge=-10, le=10)

    @model_validator(mode="after")
    def _one_of_two(self) -> LoraRow:
        if self.path is None and self.name is None:
            raise ValueError("give the path of the LoRA, or the name of one of model.loras")
        return self


class SegmentRow(_Part):
    """The prompt of some of a long clip's frames."""

    prompt: str = Field(min_length=1)
    num_frames: int | None = Field(default=None, ge=1)


class WindowsRow(_Part):
    """The windows that a long clip is denoised in, with the defaults of diffusers' LTXI2VLongMultiPromptPipeline."""

    temporal_tile_size: int = Field(default=80, ge=1, le=100_000)
    temporal_overlap: int = Field(default=24, ge=1, le=100_000)
    temporal_overlap_cond_strength: float = Field(default=0.5, gt=0, le=1)
    adain_factor: float = Field(default=0.25, ge=0, le=1)


def lora_rows(value: Any) -> Any:
    """A list of mappings, from one path, or from a list in which paths stand for mappings with only a path."""
    listed = [value] if isinstance(value, str) else value
    return [{"path": one} if isinstance(one, str) else one for one in listed] if isinstance(listed, list) else value


_OfSecondPasses: Any = create_model(
    "_OfSecondPasses", __base__=_Part, **(optional_fields(SecondPass) | optional_fields(SoundSecondPass))
)


class SecondPassRow(_OfSecondPasses):
    """Settings of the second pass that replace the preset's, for either family."""

    downscale_factor: float | None = Field(
        default=None, gt=0, le=1, description="size of the first pass as a share of the clip's"
    )
    loras: list[LoraRow] | None = Field(default=None, description="LTX-2: LoRAs that only the second pass uses")

    @field_validator("loras", mode="before")
    @classmethod
    def _paths_alone(cls, value: object) -> object:
        return lora_rows(value)

    @field_validator("timesteps", "sigmas", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        return tuple(float(n) if type(n) is int else n for n in value) if isinstance(value, (list, tuple)) else value

    @field_validator("timesteps")
    @classmethod
    def _falling(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or not all(1000 > one > later for one, later in pairwise((*value, 0.0))):
            raise ValueError(f"{list(value)} do not decrease from below 1000 to above 0")
        return value

    @field_validator("sigmas")
    @classmethod
    def _falling_sigmas(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or not all(1 > one > later for one, later in pairwise((*value, 0.0))):
            raise ValueError(f"{list(value)} do not decrease from below 1 to above 0")
        return value

    @model_validator(mode="after")
    def _one_schedule(self) -> SecondPassRow:
        if self.timesteps is not None and (self.num_inference_steps, self.denoise_strength) != (None, None):
            raise ValueError("timesteps replace num_inference_steps and denoise_strength; leave those out")
        return self
