"""Schedules of denoising steps: lists of decreasing numbers, or text in a CSV cell."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` merged over `below`. A number of steps in `above` removes a schedule from `below`, and the reverse."""
    hidden: set[str] = set()
    if above.get("num_inference_steps") is not None:
        hidden |= {"timesteps", "sigmas"}
    if above.get("timesteps") is not None or above.get("sigmas") is not None:
        hidden.add("num_inference_steps")
    return {key: value for key, value in below.items() if key not in hidden} | dict(above)


def falling_numbers(value: object) -> tuple[float, ...] | None:
    """The numbers of a schedule, given as a list or as text in a CSV cell; None if it is not a schedule. Sigmas of 0 to
    1 may end in 0."""
    parts: list[Any] = value.strip("[] ").replace(",", " ").split() if isinstance(value, str) else _as_list(value)
    try:
        numbers = tuple(float(part) for part in parts if not isinstance(part, bool))
    except (TypeError, ValueError):
        return None
    end = 0.0 if not numbers or numbers[0] > 1 else -1.0
    falling = all(1000 >= one > next_ for one, next_ in pairwise((*numbers, end))) and (not numbers or numbers[0] > 0)
    return numbers if numbers and len(numbers) == len(parts) <= 1000 and falling else None


def _as_list(value: object) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []
