"""Commands on the output of a run, a folder or a URL: `timeline`, `report` and `verify`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from ltx_dist.commands.shared import bad_input
from ltx_dist.messages import clean, count, listed, tell
from ltx_dist.run.stop import EXIT_SOME_FAILED

if TYPE_CHECKING:
    from ltx_dist.pipeline.recipe import Recipe
    from ltx_dist.pipeline.work import Completion
    from ltx_dist.store.output import Output

Folder = Annotated[str, typer.Argument(help="The output of a run: a folder, or s3://, gs://...")]


def timeline(folder: Folder) -> None:
    """Print what each worker did when, in the last run into this folder."""
    with bad_input(), opened_output(folder) as out:
        print_timeline(out.folder)


def report(folder: Folder) -> None:
    """Write index.html, metadata.jsonl (the table of clips) and trace.json again, from run.json and the sidecars."""
    with bad_input(), opened_output(folder) as out:
        from ltx_dist.report.metadata_file import METADATA, write_metadata
        from ltx_dist.report.page import write_report
        from ltx_dist.report.trace import write_trace
        from ltx_dist.store.output import require_output

        require_output(out.folder)
        written = [write_trace(out.folder)] if (out.folder / "run.json").exists() else []
        written.append(write_report(out.folder))
        if (problem := write_metadata(out.folder)) is None:
            written.append(out.folder / METADATA)
        else:
            tell(f"ltx-dist: warning: {problem}", sys.stderr)
        if out.mirror:
            out.mirror.upload_run()
        for path in written:
            tell(clean(f"{out.mirror.url}/{path.name}" if out.mirror else str(path)))


def verify(folder: Folder) -> None:
    """Check that every clip is intact, readable, and the file that was written. Exits with 3 if one is not."""
    with bad_input(), opened_output(folder) as out:
        from ltx_dist.media.file_formats import ALSO_ENDINGS
        from ltx_dist.report.verify import verify_folder

        with fetched(out, (".mp4", *ALSO_ENDINGS)) as source:
            verdicts = list(verify_folder(source))
    bad = [verdict for verdict in verdicts if verdict.problem is not None]
    for verdict in bad:
        tell(clean(f"{verdict.name}: {verdict.problem}"))
    tell(f"{len(verdicts) - len(bad)} of {len(verdicts)} clips are intact")
    if rendered := [verdict.name for verdict in bad if verdict.rerun == "renders"]:
        names = clean(", ".join(rendered))
        tell(f"{_rerunning(len(rendered))} would render {count(len(rendered), 'clip')} again: {names}")
    if mended := sum(verdict.rerun == "mends" for verdict in bad):
        source = "its mp4" if mended == 1 else "their mp4s"
        tell(f"{_rerunning(mended)} would rebuild {count(mended, 'sidecar')} from {source}")
    if bad:
        sys.exit(EXIT_SOME_FAILED)


def _rerunning(num_clips: int) -> str:
    """The beginning of a sentence about a rerun. Several commands may have filled the folder."""
    return f"rerunning the command{'' if num_clips == 1 else 's'} that asked for {'it' if num_clips == 1 else 'them'}"


def print_timeline(folder: Path) -> None:
    from rich.console import Console

    from ltx_dist.pipeline.timeline import first_start, gantt
    from ltx_dist.report.run_record import read_run_record, recorded_completions, recorded_recipe

    record = read_run_record(folder)
    workers = [worker["worker_id"] for worker in record["workers"]]
    completions, recipe = recorded_completions(record), recorded_recipe(record)
    tell(gantt(completions, workers, recipe, width=min(Console().width, 120)))
    if line := _overlap(completions, recipe):
        tell(line)
    tell(f"start-up took {first_start(completions):.1f} s")


def _overlap(completions: Sequence[Completion], recipe: Recipe) -> str:
    """A line with how many runs of other stages overlapped with a main stage on another worker; empty if that was
    impossible."""
    from ltx_dist.pipeline.timeline import overlaps

    ran = [stage for stage in recipe.on_device if any(c.assignment.stage == stage for c in completions)]
    main = [stage for stage in ran if stage in recipe.main]
    others = [stage for stage in ran if stage not in recipe.main]
    if not main or not others or len({completion.assignment.worker_id for completion in completions}) == 1:
        return ""
    found = (overlap.other for overlap in overlaps(completions, recipe))
    beside = {id(other) for other in found if other.assignment.stage in others}
    runs = count(sum(c.assignment.stage in others for c in completions), "run")
    of_others, with_main = listed(others, "and"), listed(main, "or")
    return f"{len(beside)} of {runs} of {of_others} overlapped with {with_main} on another worker"


@contextmanager
def fetched(out: Output, endings: tuple[str, ...]) -> Iterator[Path]:
    """The folder with the clips' files of these endings; for a URL, a temporary one into which they are downloaded."""
    if out.mirror is None:
        yield out.folder
        return
    with TemporaryDirectory(prefix="ltx-dist-fetched-") as name:
        folder = Path(name)
        (folder / ".ltx-dist").mkdir()
        out.mirror.fetch_clips(folder, endings)
        if (out.folder / "run.json").exists():
            copy(out.folder / "run.json", folder)
        yield folder


@contextmanager
def opened_output(folder: str) -> Iterator[Output]:
    """The output to read. For a URL, sidecars and run.json are first fetched into its staging folder.

    Raises ValueError for a URL without an output, OutputError for a folder that cannot be read or written.
    """
    from ltx_dist.store.lock import folder_lock
    from ltx_dist.store.output import open_output
    from ltx_dist.store.output_errors import output_errors

    out = open_output(folder, "FOLDER")
    try:
        with output_errors():
            if out.mirror is None:
                yield out
            else:
                with folder_lock(out.folder):
                    out.mirror.pull_output()
                    yield out
    finally:
        if out.mirror is not None:
            out.mirror.close()
