"""Commands in this process, and batches of the smallest clips on a CPU."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from ltx_dist.cli import app

SETTINGS = (
    "defaults.height=64", "defaults.width=64", "defaults.num_frames=9", "defaults.num_inference_steps=2",
    "placement.device=cpu", "placement.threads=1",
)  # fmt: skip


def run(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)), input=stdin)


def render(
    out: object, checkpoint: Path, *more: str, settings: tuple[str, ...] = (), stdin: str | None = None
) -> Result:
    """Run `ltx-dist render` with these arguments, and settings on top of the small ones."""
    chosen = [("--set", setting) for setting in (f"model.checkpoint={checkpoint}", *SETTINGS, *settings)]
    return run(
        "render", "-o", out, "--executor", "local", *more, *(word for pair in chosen for word in pair), stdin=stdin
    )
