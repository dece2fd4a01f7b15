"""Names of clips: which are valid file names everywhere, and the template `output.name` that makes them."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from ltx_dist.inputs.explain import did_you_mean
from ltx_dist.messages import Mistakes, show
from ltx_dist.pipeline.request import RenderRequest

MAX_PART_BYTES, MAX_BYTES = 200, 230
"""Maximum bytes per part, and in all: file systems allow 255 bytes, Windows 260 characters including the output's path,
and both must leave room for our endings."""

MAX_NAME = 100
"""Maximum characters of a name made from a row's name and its varied values."""

OWN_FILES = ("run", "index", "trace")
"""run.json, index.html and trace.json lie beside the clips."""

ENDINGS = (".mp4", ".json", ".jsonl", ".webp", ".html")

FIELDS = frozenset(
    {"index", "name"}
    | {one.name for one in fields(RenderRequest) if str(one.type) in ("str", "int", "float", "float | None")}
    - {"request_id"}
)
"""Names that a template may have in braces, besides `meta.KEY`: a request's strings and numbers; `index`, the clip's
position in the batch, from 1; `name`, the row's or the one that it would get without a template."""

_PART = re.compile(r"[^\W_][\w.-]*")
"""Letters and digits of any script, and `.`, `_` and `-` from the second character on."""

_WINDOWS_NAMES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def usable_name(name: str) -> str:
    """The name in composed Unicode form (NFC). Raises ValueError if it is not a valid file name in every output folder.

    `coast/storm` is the clip `storm` in a folder `coast`.
    """
    name = unicodedata.normalize("NFC", name)
    parts = name.split("/")
    for part in parts:
        _check_part(part, name)
    if parts[-1].casefold() in OWN_FILES:
        raise ValueError(f"{show(name)} is the name of a file written beside the clips; choose another")
    if (size := len(name.encode())) > MAX_BYTES:
        raise ValueError(f"{show(name)} is {size} bytes long; at most {MAX_BYTES} are allowed")
    return name


def _check_part(part: str, name: str) -> None:
    if not _PART.fullmatch(part):
        raise ValueError(
            f"{show(name)}: use letters, digits, . _ - and begin with a letter or digit, also after a / (which makes a "
            "folder)"
        )
    if part.casefold().endswith(ENDINGS):
        raise ValueError(f"{show(name)}: leave the ending out; it is added")
    if part.endswith(".") or part.casefold().partition(".")[0] in _WINDOWS_NAMES:
        raise ValueError(f"{show(name)} cannot be a file on Windows; choose another")
    if (size := len(part.encode())) > MAX_PART_BYTES:
        raise ValueError(f"{show(name)} is {size} bytes long; at most {MAX_PART_BYTES} are allowed")


def check_template(template: str) -> str:
    """The template. Raises ValueError for an unknown field, or for text that no name may contain."""
    whole = ""
    for literal, field, _ in _parts(template):
        if field is not None and field not in FIELDS and not field.startswith("meta."):
            raise ValueError(f"{{{field}}}: unknown field{did_you_mean(field, [*sorted(FIELDS), 'meta.KEY'])}")
        whole += literal + ("x" if field is not None else "")
    usable_name(whole)
    return template


Notes = dict[str, dict[str, Any]]
"""Notes for the sidecars of single clips, by clip name; `meta` has the row's values that are not settings."""


def renamed(requests: Sequence[RenderRequest], notes: Notes, template: str) -> tuple[list[RenderRequest], Notes]:
    """The same requests with the names from the template.

    Characters that file names may not contain become `-`. Raises ValueError with one line per request whose name is
    taken, not usable, or lacks a value.
    """
    names: dict[str, str] = {}
    taken: dict[str, tuple[int, str]] = {}
    problems: list[str] = []
    for index, request in enumerate(requests, 1):
        old = request.request_id
        values = {field: getattr(request, field, None) for field in FIELDS} | {"index": index, "name": old}
        try:
            name = usable_name(_filled(template, values, notes.get(old, {}).get("meta", {})))
            if (other := taken.setdefault(name.casefold(), (index, old)))[1] != old:
                raise ValueError(
                    f"{show(name)} is the name of clip {other[0]} ({other[1]}) too; add {{index}} or {{seed}}"
                )
            names[old] = name
        except ValueError as error:
            problems.append(f"output.name: clip {index} ({old}): {error}")
    if problems:
        raise Mistakes(problems)
    return (
        [replace(request, request_id=names[request.request_id]) for request in requests],
        {names[old]: note for old, note in notes.items()},
    )


def slug(text: str) -> str:
    """The text as part of a file name: letters and digits of any script, `.` and `_`; `-` for everything else."""
    return re.sub(r"[^\w.]+", "-", unicodedata.normalize("NFC", text)).strip("-._")


def _filled(template: str, values: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    name = ""
    for literal, field, form in _parts(template):
        name += literal
        if field is None:
            continue
        value = meta.get(field.removeprefix("meta.")) if field.startswith("meta.") else values[field]
        if value is None:
            raise ValueError(f"{{{field}}} is not set; set it in the row, or leave it out of the template")
        try:
            text = format(value, form or ("g" if isinstance(value, float) else ""))
        except (ValueError, TypeError):
            raise ValueError(f"{{{field}:{form}}}: {show(value)} cannot be written in this format") from None
        kept = text if field == "name" else slug(text)
        if not kept:
            raise ValueError(f"{{{field}}}: no character of {show(value)} may be in a file name; use {{index}}")
        name += kept
    return name


def _parts(template: str) -> Iterator[tuple[str, str | None, str]]:
    """The parts as (text, field, format). Raises ValueError for unpaired braces."""
    try:
        parts = [*string.Formatter().parse(template)]
    except ValueError as error:
        raise ValueError(f"{show(template)}: {error}; write fields as {{index}} or {{prompt:.40}}") from None
    for literal, field, form, conversion in parts:
        if any(int(number) > MAX_BYTES for number in re.findall(r"\d+", form or "")):
            raise ValueError(
                f"{show(template)}: {show(form)} asks for more than the {MAX_BYTES} bytes that a name may have"
            )
        if conversion or (field is not None and not re.fullmatch(r"\w+(\.[^\[\]]+)?", field)) or "{" in (form or ""):
            raise ValueError(f"{show(template)}: write fields as {{index}}, {{prompt:.40}} or {{meta.key}}")
        yield literal, field, form or ""


def default_name(position: int, prompt: str) -> str:
    """`001-a-red-circle`: the position, counted from 1, and the ASCII characters of the prompt's first words.

    If the prompt has no ASCII letters, its words stay in their own script.
    """
    ascii_only = unicodedata.normalize("NFKD", prompt[:400]).encode("ascii", "ignore").decode().lower()
    plain = re.sub(r"[^a-z0-9]+", "-", ascii_only).strip("-")[:40].rstrip("-")
    words = plain or slug(prompt[:40])
    return f"{position + 1:03d}-{words}".rstrip("-")
