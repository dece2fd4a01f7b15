"""`ltx-dist export FORMAT OUT -o DEST`."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from ltx_dist.commands.folders import Folder, fetched, opened_output
from ltx_dist.commands.shared import bad_input
from ltx_dist.messages import clean, count, tell
from ltx_dist.run.stop import EXIT_SOME_FAILED

FormatName = Annotated[
    str,
    typer.Argument(
        metavar="FORMAT",
        help="hf: a folder for Hugging Face datasets. webdataset: tar shards. parquet: one file with the mp4s in it. "
        "vbench: PROMPT-INDEX.mp4. csv: a table. frames: a PNG per frame. sheet: one image of all clips.",
    ),
]
Destination = Annotated[
    Path, typer.Option("-o", "--output", help="The folder or file to write; it must not exist yet.")
]


def export(format_: FormatName, folder: Folder, output: Destination) -> None:
    """Convert the finished clips of a folder for other tools. Renders nothing and does not change the folder.

    Clips that failed or are not finished are listed and left out; the exit code is then 3.
    """
    with bad_input():
        from ltx_dist.inputs.explain import did_you_mean
        from ltx_dist.report.export.destination import check_destination, written_whole
        from ltx_dist.report.export.formats import FORMATS
        from ltx_dist.report.finished_clips import finished_clips
        from ltx_dist.store.output import require_output
        from ltx_dist.user_cache import from_home

        if format_ not in FORMATS:
            raise ValueError(f"{clean(format_)}: unknown format{did_you_mean(format_, list(FORMATS))}")
        chosen = FORMATS[format_]
        with opened_output(folder) as out:
            require_output(out.folder)
            place = from_home(str(output), "-o")
            check_destination(place, chosen.endings, out.folder)
            with fetched(out, chosen.opens) if chosen.opens else nullcontext(out.folder) as source:
                clips, left_out = finished_clips(source, out.mirror.url if out.mirror else None)
                for one in left_out:
                    tell(clean(f"{one.name}: left out: {one.reason}"), sys.stderr)
                if not clips:
                    raise ValueError(f"{folder}: no finished clip to export")
                with written_whole(place) as partial:
                    note = chosen.writer()(clips, partial)
        tell(clean(f"{place}: {count(len(clips), 'clip')} exported, {len(left_out)} left out"))
        if note:
            tell(note)
    if left_out:
        sys.exit(EXIT_SOME_FAILED)
