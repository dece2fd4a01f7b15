"""A row that varies -> one variant per clip: its settings, the end of its name, and the values that it varies."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ltx_dist.inputs.config import DefaultsConfig
from ltx_dist.inputs.expansion import Expanded, Expander, folder_of_lists
from ltx_dist.inputs.reading_config import PromptsConfig
from ltx_dist.inputs.rows import MAX_ROWS
from ltx_dist.inputs.vary import Axis, Value, read_axes
from ltx_dist.messages import count

MAX_PICKS = 40
"""Characters that the picks of a prompt may add to a name; longer ones become a digest, and so do equal ones."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One clip of a row.

    content: the row with the values in place. suffix: `-seed3-guidance_scale5`; empty for a row that does not vary.
    values: the varied values by field, as in sidecars. of_batch: the fields that vary in all rows. template: the prompt
    as written in the row, if it stands for several.
    """

    content: dict[str, Any]
    suffix: str = ""
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    of_batch: frozenset[str] = frozenset()
    template: str | None = None


@dataclass(frozen=True, slots=True)
class Variation:
    """How all rows vary, unless a row says otherwise.

    sample: how many of the prompts that a prompt expands to are rendered; None renders all.
    """

    axes: Mapping[str, Axis]
    num_videos_per_prompt: int | None = None
    expander: Expander | None = None
    sample: int | None = None

    def of(self, row: dict[str, Any], default_seed: int) -> tuple[list[Variant], list[str]]:
        """The variants of a row, and the errors in how it varies. default_seed: for a row without a seed.

        A field that varies in all rows also varies in rows that set it; for the fields it names, a row's own `vary`
        replaces the batch's.
        """
        own, problems = read_axes(row["vary"]) if isinstance(row.get("vary"), dict) else ({}, [])
        problems = [f"vary: {problem}" for problem in problems]
        problems += [f"{name}: is given and varied; leave one of the two out" for name in own if name in row]
        seed = row["seed"] if type(row.get("seed")) is int else default_seed
        try:
            prompts = self._prompts(row.get("prompt"), seed)
        except ValueError as error:
            prompts = []
            problems.append(f"prompt: {error}")
        axes = {**self.axes, **own}
        repeats = self._seeds(row, own, seed)
        if repeats is not None and "num_videos_per_prompt" in row and "seed" in own:
            problems.append("num_videos_per_prompt: vary has the seeds; leave one of the two out")
        if repeats is not None:
            axes["seed"] = repeats
        sizes = [len(prompts), *(len(axis.values) for axis in axes.values())]
        if math.prod(sizes) > MAX_ROWS:
            problems.append(f"vary: {_product(sizes)} clips; at most {MAX_ROWS} are allowed")
        if problems:
            return [], problems
        of_batch = frozenset(self.axes) - frozenset(own) - ({"seed"} if repeats is not None else frozenset())
        return list(_variants(row, prompts, list(axes.values()), of_batch)), []

    def _prompts(self, prompt: object, seed: int) -> list[Expanded]:
        if self.expander is None or not isinstance(prompt, str):
            return [Expanded("", ())]
        return self.expander.expand(prompt, self.sample, seed)

    def _seeds(self, row: Mapping[str, Any], own: Mapping[str, Axis], seed: int) -> Axis | None:
        """The seeds of `num_videos_per_prompt`, the row's or else the batch's; None if the row's `vary` has seeds."""
        number = row.get("num_videos_per_prompt", None if "seed" in own else self.num_videos_per_prompt)
        if type(number) is not int or not 1 <= number <= MAX_ROWS:
            return None  # an invalid one is reported where all fields are checked
        return Axis("seed", tuple(Value(str(one), one) for one in range(seed, seed + number)))


def variation_of(defaults: DefaultsConfig, reading: PromptsConfig, folder: Path | str) -> tuple[Variation, list[str]]:
    """How the config varies all rows, and the errors in `defaults.vary`.

    folder: the prompt file's, as for `folder_of_lists`.
    """
    axes, problems = read_axes(defaults.vary or {})
    if "seed" in axes and defaults.num_videos_per_prompt is not None:
        problems.append("seed: defaults.num_videos_per_prompt sets the seeds, too; leave one of the two out")
    expander = None if reading.expand == "off" else Expander(folder_of_lists(reading, folder))
    sample = reading.expand if isinstance(reading.expand, int) else None
    return Variation(axes, defaults.num_videos_per_prompt, expander, sample), problems


def _variants(
    row: dict[str, Any], prompts: Sequence[Expanded], axes: Sequence[Axis], of_batch: frozenset[str]
) -> Iterator[Variant]:
    labels = Counter(prompt.label.casefold() for prompt in prompts)
    for prompt in prompts:
        picks = f"-{prompt.label}" if prompt.picks else ""
        if labels[prompt.label.casefold()] > 1 and prompt.picks:  # files may have names in which case does not count
            picks = f"-{_digest(prompt.text)}"
        elif len(picks) > MAX_PICKS:
            picks = f"-{_digest(picks)}"
        text = {"prompt": prompt.text} if prompt.picks else {}
        for values in itertools.product(*(axis.values for axis in axes)):
            chosen = {axis.field: value for axis, value in zip(axes, values, strict=True)}
            yield Variant(
                row | text | {name: value.value for name, value in chosen.items()},
                picks + "".join(f"-{name}{value.label}" for name, value in chosen.items()),
                _numbered(prompt.picks) | {name: value.value for name, value in chosen.items()},
                of_batch,
                row["prompt"] if prompt.picks else None,
            )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _numbered(picks: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The picks by the part of the prompt that they replaced; parts that occur twice are numbered."""
    found: dict[str, str] = {}
    for part, text in picks:
        name, number = part, 1
        while name in found:
            number += 1
            name = f"{part} {number}"
        found[name] = text
    return found


def _product(sizes: Iterable[int]) -> str:
    factors = [str(size) for size in sizes if size != 1]
    return f"{' x '.join(factors)} = {math.prod(map(int, factors))}"


def summary(names: Sequence[str], notes: Mapping[str, Mapping[str, Any]]) -> str | None:
    """`12 prompts x 5 values of seed = 60 clips`, from the notes of clips; None if nothing varies.

    If rows vary in different ways, there is no product: `12 prompts in variations = 44 clips`.
    """
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for name in names:
        variation = notes.get(name, {}).get("variation", {"of": name, "values": {}})
        rows.setdefault(variation["of"], []).append(variation["values"])
    if not any(any(values) for values in rows.values()):
        return None
    prompts, clips = count(len(rows), "prompt"), count(len(names), "clip")
    sizes, *others = map(_sizes, rows.values())
    if any(other != sizes for other in others) or len(rows) * math.prod(sizes.values()) != len(names):
        return f"{prompts} in variations = {clips}"
    return (
        " x ".join([prompts, *(f"{count(size, 'value')} of {field}" for field, size in sizes.items())]) + f" = {clips}"
    )


def _sizes(values: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The number of values per field in the clips of a row."""
    fields = dict.fromkeys(field for one in values for field in one)
    return {field: len({repr(one.get(field)) for one in values}) for field in fields}
