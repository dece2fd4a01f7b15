"""The fallbacks that a worker tries, in order, when a stage runs out of device memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ltx_dist.pipeline.recipe import Component
from ltx_dist.pipeline.storage import UNTILED, DecodeTiling
from ltx_dist.worker.stage_call import Shape, StageCall

SMALLER_TILES = (DecodeTiling(512, 64), DecodeTiling(256, 32), DecodeTiling(256, 16))
"""At 704x480x121 they take 1.4, 2.5 and 4.5 times the work of decoding untiled. Smaller tiles are mostly overlap."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """One attempt at a stage. `name` appears in the clip's sidecar; it is None for the first, planned attempt.

    alone: other components leave the device. streamed: this stage's blocks pass through it one by one. float8: its
    transformer is stored in 8 bits. Tiling and float8 change the pixels; the others do not.
    """

    name: str | None = None
    alone: bool = False
    streamed: bool = False
    float8: bool = False
    tiling: DecodeTiling = UNTILED

    def changes_pixels(self, planned: DecodeTiling) -> bool:
        return self.float8 or self.tiling != planned


def fallbacks(
    components: Sequence[Component], planned: DecodeTiling, exact: bool, is_shared: bool = False
) -> list[Fallback]:
    """Every attempt at a stage with these components, the planned one first.

    exact: leave out those that would change the pixels. is_shared: several requests share the pass; then there are few
    attempts, after which each request runs by itself, which takes less memory than any other fallback.
    """
    first = Fallback(tiling=planned)
    if is_shared:
        return [first, replace(first, name="cache emptied")]
    attempts = [first, replace(first, name="cache emptied"), replace(first, name="alone", alone=True)]
    if any(component.blocks for component in components):
        streamed = replace(first, name="streamed", alone=True, streamed=True)
        attempts.append(streamed)
        if any(component.is_transformer for component in components):
            attempts.append(replace(streamed, name="streamed in float8", float8=True))
    if any(component.has_tiles for component in components):
        attempts += [
            replace(
                first, name=f"tiles of {tiling.tile_size} px and {tiling.tile_frames} frames", alone=True, tiling=tiling
            )
            for tiling in SMALLER_TILES
            if _is_smaller(tiling, planned)
        ]
    return [attempt for attempt in attempts if not (exact and attempt.changes_pixels(planned))]


def _is_smaller(tiling: DecodeTiling, planned: DecodeTiling) -> bool:
    """Whether the tiles are smaller in one dimension and not larger in the other."""
    sizes = [
        (planned.tile_size or 1 << 20, tiling.tile_size or 0),
        (planned.tile_frames or 1 << 20, tiling.tile_frames or 0),
    ]
    return tiling != planned and all(new <= old for old, new in sizes)


OFTEN = 2
"""After this many clips of a shape have needed a fallback, the next one begins with it."""


class Attempts:
    """Chooses the attempts at each stage, and remembers which succeeded for clips of the same shape.

    traits: the components by name. planned: the tiling to decode with. exact: leave out fallbacks that change pixels.
    """

    def __init__(self, traits: Mapping[str, Component], planned: DecodeTiling, exact: bool) -> None:
        self._traits, self._planned, self._exact = traits, planned, exact
        self._worked: Counter[tuple[str, Shape, str]] = Counter()

    def of(self, call: StageCall, is_short: bool) -> Sequence[Fallback]:
        """The attempts for this call, in order. is_short: the planned attempt has already run out of memory."""
        traits = [self._traits[name] for name in call.stage.components]
        attempts = fallbacks(traits, self._planned, self._exact, len(call.requests) > 1)
        needed = [self._worked[call.stage.name, call.shape, one.name or ""] >= OFTEN for one in attempts]
        first = next((number for number, often in enumerate(needed) if often and number), 0)
        return attempts[max(first, is_short) :]

    def worked(self, call: StageCall, attempt: Fallback) -> None:
        """Record that the attempt succeeded."""
        self._worked[call.stage.name, call.shape, attempt.name or ""] += 1
