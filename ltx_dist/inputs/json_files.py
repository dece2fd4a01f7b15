"""Prompts as JSON: one object per line, or a list in one document, with the line of each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ltx_dist.inputs.plain_text import json_kind
from ltx_dist.inputs.rows import Item, Problem
from ltx_dist.messages import show

_SPACE = re.compile(r"[ \t\r\n]*")


def read_jsonl(text: str) -> Iterator[Item | Problem]:
    """The objects of a JSON Lines text, and the errors of lines that are none."""
    if json_kind(text) == ".json" and ("\n" in text.strip() or text.lstrip().startswith("[")):
        yield Problem(1, "one JSON document, not one object per line; name the file .json")
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            content = _DECODER.decode(line)
        except json.JSONDecodeError as error:
            yield Problem(number, f"not JSON: {error.msg} at column {error.colno}; write one object per line")
        except (ValueError, RecursionError) as error:
            yield Problem(number, f"not usable JSON: {error}")
        else:
            if isinstance(content, dict):
                yield Item(number, content)
            else:
                yield Problem(number, f"{show(content)} is not an object; write one object per line")


def read_json_list(text: str) -> Iterator[Item | Problem]:
    """The strings and objects of a JSON list, of a list under the key `prompts`, or of objects one after another."""
    try:
        yield from _Document(text).items()
    except json.JSONDecodeError as error:
        yield Problem(error.lineno, f"not JSON: {error.msg} at column {error.colno}; write a list of objects")
    except _UsableError as error:
        yield Problem(error.line, str(error))


class _UsableError(Exception):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class _Document:
    """Reads value after value, and counts lines on the way."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._counted, self._line = text, 0, 0, 1

    def items(self) -> Iterator[Item | Problem]:
        if self._next() == "[":
            yield from self._list()
        elif self._holds_a_list_of_prompts():
            yield from self._list()
            self._expect("}")
        else:
            while self._next():
                line, value = self._here(), self._value()
                if not isinstance(value, dict):
                    raise _UsableError(line, f"{show(value)} is not an object; write a list of objects")
                yield Item(line, value)
            return
        if self._next():
            raise json.JSONDecodeError("Extra data", self._text, self._at)

    def _list(self) -> Iterator[Item]:
        self._expect("[")
        if self._next() == "]":
            self._at += 1
            return
        while True:
            self._next()
            line = self._here()
            yield Item(line, self._value())
            if self._next() == "]":
                self._at += 1
                return
            self._expect(",")

    def _holds_a_list_of_prompts(self) -> bool:
        """Whether the text begins with {"prompts": [, so that the list is next."""
        if match := re.compile(r'\{\s*"prompts"\s*:\s*(?=\[)').match(self._text, self._at):
            self._at = match.end()
        return bool(match)

    def _value(self) -> Any:
        line = self._here()
        try:
            value, self._at = _DECODER.raw_decode(self._text, self._at)
        except json.JSONDecodeError:
            raise
        except (ValueError, RecursionError) as error:
            raise _UsableError(line, f"not usable JSON: {error}") from None
        return value

    def _next(self) -> str:
        """The next character that is not white space; empty at the end."""
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._text[self._at : self._at + 1]

    def _expect(self, character: str) -> None:
        if self._next() != character:
            raise json.JSONDecodeError(f"Expecting {character!r}", self._text, self._at)
        self._at += 1

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise ValueError("a key is given twice")
    return mapping


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys)
