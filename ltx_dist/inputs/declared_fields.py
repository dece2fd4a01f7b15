"""Fields of pydantic models, made from settings that dataclasses of pipeline/ declare."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, Field

from ltx_dist.pipeline.settings import Setting, declared


def optional_fields(table: type[Any], only_rows: bool | None = None) -> dict[str, Any]:
    """Fields for `create_model`: the settings of a dataclass, each of them optional.

    only_rows: True for settings that only rows may have, False for those that a batch may have, too; None for both.
    """
    hints = get_type_hints(table)
    return {
        name: (hints[name] | None, Field(None, description=it.description, **_limits(it)))
        for name, it in declared(table).items()
        if only_rows in (None, it.only_rows)
    }


def _limits(setting: Setting) -> dict[str, Any]:
    limits = {name: getattr(setting, name) for name in ("ge", "gt", "le", "lt")}
    return {name: limit for name, limit in limits.items() if limit is not None}


def loose(annotation: Any) -> Any:
    """The annotation by YAML's types: `str` for a Literal of words, `list` for a tuple, `dict` for a model."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        kinds = [loose(part) for part in get_args(annotation) if part is not NoneType]
        return Union[(*kinds, None)]  # noqa: UP007 (of parts known at run time only)
    if origin is Literal:
        return str
    if origin is tuple:
        return list[get_args(annotation)[0]]  # type: ignore[misc]
    return dict[str, Any] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else annotation
