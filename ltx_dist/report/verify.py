"""Checks every published clip of a folder against its sidecar, and finds what a rerun would render again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from ltx_dist.media.mp4 import check_video
from ltx_dist.media.seal import read_seal
from ltx_dist.pipeline.payloads import SoundFacts
from ltx_dist.report.run_record import read_run_record
from ltx_dist.store.clip_names import clip_names, with_ending
from ltx_dist.store.found import (
    BLOCK_BYTES,
    MAX_SIDECAR_BYTES,
    ForeignFileError,
    open_found,
    read_found_json,
    sha256_of,
    size_of,
)
from ltx_dist.store.other_files import are_there, problem_of, recorded_also, sealed_also
from ltx_dist.store.output import require_output

Rerun = Literal["keeps", "mends", "renders"]
"""What a rerun does with a clip: keep it as it is, write its sidecar again from the intact mp4, or render it again."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for one clip. `problem` is None if its files are intact and are those that were published."""

    name: str
    problem: str | None = None
    rerun: Rerun = "keeps"


def verify_folder(folder: Path) -> Iterator[Verdict]:
    """A verdict for each clip of `folder`, by name: finished, failed, incomplete, or not made yet.

    Raises ValueError when there is no such folder or no run wrote to it.
    """
    require_output(folder)
    there = set(clip_names(folder))
    for name in sorted(there | set(unfinished_clips(folder))):
        if name in there:
            yield _verdict(name, folder / name)
        else:
            yield Verdict(name, "not rendered yet", "renders")


def unfinished_clips(folder: Path) -> list[str]:
    """Names without a result when the last run ended or last wrote its record; empty without a record."""
    with suppress(ValueError):
        unfinished = read_run_record(folder).get("unfinished", ())
        return [name for name in unfinished if isinstance(name, str)] if isinstance(unfinished, list) else []
    return []


def _verdict(name: str, clip: Path) -> Verdict:
    """clip: the path of its files without an ending."""
    mp4, sidecar = with_ending(clip, ".mp4"), with_ending(clip, ".json")
    try:
        recorded: dict[str, Any] = read_found_json(sidecar, MAX_SIDECAR_BYTES)
        if recorded["status"] != "done":
            return Verdict(name, f"failed: {(str(recorded['error']).splitlines() or [''])[0]}", "renders")
        request, expected = recorded["request"], recorded["mp4_sha256"]
        shape = request["num_frames"], request["height"], request["width"], request["frame_rate"]
        sound = SoundFacts.recorded(recorded)
    except FileNotFoundError:
        return _without_sidecar(name, clip, f"{sidecar.name} is missing")
    except (ValueError, KeyError, TypeError, OSError):
        return _without_sidecar(name, clip, f"{sidecar.name} is damaged or not a sidecar")
    try:
        with open_found(mp4) as file:
            if recorded.get("mp4_bytes", size_of(file)) != size_of(file) or sha256_of(file) != expected:
                return _not_the_one(name, clip, file)
            file.seek(0)
            check_video(file, *shape, sound)
    except FileNotFoundError:
        return Verdict(name, f"{mp4.name} is missing", "renders")
    except OSError as error:
        return Verdict(name, f"{mp4.name} cannot be read: {error.strerror}", "renders")
    except (ValueError, TypeError, OverflowError) as error:
        return Verdict(name, str(error).removeprefix(f"{mp4.parent}{os.sep}"), "renders")
    also = recorded_also(recorded)
    return Verdict(name, problem_of(also, clip), "keeps" if are_there(also, clip) else "renders")


def _without_sidecar(name: str, clip: Path, problem: str) -> Verdict:
    mp4 = with_ending(clip, ".mp4")
    with suppress(OSError, ForeignFileError), open_found(mp4) as file:
        if (facts := read_seal(file)) is None:
            return Verdict(name, f"{problem}, and {mp4.name} is damaged", "renders")
        return _mended(name, clip, f"{problem}; {mp4.name} is intact", facts)
    return Verdict(name, problem, "renders")


def _not_the_one(name: str, clip: Path, file: BinaryIO) -> Verdict:
    mp4 = with_ending(clip, ".mp4")
    if (facts := read_seal(file)) is not None:
        return _mended(name, clip, f"{mp4.name} is intact, but its sidecar belongs to another file", facts)
    file.seek(0)
    content = file.read(BLOCK_BYTES)
    how = "its sha256 differs" if any(content) else "all zeros" if content else "empty"
    return Verdict(name, f"{mp4.name} is not the file that was published ({how})", "renders")


def _mended(name: str, clip: Path, problem: str, facts: Mapping[str, str]) -> Verdict:
    """The verdict for an intact mp4 whose sidecar can be written from the facts in its seal."""
    also = sealed_also(facts)
    other = problem_of(also, clip)
    return Verdict(
        name, problem if other is None else f"{problem}, but {other}", "mends" if are_there(also, clip) else "renders"
    )
