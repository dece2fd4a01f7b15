"""Writes `run.json`, the table of clips, the page and the trace together, while a run continues and at its end."""

from __future__ import annotations

import time
from contextlib import suppress

from ltx_dist.report.metadata_file import write_metadata
from ltx_dist.report.page import write_report
from ltx_dist.report.run_record import RunProgress
from ltx_dist.report.trace import write_trace
from ltx_dist.store.output import Output

PAGE_EVERY = 10.0
"""Minimum seconds between two refreshes."""

PAGE_SHARE = 0.05
"""Maximum share of the driver's time that refreshes may take; with thousands of clips they become rarer."""


class LivePage:
    """Writes a run again from time to time. Made right after the run was written for the first time."""

    def __init__(self) -> None:
        self._due = time.monotonic() + PAGE_EVERY

    def refresh(self, run: RunProgress, out: Output) -> None:
        """Write if it is due. A full disk is reported by publishing, not here."""
        started = time.monotonic()
        if started < self._due:
            return
        with suppress(OSError):
            _write(run, out)
            if out.mirror:
                out.mirror.upload_run_soon()
        ended = time.monotonic()
        self._due = ended + max(PAGE_EVERY, (ended - started) / PAGE_SHARE)


def write_run(run: RunProgress, out: Output) -> None:
    """Write `run.json`, and what is made from it. Raises OSError, and OutputError if an upload fails."""
    _write(run, out)
    if out.mirror:
        out.mirror.upload_run()


def write_clips(out: Output) -> str | None:
    """Write the table of clips and the page again after sidecars have changed; `run.json` stays. Raises likewise.

    Returns why there is no table, as `write_metadata` does.
    """
    problem = write_metadata(out.folder, out.held)
    write_report(out.folder, out.held)
    if out.mirror:
        out.mirror.upload_run()
    return problem


def _write(run: RunProgress, out: Output) -> None:
    problem = write_metadata(out.folder, out.held)
    if problem is not None and problem not in run.warnings:
        run.warnings.append(problem)
    run.write(out.folder, out.held)
    write_trace(out.folder, out.held)
    write_report(out.folder, out.held)
