"""`index.html`: the clips of a folder, playing, and what each worker did when; from run.json and sidecars alone.

One file that asks for nothing but the clips beside it: style and script are inline, allowed by their hashes.
Whatever the files hold is text on the page, never markup.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from ltx_dist.messages import clean_lines
from ltx_dist.models.ltx_video.recipes import RECIPE
from ltx_dist.pipeline.recipe import Recipe
from ltx_dist.pipeline.timeline import makespan
from ltx_dist.report.advice import advice
from ltx_dist.report.bars import lanes_of
from ltx_dist.report.clips import read_clips
from ltx_dist.report.run_record import read_run_record, recorded_completions, recorded_recipe
from ltx_dist.report.tally import precise_duration
from ltx_dist.store.files import HeldFolder, write_atomically

TEMPLATES = Path(__file__).parent / "templates"

PLAIN_COLOUR = re.compile(r"#[0-9a-f]{6}|light-dark\(#[0-9a-f]{6}, #[0-9a-f]{6}\)")

STATES = {None: "running", 0: "done", 1: "ended by an error", 3: "finished, some failed", 75: "stopped, resumable"}
"""By exit code, for people; None is also what a killed run leaves behind."""


def write_report(folder: Path, held: HeldFolder | None = None) -> Path:
    """Write `folder/index.html` from what the folder holds now, during or after a run; returns its path.

    Without run.json there are only clips. May raise OSError; ValueError for a run.json that is not ours.
    """
    path, scratch = folder / "index.html", folder / ".ltx-dist" / "tmp"
    write_atomically(path, render_page(folder).encode(), scratch if scratch.is_dir() else None, held)
    return path


def render_page(folder: Path) -> str:
    """The page as text. It has no clock and no random part: the same folder gives the same page."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    environment.filters |= {"seconds": precise_duration, "percent": "{:.0%}".format, "number": _number}
    style, script = ((TEMPLATES / name).read_text("utf-8") for name in ("page.css", "page.js"))
    record = read_run_record(folder) if (folder / "run.json").exists() else None
    recipe = recorded_recipe(record) if record else RECIPE
    style += _colours(recipe)
    return environment.get_template("page.html.j2").render(
        title=folder.resolve().name,
        style=Markup(style),
        script=Markup(script),
        style_hash=_csp_hash(style),
        script_hash=_csp_hash(script),
        clips=read_clips(folder, recipe),
        verbs={stage.name: stage.label.verb for stage in recipe},
        **(_run(record, recipe) if record else {"record": None}),
    )


def _run(record: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """What the template asks of a run."""
    completions = recorded_completions(record)
    lanes, order = lanes_of(record, completions, recipe)
    total, bound = makespan(completions), record["lower_bound_seconds"]
    return {
        "record": record,
        "state": STATES.get(record["exit_code"], f"ended with exit code {record['exit_code']}"),
        "ratio": total / bound if bound else None,
        "advice": record.get("advice") or advice(record, recipe),
        "order": order,
        "lanes": lanes,
        "losses": _shares(record.get("losses", {}), total),
    }


def _colours(recipe: Recipe) -> str:
    """CSS rules with the colour of each stage. A record may come from elsewhere: what is no plain colour is dropped."""
    colours = {stage.name: stage.label.colour for stage in recipe if stage.name.isidentifier()}
    return "".join(
        f".{name} {{ fill: {colour}; stroke: {colour}; background: {colour}; }}\n"
        for name, colour in colours.items()
        if PLAIN_COLOUR.fullmatch(colour)
    )


def _shares(losses: Mapping[str, float], total: float) -> list[tuple[str, float, float]]:
    """What the makespan went into: the name of each part, its share, and where it begins as a share, the large first.

    Parts below a hundredth are left out: they could not be seen.
    """
    found: list[tuple[str, float, float]] = []
    begin = 0.0
    for name, seconds in sorted(losses.items(), key=lambda part: -part[1]):
        if total > 0 and seconds >= 0.01 * total:
            found.append((name, seconds / total, begin))
            begin += seconds / total
    return found


def _shown(value: object) -> object:
    """Every value on its way to the page: text without control characters, its line breaks kept."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return clean_lines(value)


def _number(value: object) -> object:
    """12.0 as 12; what is no number as it is."""
    return f"{value:g}" if isinstance(value, float) else value


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
