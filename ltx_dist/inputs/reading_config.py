"""PromptsConfig: the section `prompts` of a config, on how prompt files are read."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class PromptsConfig(BaseModel):
    """How prompt files are read."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    expand: Literal["off", "all"] | int = Field(
        "off",
        description="Render the prompts that `{red|blue}` and `__colour__` stand for: `all` of them, or this number "
        "per row, drawn with the row's seed. `off`: such parts are text, with a warning.",
    )
    wildcards: str | None = Field(
        None,
        min_length=1,
        description="Folder of the lists that `__colour__` stands for: `colour.txt`, with one alternative per line. If "
        "not set, the prompt file's folder.",
    )

    @field_validator("expand", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: object) -> object:
        """YAML 1.1 reads `off` as false."""
        return "off" if value is False else value

    @field_validator("expand")
    @classmethod
    def _at_least_one(cls, value: object) -> object:
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{value} is too small; it must be off, all, or at least 1")
        return value
