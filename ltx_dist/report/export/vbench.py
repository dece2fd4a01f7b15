"""`vbench`: clips under the names that VBench looks for, `PROMPT-INDEX.mp4`, with the index counted per prompt from 0.

https://github.com/Vchitect/VBench#video-sampling asks for five clips of each prompt.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ltx_dist.messages import Mistakes, count, show
from ltx_dist.report.export.destination import link_or_copy
from ltx_dist.report.finished_clips import FinishedClip

MAX_NAME_BYTES = 255
"""Longest file name in nearly every file system."""


def write(clips: Sequence[FinishedClip], place: Path) -> str | None:
    """Number a prompt's clips by seed, then by name. Raises ValueError for prompts that cannot be file names.

    VBench's list has two prompts twice. Identical clips count once; otherwise some of the five that VBench evaluates
    would be copies of others.
    """
    of_prompt: dict[str, dict[str, FinishedClip]] = defaultdict(dict)
    for clip in sorted(clips, key=_order):
        of_prompt[clip.request["prompt"]].setdefault(str(clip.sidecar.get("render_key", clip.name)), clip)
    found = {prompt: list(different.values()) for prompt, different in of_prompt.items()}
    if wrong := [problem for prompt, same in found.items() if (problem := _problem(prompt, same[0].name))]:
        raise Mistakes(wrong)
    place.mkdir()
    for prompt, same in found.items():
        for index, clip in enumerate(same):
            link_or_copy(clip.mp4, place / f"{prompt}-{index}.mp4")
    copies = len(clips) - sum(map(len, found.values()))
    return f"{count(copies, 'clip')} with the prompt and all settings of another left out" if copies else None


def _order(clip: FinishedClip) -> tuple[int, str]:
    seed = clip.request.get("seed")
    return (seed if isinstance(seed, int) else 0), clip.name


def _problem(prompt: str, name: str) -> str | None:
    if "/" in prompt or "\0" in prompt:
        return f"{name}: its prompt {show(prompt)} has a /, so it cannot be a file name, which VBench relies on"
    if prompt.startswith("."):
        return f"{name}: its prompt {show(prompt)} begins with a dot, so its file would be hidden"
    if (size := len(f"{prompt}-0000.mp4".encode())) > MAX_NAME_BYTES:
        return f"{name}: its prompt is too long for a file name ({size} bytes; at most {MAX_NAME_BYTES})"
    return None
