"""Expands `{red|blue}` and `__colour__` in prompts, if enabled."""

from __future__ import annotations

import math
import os
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ltx_dist.inputs.reading_config import PromptsConfig
from ltx_dist.inputs.rows import MAX_ROWS
from ltx_dist.inputs.vary import label_of
from ltx_dist.messages import show
from ltx_dist.strict_files import read_text
from ltx_dist.user_cache import from_home

WILDCARD = re.compile(r"(?<!\w)__([A-Za-z0-9][\w/*.-]*?)__(?!\w)")
"""A wildcard: the name of a file in which every line is an alternative."""

MAX_LIST_BYTES = 16 << 20

_MAX_DEPTH = 20
"""Maximum depth of nested alternatives and lists."""

_MORE_THAN_A_CHOICE = re.compile(r"\s*(\d+(-\d+)?\$\$|\d+(\.\d+)?::)")
"""The number of picks (`2$$`) or a weight (`0.5::`), both of which are refused."""


@dataclass(frozen=True, slots=True)
class Expanded:
    """One of the prompts. picks: pairs of a part that was replaced, as written, and its replacement."""

    text: str
    picks: tuple[tuple[str, str], ...]

    @property
    def label(self) -> str:
        """`red-small`: the picks in the name of a clip."""
        return "-".join(label_of(text.strip()) for _, text in self.picks)


def folder_of_lists(reading: PromptsConfig, folder: Path | str) -> Path:
    """The folder of the wildcards' files: `prompts.wildcards`, or else the prompt file's folder.

    For prompts from a URL, it is the current folder. Raises ValueError for the home folder of an unknown user.
    """
    if reading.wildcards is not None:
        return from_home(reading.wildcards, "prompts.wildcards")
    return Path() if isinstance(folder, str) else folder


def used_lists(texts: Iterable[str], folder: Path) -> dict[str, Path]:
    """The files of the wildcards in these texts, and in the files themselves, by the wildcard's name.

    Wildcards without a file are left out.
    """
    found: dict[str, Path] = {}
    left = list(texts)
    while left:
        for name in WILDCARD.findall(left.pop()):
            path = _file_of(name, folder)
            if name not in found and path is not None and os.path.isfile(path):
                found[name] = path
                left.append(read_text(path, MAX_LIST_BYTES))
    return found


def _file_of(name: str, folder: Path) -> Path | None:
    """The file of a wildcard; None for a name that could stand for several files, or for one elsewhere."""
    return None if "*" in name or ".." in Path(name).parts else folder / f"{name}.txt"


_Part = str | tuple[str, tuple[str, ...]]
"""Plain text, or a part as written with its alternatives."""


class Expander:
    """Expands prompts. folder: where the wildcards' files are; each is read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lists: dict[str, tuple[str, ...]] = {}

    def expand(self, prompt: str, sample: int | None, seed: int) -> list[Expanded]:
        """All prompts that `prompt` stands for, or `sample` of them, drawn with `seed`; plain text stands for itself.

        Raises ValueError for more than MAX_ROWS, for a list that cannot be read, and for weights and numbers of picks.
        """
        parts = list(self._parts(prompt, 0))
        sizes = [len(part[1]) for part in parts if isinstance(part, tuple)]
        total = math.prod(sizes)
        if sample is None and total > MAX_ROWS:
            raise ValueError(
                f"stands for {total} prompts; at most {MAX_ROWS} are allowed: set prompts.expand to a number"
            )
        if sample is None or sample >= total:
            return [_picked(parts, sizes, index) for index in range(total)]
        drawn = random.Random(seed).sample(range(min(total, 2**62)), sample)
        return [_picked(parts, sizes, index) for index in sorted(drawn)]

    def _parts(self, text: str, depth: int) -> Iterator[_Part]:
        if depth > _MAX_DEPTH:
            raise ValueError(f"alternatives are nested more than {_MAX_DEPTH} deep; does a list name itself?")
        plain = at = 0
        while at < len(text):
            found = self._choice(text, at, depth) or self._wildcard(text, at, depth)
            if found is None:
                at += 1
                continue
            end, texts = found
            if plain < at:
                yield text[plain:at]
            yield text[at:end], texts
            plain = at = end
        if plain < len(text):
            yield text[plain:]

    def _choice(self, text: str, at: int, depth: int) -> tuple[int, tuple[str, ...]] | None:
        """The end of the `{a|b}` that begins at `at`, and its alternatives; None for other text, such as `{a}`."""
        bounds = _alternatives(text, at) if text[at] == "{" else []
        if len(bounds) < 2:
            return None
        written = [text[begin:end] for begin, end in bounds]
        if any(_MORE_THAN_A_CHOICE.match(one) for one in written):
            end = bounds[-1][1] + 1
            raise ValueError(
                f"{show(text[at:end])}: weights (::) and multiple picks ($$) are not supported; write {{a|b}}"
            )
        return bounds[-1][1] + 1, self._all_texts(written, depth)

    def _wildcard(self, text: str, at: int, depth: int) -> tuple[int, tuple[str, ...]] | None:
        match = WILDCARD.match(text, at) if text.startswith("__", at) else None
        return (match.end(), self._list(match[1], depth)) if match else None

    def _list(self, name: str, depth: int) -> tuple[str, ...]:
        if name not in self._lists:
            path = _file_of(name, self._folder)
            if path is None:
                raise ValueError(f"__{name}__: name one file below {self._folder}, without *")
            if not os.path.isfile(path):  # unlike Path, it takes a name that is too long for one of no file
                raise ValueError(f"__{name}__: {path} is missing; prompts.wildcards names the folder of such lists")
            lines = [line.strip() for line in read_text(path, MAX_LIST_BYTES).split("\n")]
            written = [line for line in lines if line and not line.startswith("#")]
            if not written:
                raise ValueError(f"__{name}__: {path} has no lines; write one alternative per line")
            self._lists[name] = self._all_texts(written, depth)
        return self._lists[name]

    def _all_texts(self, written: list[str], depth: int) -> tuple[str, ...]:
        """The texts that alternatives expand to, each once; they may be nested."""
        texts: dict[str, None] = {}
        for one in written:
            parts = list(self._parts(one, depth + 1))
            sizes = [len(part[1]) for part in parts if isinstance(part, tuple)]
            if len(texts) + math.prod(sizes) > MAX_ROWS:
                raise ValueError(f"has more than {MAX_ROWS} alternatives in one place; write fewer")
            texts |= dict.fromkeys(_picked(parts, sizes, index).text for index in range(math.prod(sizes)))
        return tuple(texts)


def _alternatives(text: str, at: int) -> list[tuple[int, int]]:
    """Start and end of each alternative in the braces that open at `at`; none if they do not close."""
    bounds: list[tuple[int, int]] = []
    begin, depth = at + 1, 0
    for index in range(at, len(text)):
        if text[index] == "{":
            depth += 1
        elif text[index] == "}":
            depth -= 1
        if (text[index] == "|" and depth == 1) or depth == 0:
            bounds.append((begin, index))
            begin = index + 1
        if depth == 0:
            return bounds
    return []


def _picked(parts: list[_Part], sizes: list[int], index: int) -> Expanded:
    """The combination with this index; the last part varies fastest."""
    chosen: list[int] = []
    for size in reversed(sizes):
        index, pick = divmod(index, size)
        chosen.append(pick)
    text, picks = "", list[tuple[str, str]]()
    for part in parts:
        if isinstance(part, tuple):
            pick = part[1][chosen.pop()]
            picks.append((part[0], pick))
            text += pick
        else:
            text += part
    return Expanded(text, tuple(picks))
