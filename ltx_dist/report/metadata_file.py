"""`metadata.jsonl`: one row per finished clip of a folder, as `datasets.load_dataset("videofolder", ...)` reads it.

It is made from the sidecars, so it holds the clips of all runs into the folder, and can be written again at any time.
"""

from __future__ import annotations

import json
from pathlib import Path

from ltx_dist.report.clip_table import Row, clip_table
from ltx_dist.report.finished_clips import finished_clips
from ltx_dist.store.clip_names import clip_names, with_ending
from ltx_dist.store.files import INTERNAL, HeldFolder, write_atomically
from ltx_dist.store.found import MAX_RUN_BYTES, ForeignFileError, read_found

METADATA = "metadata.jsonl"


def write_metadata(folder: Path, held: HeldFolder | None = None) -> str | None:
    """Write the rows of all finished clips. May raise OSError.

    Rows of clips with an mp4 whose sidecar was lost stay as they are. Returns None, or the reason why nothing was
    written if there is a file with this name that is not ours.
    """
    path, scratch = folder / METADATA, folder / INTERNAL / "tmp"
    earlier = _read_rows(path)
    if earlier is None:
        return f"{path}: not written by ltx-dist, so it is left as it is; rename it to get a table of the clips"
    rows = clip_table(finished_clips(folder)[0])
    without_sidecar = {f"{name}.mp4" for name in clip_names(folder) if not with_ending(folder / name, ".json").exists()}
    rows += [row for row in earlier if row["file_name"] in without_sidecar]
    write_atomically(path, rows_as_json_lines(rows), scratch if scratch.is_dir() else None, held)
    return None


def rows_as_json_lines(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode(errors="replace")


def _read_rows(path: Path) -> list[Row] | None:
    """The rows that we wrote; empty if there is no file; None if it is not ours."""
    try:
        rows = [json.loads(line) for line in read_found(path, MAX_RUN_BYTES).splitlines()]
    except FileNotFoundError:
        return []
    except (ForeignFileError, ValueError, RecursionError):
        return None
    ours = all(isinstance(row, dict) and isinstance(row.get("file_name"), str) and "render_key" in row for row in rows)
    return rows if ours else None
