"""`index.html`: plays the clips of a folder and shows what each worker did when; made from run.json and sidecars alone.

It is one file that loads only the clips beside it: style and script are inline, allowed by their hashes. The clips'
data is inline JSON, from which the script builds only the cards in view. Content of files is shown as text, never as
markup.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from ltx_dist.messages import clean_lines
from ltx_dist.models.ltx_video.recipes import RECIPE
from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.timeline import makespan
from ltx_dist.report.advice import advice
from ltx_dist.report.bars import Lane, lanes_of
from ltx_dist.report.clips import read_clips
from ltx_dist.report.headline import headline, num_failed
from ltx_dist.report.page_data import clips_data
from ltx_dist.report.run_record import read_run_record, recorded_completions, recorded_recipe
from ltx_dist.report.tally import precise_duration
from ltx_dist.store.files import HeldFolder, write_atomically

TEMPLATES = Path(__file__).parent / "templates"
STYLES = ("page.css", "cards.css", "dialog.css", "sweep.css", "timeline.css")
SCRIPTS = (
    "data.js", "marks.js", "choice.js", "player.js", "cards.js", "dialog.js", "sweep.js", "timeline_drawing.js",
    "timeline.js", "refresh.js", "page.js",
)  # fmt: skip
"""The scripts in the order in which they are joined: each uses only code before it, except in event handlers."""

PLAIN_COLOUR = re.compile(r"#[0-9a-f]{6}|light-dark\(#[0-9a-f]{6}, #[0-9a-f]{6}\)")

STATES = {None: "running", 0: "done", 1: "ended by an error", 3: "finished, some failed", 75: "stopped, resumable"}
"""The state to show, by exit code; a killed run also leaves None."""

LOSSES = {
    "work": ("working", "in stages that succeeded"),
    "in_vain": ("failed work", "in stages that failed, or whose worker was lost"),
    "swaps": ("loading weights", "weights read or moved between clips"),
    "fill": ("before the first clip", "until a worker got its first clip"),
    "drain": ("after the last clip", "after a worker's last clip, while others still worked"),
    "handing_over": ("handing over", "from giving a stage to an idle worker to its start"),
    "waiting": ("waiting", "for clips from other stages"),
}
"""The parts of the makespan in words, each with its meaning."""


def write_report(folder: Path, held: HeldFolder | None = None) -> Path:
    """Write `folder/index.html` from what the folder holds now, during or after a run; returns its path.

    Without run.json there are only clips. May raise OSError; ValueError for a run.json that is not ours.
    """
    path, scratch = folder / "index.html", folder / ".ltx-dist" / "tmp"
    write_atomically(path, render_page(folder).encode(), scratch if scratch.is_dir() else None, held)
    return path


def render_page(folder: Path) -> str:
    """The page's HTML. It uses no clock and no randomness: the same folder gives the same page."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    environment.filters |= {"seconds": precise_duration, "percent": "{:.0%}".format}
    record = read_run_record(folder) if (folder / "run.json").exists() else None
    recipe = recorded_recipe(record) if record else RECIPE
    style, script = _joined(STYLES) + _colours(recipe), _joined(SCRIPTS)
    clips = read_clips(folder, recipe)
    run = _run(record, recipe) if record else {"record": None, "timeline": None}
    return environment.get_template("page.html.j2").render(
        title=folder.resolve().name,
        style=Markup(style),
        script=Markup(script),
        style_hash=_csp_hash(style),
        script_hash=_csp_hash(script),
        num_failed=num_failed(record, clips) if record else 0,
        headline=headline(record, clips, run["timeline"]["seconds"] if run["timeline"] else 0.0),
        clips_json=_json(clips_data(clips, recipe)),
        timeline_json=_json(run["timeline"]),
        **run,
    )


def _run(record: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """The template's values about a run."""
    completions = recorded_completions(record)
    lanes, names = lanes_of(record, completions, recipe)
    total, bound = makespan(completions), record["lower_bound_seconds"]
    return {
        "record": record,
        "state": STATES.get(record["exit_code"], f"ended with exit code {record['exit_code']}"),
        "ratio": total / bound if bound else None,
        "advice": record.get("advice") or advice(record, recipe),
        "lanes": lanes,
        "timeline": {"seconds": total, "lanes": lanes, "names": names},
        "legend": _legend(lanes, recipe),
        "losses": _shares(record.get("losses", {}), total),
    }


def _legend(lanes: Sequence[Lane], recipe: Recipe) -> list[tuple[str, str]]:
    """The colours that the timeline uses: their class and what they stand for."""
    bars = [bar for lane in lanes for bar in lane.bars]
    ran, stages = {bar.stage for bar in bars}, list(recipe)
    legend = [(f"stage{number}", stages[number].label.verb) for number in sorted(ran)]
    legend += [("load", "loading weights")] * any(bar.load > 0 for bar in bars)
    return legend + [("failed", "failed")] * any(bar.error for bar in bars)


def _colours(recipe: Recipe) -> str:
    """CSS rules with the colour of each stage. Values that are not plain colours are left out, because a record may
    come from elsewhere."""
    return "".join(
        f".stage{number} {{ color: {stage.label.colour}; }}\n"
        for number, stage in enumerate(recipe)
        if PLAIN_COLOUR.fullmatch(stage.label.colour)
    )


def _shares(losses: Mapping[str, float], total: float) -> list[tuple[str, str, str, float, float]]:
    """The parts of the makespan, largest first: name, words, meaning, share, and start as a share.

    Parts below 1 % are left out, because they would not be visible.
    """
    found: list[tuple[str, str, str, float, float]] = []
    begin = 0.0
    for name, seconds in sorted(losses.items(), key=lambda part: -part[1]):
        if total > 0 and seconds >= 0.01 * total and name in LOSSES:
            found.append((name, *LOSSES[name], seconds / total, begin))
            begin += seconds / total
    return found


def _shown(value: object) -> object:
    """A value for the page, as text without control characters except line breaks."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return clean_lines(value)


def _json(value: object) -> Markup:
    """JSON that cannot end its HTML element, in ASCII, so that no terminal interprets it."""
    text = json.dumps(value, separators=(",", ":"))
    for character in "<>&\x7f":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _joined(names: Sequence[str]) -> str:
    return "\n".join((TEMPLATES / name).read_text("utf-8") for name in names)


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
