"""PromptsConfig: the section `prompts` of a config, on how prompt files are read."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ltx_dist.inputs.explain import did_you_mean
from ltx_dist.inputs.prompt_row import Row
from ltx_dist.messages import show


class PromptsConfig(BaseModel):
    """How prompt files are read."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    columns: dict[str, str] = Field(
        default={},
        description="Columns and keys to read as fields of other names: `{caption: prompt}`; `--column caption=prompt` "
        "on the command line.",
    )
    keep_columns: list[str] = Field(
        default=[],
        description="Columns and keys that are not fields, to copy into the sidecar under `meta`; `--keep-columns "
        "id,category` on the command line. Those named `meta.*` are copied in any case.",
    )
    expand: Literal["off", "all"] | int = Field(
        default="off",
        description="Render the prompts that `{red|blue}` and `__colour__` stand for: `all` of them, or this number "
        "per row, drawn with the row's seed. `off`: use them as plain text, with a warning.",
    )
    wildcards: str | None = Field(
        default=None,
        min_length=1,
        description="Folder of the word lists for `__colour__`: `colour.txt`, with one alternative per line. If "
        "not set, the prompt file's folder.",
    )

    @field_validator("columns")
    @classmethod
    def _hold_fields(cls, value: dict[str, str]) -> dict[str, str]:
        for column, field in value.items():
            if field not in Row.model_fields and not field.startswith("meta."):
                raise ValueError(f"{column}={field}: {field} is not a field{did_you_mean(field, Row.model_fields)}")
        return value

    @field_validator("keep_columns")
    @classmethod
    def _are_no_fields(cls, value: list[str]) -> list[str]:
        if fields := [column for column in value if column in Row.model_fields or not column]:
            raise ValueError(f"{show(fields[0])} is a field, or empty; name columns that are neither")
        return value

    @field_validator("expand", mode="before")
    @classmethod
    def _off_all_or_a_number(cls, value: object) -> object:
        if value is False:  # YAML 1.1 reads `off` as false
            return "off"
        if value not in ("off", "all") and (type(value) is not int or value < 1):
            raise ValueError(f"{show(value)} is not off, all, or a whole number of at least 1")
        return value
