"""Reads the request stored beside kept latents, validated like a prompt row."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.inputs.prompt_row import check_row
from ltx_dist.messages import printable, show
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.settings import declared

FIELDS = frozenset(field.name for field in fields(RenderRequest))
REQUIRED = frozenset(field.name for field in fields(RenderRequest) if field.default is MISSING)
RESOLVED = tuple(f.name for f in fields(RenderRequest) if f.name not in {"request_id", *declared(RenderRequest)})
"""Fields of a request that a row expresses differently."""

REMEDY = "not latents kept by ltx-dist; remove the file"


def kept_request(path: Path, text: str, checkpoint: Checkpoint) -> RenderRequest:
    """The request in the JSON text of `path`; its name is the file's. Raises ValueError naming file and field.

    Fields that requests did not have when it was written have their defaults.
    """
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or not REQUIRED <= told.keys() <= FIELDS:
        raise ValueError(f"{path}: is not a complete request: {REMEDY}")
    name = told.pop("request_id")
    if not isinstance(name, str) or name.replace("/", "%2F") != path.stem:
        raise ValueError(f"{path}: request_id: {show(name)} is not the file's name: {REMEDY}")
    resolved = {key: _resolved(path, key, told.pop(key)) for key in RESOLVED if key in told}
    given = {key: value for key, value in told.items() if value is not None}
    row, wrong = check_row(given | {"name": name}, checkpoint)
    if wrong:
        key, message = next(iter(wrong.items()))
        raise ValueError(f"{path}: {printable(key)}: {message}: {REMEDY}")
    nothing: dict[str, Any] = dict.fromkeys(REQUIRED - {"request_id"})
    return RenderRequest(request_id=row.pop("name"), **(nothing | row | resolved))


def _resolved(path: Path, key: str, value: Any) -> Any:
    try:
        return _adapter(key).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (key, *first["loc"]))
        raise ValueError(f"{path}: {where}: {first['msg']}: {REMEDY}") from None


@cache
def _adapter(key: str) -> TypeAdapter[Any]:
    return TypeAdapter(get_type_hints(RenderRequest)[key])
