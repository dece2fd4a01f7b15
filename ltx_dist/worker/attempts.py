"""The attempts at a stage, remembering which fallback earlier clips of the same shape needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ltx_dist.pipeline.component import Component
from ltx_dist.pipeline.storage import DecodeTiling
from ltx_dist.worker.oom_fallbacks import Fallback, fallbacks
from ltx_dist.worker.stage_call import Shape, StageCall

OFTEN = 2
"""After this many clips of a shape needed a fallback, the next one begins with it."""


class Attempts:
    """traits: of the components, by name. planned: the tiles to decode in. exact: none that changes pixels."""

    def __init__(self, traits: Mapping[str, Component], planned: DecodeTiling, exact: bool) -> None:
        self._traits, self._planned, self._exact = traits, planned, exact
        self._worked: Counter[tuple[str, Shape, str]] = Counter()

    def of(self, call: StageCall, is_short: bool) -> Sequence[Fallback]:
        """The attempts, in order. is_short: the planned attempt has already failed."""
        traits = [self._traits[name] for name in call.stage.components]
        attempts = fallbacks(traits, self._planned, self._exact, len(call.requests) > 1)
        needed = [self._worked[call.stage.name, call.shape, one.name or ""] >= OFTEN for one in attempts]
        first = next((number for number, often in enumerate(needed) if often and number), 0)
        return attempts[max(first, is_short) :]

    def worked(self, call: StageCall, attempt: Fallback) -> None:
        self._worked[call.stage.name, call.shape, attempt.name or ""] += 1
