"""Fields of prompt rows and of `defaults.*`, made from the tables of pipeline/: a setting is declared there, once."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from ltx_dist.inputs.declared_fields import loose, optional_fields
from ltx_dist.inputs.media_rows import Preparation, SecondPassRow
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.settings import declared
from ltx_dist.pipeline.sound import SoundSettings

SOUND_FIELDS = tuple(declared(SoundSettings))
"""Fields that only rows of LTX-2 may have."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


_OfRequests: Any = create_model(
    "_OfRequests",
    __base__=_Strict,
    **(optional_fields(RenderRequest, only_rows=False) | optional_fields(SoundSettings)),
)


class BatchSettings(Preparation, _OfRequests):
    """Fields that a row may set, or the config for rows that do not."""

    recipe: Literal["one_pass", "two_passes"] | None = Field(
        None,
        description="`two_passes`: denoise at a smaller size, double it with `model.upscaler`, and denoise again; if "
        "not set and there is an upscaler, as the version was published",
    )
    second_pass: SecondPassRow | None = Field(
        None,
        description="settings of the second pass, which replace the preset's: `downscale_factor`, "
        + ", ".join(f"`{name}`" for name in SecondPassRow.model_fields if name != "downscale_factor"),
    )
    num_videos_per_prompt: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="number of clips to render from a row, with the seeds `seed`, `seed` + 1, ...; their names end in "
        "the seed: `storm-seed7`, `storm-seed8`",
    )
    vary: dict[Any, Any] | None = Field(
        None,
        description="fields to render with every combination of values: `{seed: 0-4, guidance_scale: [1, 3]}`",
    )


RowSettings = create_model("RowSettings", __base__=BatchSettings, **optional_fields(RenderRequest, only_rows=True))
"""The same, and fields that only a row may set."""


def defaults_fields() -> dict[str, Any]:
    """Fields of `defaults.*`: what a batch may set, typed but without limits.

    Limits are checked together with the rows', because some depend on the checkpoint.
    """
    return {name: (loose(field.annotation), None) for name, field in BatchSettings.model_fields.items()}
