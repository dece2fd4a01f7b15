"""`csv`: the table of clips with the path of each mp4, for spreadsheets and other programs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from ltx_dist.report.clip_table import clip_table, with_paths
from ltx_dist.report.finished_clips import FinishedClip


def write(clips: Sequence[FinishedClip], place: Path) -> None:
    rows = with_paths(clip_table(clips), clips)
    with open(place, "w", encoding="utf-8", errors="replace", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
