"""Measures how long commands take on a folder in which every clip is done, by the number of clips.

    python benchmarks/rerun.py [--clips 1000 --clips 10000]

The clips are small. All but one are made without a model and published as a run publishes them, so they are up to date.
Compare the columns to see what grows faster than the number of clips.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ltx_dist.inputs.config_file import load_config
from ltx_dist.media.mp4 import encode_video
from ltx_dist.pipeline.keys import KEY_VERSION
from ltx_dist.pipeline.work import Assignment, Completion, RenderResult, StageReport
from ltx_dist.placement.local_devices import local_inventory
from ltx_dist.run.batch import open_batch
from ltx_dist.run.placed_batch import place_batch
from ltx_dist.store.publisher import Publisher

SIDE, NUM_FRAMES = 32, 5
SETTINGS = (
    "placement.device=cpu",
    f"defaults.height={SIDE}",
    f"defaults.width={SIDE}",
    f"defaults.num_frames={NUM_FRAMES}",
    "defaults.num_inference_steps=1",
)
STAGES = ("encode_text", "denoise", "decode", "encode_video")


def main(
    clips: Annotated[list[int], typer.Option(help="How many clips; may be given several times.")] = [1000, 10000],  # noqa: B006
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        taken: dict[str, list[float]] = {}
        for number in clips:
            folder, prompts = Path(scratch) / f"clips-{number}", Path(scratch) / f"{number}.txt"
            prompts.write_text(
                "".join(f"scene {n % 97} of {n}, a lighthouse in a storm, slow pan\n" for n in range(number))
            )
            publish(prompts, folder)
            for name, seconds in measure(prompts, folder).items():
                taken.setdefault(name, []).append(seconds)
        print(f"{'seconds':<22}" + "".join(f"{number:>10} clips" for number in clips))
        for name, seconds in taken.items():
            print(f"{name:<22}" + "".join(f"{one:>16.2f}" for one in seconds))


def publish(prompts: Path, folder: Path) -> None:
    """Publish every clip of a prompt file but the last, with frames of noise instead of a model's. The first render
    makes the last one, so that `run.json` records a run that rendered something, as in any other folder."""
    placed = place_batch(open_batch(str(prompts), load_config(None, list(SETTINGS))), local_inventory())
    publisher = Publisher(folder, placed.checkpoint_record(), notes=placed.sidecar_notes(), posters=True)
    for request in placed.batch.requests[:-1]:
        frames = np.random.default_rng(request.seed).integers(0, 256, (NUM_FRAMES, SIDE, SIDE, 3), np.uint8)
        key = placed.keys.render_key(request)
        video = encode_video(
            frames, height=SIDE, width=SIDE, num_frames=NUM_FRAMES, frame_rate=request.frame_rate,
            output=placed.batch.mp4_settings, metadata={}, facts={"render_key": key, "key_version": str(KEY_VERSION)},
        )  # fmt: skip
        work = tuple(
            Completion(Assignment((request.request_id,), stage, "cpu:0"), 0.0, 0.1, StageReport(0.1))
            for stage in STAGES
        )
        publisher.publish(RenderResult(request, "done", work, video), key)


def measure(prompts: Path, folder: Path) -> dict[str, float]:
    """Seconds of each command, in this order."""
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    render = ["render", str(prompts), "-o", str(folder), *settings]
    plan = ["plan", str(prompts), "-o", str(folder), *settings]
    commands = {
        "render, one clip left": render,
        "render, nothing to do": render,
        "plan -o": plan,
        "report": ["report", str(folder)],
        "verify": ["verify", str(folder)],
        "export csv": ["export", "csv", str(folder), "-o", str(folder.with_suffix(".csv"))],
    }
    return {name: run(*arguments) for name, arguments in commands.items()}


def run(*arguments: str) -> float:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "ltx_dist.cli", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}")
    return time.monotonic() - began


if __name__ == "__main__":
    typer.run(main)
