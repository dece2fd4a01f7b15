"""Declares a setting of a clip once: as a dataclass field with its meaning and limits.

`RenderRequest`, `SoundSettings` and `SecondPass` are such tables. Prompt rows, `defaults.*` of the config, the docs,
`ltx-dist fields` and hints at other programs' names are derived from them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting's description, besides its name, type and default.

    ge, gt, le, lt: bounds of a number, as in pydantic. only_rows: a batch cannot set it for all of its clips.
    other_names: what other programs call it; the error for an unknown key suggests ours.
    """

    description: str
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    only_rows: bool = False
    other_names: tuple[str, ...] = ()


def setting(
    description: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    only_rows: bool = False,
    other_names: str = "",
) -> dict[str, Setting]:
    """The `metadata` of a dataclass's field that users can set. other_names: separated by spaces."""
    return {"setting": Setting(description, ge, gt, le, lt, only_rows, tuple(other_names.split()))}


def declared(table: type[Any]) -> dict[str, Setting]:
    """The settings among the fields of a dataclass, by name, in their order."""
    return {field.name: field.metadata["setting"] for field in fields(table) if "setting" in field.metadata}
