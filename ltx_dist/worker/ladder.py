"""What a worker tries, in order, when a stage finds no memory on its device. A list and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ltx_dist.pipeline.stages import Stage
from ltx_dist.pipeline.storage import UNTILED, DecodeTiling

TILE_RUNGS = (DecodeTiling(512, 64), DecodeTiling(256, 32), DecodeTiling(256, 16))
"""Decode work of 704x480x121 over that of one piece: 1.4, 2.5, 4.5. Smaller pieces are mostly overlap."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One attempt of a stage. `name` stands in the clip's sidecar; None is the first attempt, as it was planned.

    alone: other components leave the device. streamed: this one's blocks pass through it one by one. float8: it is
    stored in 8 bits. Tiling and float8 change the pixels; the others do not.
    """

    name: str | None = None
    alone: bool = False
    streamed: bool = False
    float8: bool = False
    tiling: DecodeTiling = UNTILED

    def changes_pixels(self, planned: DecodeTiling) -> bool:
        return self.float8 or self.tiling != planned


def gave_other_pixels(name: str) -> bool:
    """Whether the rung of this name is one of those that do."""
    return name.endswith("float8") or name.startswith("tiles of")


def rungs(stage: Stage, planned: DecodeTiling, exact: bool, is_shared: bool = False) -> list[Rung]:
    """Every attempt, the first as planned. `exact` leaves out those that would give other pixels.

    A shared pass has few: after it each of its requests is run by itself, which takes less memory than any other rung.
    """
    first = Rung(tiling=planned)
    if is_shared:
        return [first, replace(first, name="cache emptied")]
    ladder = [first, replace(first, name="cache emptied"), replace(first, name="alone", alone=True)]
    if stage is not Stage.DECODE:
        ladder.append(replace(first, name="streamed", alone=True, streamed=True))
    if stage is Stage.DENOISE:
        ladder.append(replace(first, name="streamed in float8", alone=True, streamed=True, float8=True))
    if stage is Stage.DECODE:
        ladder += [
            replace(
                first, name=f"tiles of {tiling.tile_size} px and {tiling.tile_frames} frames", alone=True, tiling=tiling
            )
            for tiling in TILE_RUNGS
            if _is_smaller(tiling, planned)
        ]
    return [rung for rung in ladder if not (exact and rung.changes_pixels(planned))]


def _is_smaller(tiling: DecodeTiling, planned: DecodeTiling) -> bool:
    """Whether pieces are smaller in one way and not larger in the other."""
    sizes = [
        (planned.tile_size or 1 << 20, tiling.tile_size or 0),
        (planned.tile_frames or 1 << 20, tiling.tile_frames or 0),
    ]
    return tiling != planned and all(new <= old for old, new in sizes)
