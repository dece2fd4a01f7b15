"""Reads text, YAML and JSON strictly. Errors are ValueErrors with their place."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from ltx_dist.messages import show

MAX_JSON_BYTES = 64 << 20

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""But for tabs and ends of lines."""

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def mistaken_for(head: bytes) -> str | None:
    """What a downloaded file really is, with the remedy, by its first bytes; None if they do not tell.

    64 bytes are enough.
    """
    start = head.lstrip()[:64].lower()
    if not head:
        return "empty; download it again"
    if head.startswith(_LFS_POINTER):
        return (
            "a git-lfs pointer, not the file itself; run `git lfs pull` in its folder, or download it with "
            "`hf download`"
        )
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page, not the file itself; download it with `hf download`, or from /resolve/ instead of /blob/"
    return None


def read_text(path: Path, max_bytes: int) -> str:
    """The text of a UTF-8 file (BOM dropped) of at most `max_bytes`; ValueError names what is wrong and where."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}; check the path") from None
    return decode_text(data, str(path), max_bytes)


def decode_text(data: bytes, label: str, max_bytes: int) -> str:
    """`data` as UTF-8 without BOM; ValueError if it is longer than `max_bytes` or not UTF-8.

    Where lines end in a carriage return alone, as on old Macs, they end in a line feed in the text.
    """
    if len(data) > max_bytes:
        raise ValueError(f"{label}: larger than {max_bytes >> 20} MiB; split the file")
    if data and (mistake := mistaken_for(data[:64])):
        raise ValueError(f"{label}: {mistake}")
    if wide := _wide_encoding(data):
        raise ValueError(f"{label}: {wide}, not UTF-8; save the file as UTF-8")
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
        return text if "\n" in text else text.replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{label}:{line}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None


def _wide_encoding(data: bytes) -> str | None:
    """UTF-16 or UTF-32, by its mark or by how its zeros lie; None for all else."""
    start = data[: 64 << 10]
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32" if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)) else "UTF-16"
    if 0 not in start:
        return None
    for encoding in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
        unit = 4 if "32" in encoding else 2
        try:
            text = start[: len(start) // unit * unit].decode(encoding)
        except UnicodeDecodeError:
            continue
        plain = sum(letter.isascii() for letter in text)
        if len(data) % unit == 0 and ("\n" in text or 2 * plain > len(text)) and not _CONTROL.search(text):
            return f"{encoding.upper()[:6]} without a byte order mark"
    return None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file that was downloaded with a model, where diffusers and transformers can read it, too.

    They take UTF-8 alone, without a byte order mark.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"{path}: larger than {MAX_JSON_BYTES >> 20} MiB, so no configuration")
        data = path.read_bytes()
        if mistake := mistaken_for(data[:64]):
            raise ValueError(f"{path}: {mistake}")
        if data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise ValueError(
                f"{path}: begins with a byte order mark; save it as UTF-8 without BOM, or download it again"
            )
        document = json.loads(data.decode("utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: {'missing' if not path.exists() else error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}); download it again") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path}: not a JSON object; download it again")
    return document


class StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses aliases (they can blow a small file up) and a key given twice (one would be lost)."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise ComposerError(None, None, "aliases (*name) are not allowed; write the value out", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        # JSON is YAML, and writes an emoji as two escapes; PyYAML leaves the halves apart. One half is an error.
        return value.encode("utf-16", "surrogatepass").decode("utf-16") if isinstance(value, str) else value

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, LookupError, AttributeError):  # e.g. the date 2026-99-99, `!!bool x`
            message = f"{show(node.value)} is not a valid value; put it in quotes"
            raise ConstructorError(None, None, message, node.start_mark) from None


_AMBIGUOUS = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp")}
StrictLoader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag not in _AMBIGUOUS]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# YAML 1.1, which PyYAML follows, reads 010 as 8, 1:30 as 90 and 2024-01-01 as a date, and 1e-3 as text. Here the first
# three are text, as in YAML 1.2 or nearly, so that they are right as prompts and names and refused as numbers.
StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+|0b[01]+)$"),
    list("-+0123456789"),
)
StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"([-+]?((0|[1-9][0-9_]*)\.[0-9_]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?(0|[1-9][0-9]*)[eE][-+]?[0-9]+"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)

_REMEDIES = {
    "mapping values are not allowed": "put text with a colon in quotes",
    "found character '\\t'": "indent with spaces, not tabs",
    "cannot start any token": "put text that begins with this character in quotes",
    "could not determine a constructor": "put text that begins with ! in quotes",
    "but found '<scalar>'": "put text that begins with a bracket or a quote as a whole in quotes",
    "found another document": "write one document, without --- between its parts",
}
"""By what PyYAML says, in words of its own grammar."""


def _remedy(reason: str) -> str:
    return next((f"; {remedy}" for words, remedy in _REMEDIES.items() if words in reason), "")


@contextmanager
def yaml_errors(label: str, text: str, with_line: bool = True) -> Iterator[None]:
    """Turn whatever YAML raises inside into a ValueError that names `label` and the line."""
    try:
        yield
    except RecursionError:
        raise ValueError(f"{label}: nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else text.count("\n", 0, getattr(error, "position", 0)) + 1
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
        where = f"{label}:{line}" if with_line else label
        raise ValueError(f"{where}: not valid YAML: {reason}{_remedy(reason)}") from None
