"""A request as a file of the output folder tells it, believed no more than a row of a prompt file."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.inputs.prompt_row import check_row
from ltx_dist.messages import printable, show
from ltx_dist.pipeline.request import RenderRequest

FIELDS = frozenset(field.name for field in fields(RenderRequest))
REMEDY = "not latents as ltx-dist keeps them; remove the file"


def kept_request(path: Path, text: str, checkpoint: Checkpoint) -> RenderRequest:
    """The request in the JSON that `path` tells; its name is the file's. Raises ValueError naming file and field."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or told.keys() != FIELDS:
        raise ValueError(f"{path}: does not tell a whole request: {REMEDY}")
    name = told.pop("request_id")
    if name != path.stem:
        raise ValueError(f"{path}: request_id: {show(name)} is not the file's name: {REMEDY}")
    given = {key: value for key, value in told.items() if value is not None}
    row, wrong = check_row(given | {"name": name}, checkpoint)
    if wrong:
        key, message = next(iter(wrong.items()))
        raise ValueError(f"{path}: {printable(key)}: {message}: {REMEDY}")
    return RenderRequest(request_id=row.pop("name"), **(dict.fromkeys(FIELDS - {"request_id"}) | row))
