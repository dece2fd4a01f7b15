"""Measures the page of large batches in headless Chromium: seconds to open, sort and write it, and its size.

    python benchmarks/page.py [--clips 1000 --clips 10000] [--old COMMIT]

`--old` also measures the page of an earlier commit, on the same folders. Needs Chromium.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ltx_dist.media.mp4 import encode_video
from ltx_dist.models.ltx_video.recipes import RECIPE
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Mp4Settings
from ltx_dist.pipeline.work import Assignment, Completion, StageReport
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.report.run_record import Counts, build_run_record

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "report")]

SCENES = (
    "a lighthouse in a storm",
    "a red fox in the snow",
    "two boats on a lake",
    "a market at night",
    "rain on glass",
)
SECONDS = {"encode_text": 0.12, "denoise": 20.0, "decode": 1.1, "encode_video": 0.6}
WORKERS = tuple(
    Worker(f"gpu-{n}", ("encode_text", "denoise", "decode"), "cuda", n, device_name="NVIDIA RTX 4090") for n in range(8)
)
WRITE = "import sys, pathlib; from ltx_dist.report.page import write_report; write_report(pathlib.Path(sys.argv[1]))"
SORTED = """new Promise((done) => {
  const sort = document.getElementById("sort"), began = performance.now();
  sort.value = "seconds";
  sort.dispatchEvent(new Event("change"));
  document.body.offsetHeight;
  requestAnimationFrame(() => setTimeout(() => done((performance.now() - began) / 1000)));
})"""


def main(
    clips: Annotated[list[int], typer.Option(help="How many clips; may be given several times.")] = [1000, 10000],  # noqa: B006
    old: Annotated[str | None, typer.Option(help="An earlier commit whose page is measured, too.")] = None,
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        codes = {"now": ROOT}
        if old:
            codes[old] = unpacked(old, Path(scratch) / "old")
        for number in clips:
            folder = Path(scratch) / f"{number} clips"
            make_batch(folder, number)
            print(f"{number} clips" + "".join(f"{name:>12}" for name in codes))
            measured = {
                name: measure(code, folder, Path(scratch) / f"profile-{name}-{number}") for name, code in codes.items()
            }
            for figure in next(iter(measured.values())):
                print(f"  {figure:<20}" + "".join(f"{figures[figure]:>12.2f}" for figures in measured.values()))


def unpacked(commit: str, place: Path) -> Path:
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(place, filter="data")
    return place


def measure(code: Path, folder: Path, profile: Path) -> dict[str, float]:
    from browser import Browser  # from the page's tests

    began = time.monotonic()
    subprocess.run([sys.executable, "-c", WRITE, str(folder)], check=True, cwd=code)
    written = time.monotonic() - began
    browser = Browser(profile)
    try:
        browser.open((folder / "index.html").as_uri(), seconds=300)
        navigation = "performance.getEntriesByType('navigation')[0].loadEventEnd"
        browser.until(f"{navigation} > 0", seconds=300)
        return {
            "open, s": browser.run(navigation) / 1000,
            "sort, s": browser.run(SORTED),
            "elements": browser.run("document.querySelectorAll('*').length"),
            "file, MB": (folder / "index.html").stat().st_size / 1e6,
            "write, s": written,
        }
    finally:
        browser.close()


def make_batch(folder: Path, number: int, *, failing: int = 97) -> None:
    """Make a folder as a run leaves it: scenes with several seeds and guidances. Every `failing`-th clip has failed."""
    folder.mkdir()
    completions: list[Completion] = []
    video = small_video()
    free = [0.0] * len(WORKERS)
    (folder / "of-all.mp4").write_bytes(video)
    for position in range(number):
        request, error = request_at(position), "CUDA out of memory" if position % failing == failing - 1 else None
        worker = free.index(min(free))
        clip = list(completed(request.request_id, WORKERS[worker].worker_id, free[worker], error))
        free[worker] = clip[-1].finished if error else clip[2].finished
        completions += clip
        (folder / f"{request.request_id}.json").write_text(json.dumps(sidecar(request, clip, error)))
        if not error:
            os.link(folder / "of-all.mp4", folder / f"{request.request_id}.mp4")
    (folder / "of-all.mp4").unlink()
    failed = number // failing
    placement = Placement(RECIPE, "replicated", WORKERS, {"denoise": 2, "decode": 2})
    record = build_run_record(Counts(number, number - failed, failed, 0), placement, completions, 3 if failed else 0)
    (folder / "run.json").write_text(json.dumps(record | {"checkpoint": {"name": "Lightricks/LTX-Video"}}))


def request_at(position: int) -> RenderRequest:
    scene, seed, guidance = position % 5, position // 5 % 8, (1.0, 3.0, 5.0)[position // 40 % 3]
    take = position // 120
    prompt = f"{SCENES[scene]}, slow pan, soft light, 35 mm" + (f", take {take}" if take else "")
    name = f"{position + 1:05d}-{SCENES[scene].replace(' ', '-')}"
    return RenderRequest(
        name, prompt, "blurry, jittery", 480, 704, 121, 25.0, 40, guidance, 0.0, seed, 0.05, 0.025, 256
    )


def completed(name: str, worker: str, started: float, error: str | None) -> Iterator[Completion]:
    for stage, seconds in SECONDS.items():
        failed = error if stage == "denoise" else None
        report = StageReport(seconds * (1 + len(name) % 7 / 50), error=failed)
        yield Completion(Assignment((name,), stage, worker), started, started + report.seconds, report)
        started += report.seconds
        if failed:
            return


def sidecar(request: RenderRequest, clip: list[Completion], error: str | None) -> dict[str, Any]:
    stages = {c.assignment.stage: {"worker": c.assignment.worker_id, "seconds": c.report.seconds} for c in clip}
    digests = {
        name: name.encode().hex()[:4] * 16 for name in ("render_key", "frames_sha256", "latents_sha256", "mp4_sha256")
    }
    settings = {
        "model.checkpoint": "Lightricks/LTX-Video",
        "model.version": "0.9.8-2b-distilled",
        "model.precision": "bfloat16",
    }
    content = {"request": asdict(request), "stages": stages, "settings": settings}
    return content | ({"status": "failed", "error": error} if error else {"status": "done"} | digests)


def small_video() -> bytes:
    rows = np.linspace(0, 255, 176, dtype=np.uint8)
    frames = [
        np.stack([np.roll(np.tile(rows, (120, 1)), 8 * n, 1), *[np.full((120, 176), 40 + 6 * n, np.uint8)] * 2], -1)
        for n in range(24)
    ]
    return encode_video(
        frames, height=120, width=176, num_frames=24, frame_rate=12.0, output=Mp4Settings(), metadata={}
    ).mp4


if __name__ == "__main__":
    typer.run(main)
