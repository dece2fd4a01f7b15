"""Everything that one run needs: batch, output, console, stop flag, followers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from ltx_dist.messages import clean_lines, count
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.report.observers import Follower
from ltx_dist.run.placed_batch import PlacedBatch
from ltx_dist.run.stop import Stop
from ltx_dist.store.clip_names import with_ending
from ltx_dist.store.disk_space import clip_bytes, latents_bytes, shortage, spool_peak
from ltx_dist.store.key_versions import outdated, why_again
from ltx_dist.store.output import Output

MAX_NAMED = 20


@dataclass(frozen=True, slots=True)
class Session:
    """What one run needs, created once the input is checked and the output folder is locked.

    console: a quiet one if nothing is to be printed. environment: variables for the processes of a cluster that this
    run has not started.
    """

    placed: PlacedBatch
    out: Output
    uses_ray: bool
    console: Console
    stop: Stop
    followers: Sequence[Follower] = ()
    environment: Mapping[str, str] | None = None

    def note(self, line: str) -> None:
        """Print something that the user may want to act on; the run continues."""
        say(self.console, line, "yellow")

    def announce(self, remaining: Sequence[RenderRequest]) -> None:
        """Print the clips, model and workers of the run, and how many clips are done or will be replaced."""
        batch, placement = self.placed.batch, self.placed.placement
        num_workers = len(placement.workers)
        where = "in this process" if not self.uses_ray else "as Ray actors" if num_workers > 1 else "as a Ray actor"
        model = f"{batch.checkpoint.name} ({batch.preset.version}, {self.placed.precision})"
        workers = f"{placement.layout}: {count(num_workers, 'worker')} {where}"
        say(self.console, f"{count(len(batch.requests), 'clip')} · {model} · {workers}")
        if batch.config.model.version == "auto" and (line := batch.family.assumption(batch.checkpoint)):
            self.note(line)
        for warning in batch.warnings:
            self.note(f"warning: {warning}")
        if left_out := batch.left_out:
            names = ", ".join(left_out[:MAX_NAMED]) + (", ..." if len(left_out) > MAX_NAMED else "")
            self.note(f"skipped {count(len(left_out), 'clip')} without kept latents: {names}")
        if num_there := len(batch.requests) - len(remaining):
            say(self.console, f"{num_there} already up to date" + ("" if remaining else "; nothing to do"))
        if num_outdated := outdated(self.out.folder, (request.request_id for request in remaining)):
            self.note(why_again(num_outdated))
        there = sum(with_ending(self.out.folder / request.request_id, ".mp4").exists() for request in remaining)
        if num_replaced := there - num_outdated:
            self.note(f"existing clips that have other settings or are damaged, to be replaced: {num_replaced}")

    def warn_of_shortage(self, remaining: Sequence[RenderRequest]) -> None:
        """Warn if the remaining output is unlikely to fit on the disk. May raise OSError."""
        batch, recovery = self.placed.batch, self.placed.batch.config.recovery
        channels = batch.checkpoint.latent_channels
        ratios = batch.checkpoint.spatial_compression_ratio, batch.checkpoint.temporal_compression_ratio
        # Clips for a URL are staged only for moments; clips decoded again have their latents on disk already.
        output = batch.mp4_settings
        mp4s = 0.0 if self.out.mirror else sum(clip_bytes(request, output) for request in remaining)
        latents = [] if batch.decoded_again else [latents_bytes(request, channels, *ratios) for request in remaining]
        placement = self.placed.placement
        at_a_time = placement.max_queued[placement.recipe.on_device[-1]] + len(placement.workers)
        spool = spool_peak(latents, at_a_time, recovery.keep_latents, recovery.spool_gb * 1e9)
        if line := shortage(self.out.folder, mp4s, spool):
            self.note(f"warning: {line}")


def say(console: Console, line: str, style: str = "") -> None:
    """Print a line without wrapping it, because programs read logs, too."""
    console.print(Text(clean_lines(line), style), soft_wrap=True)
