"""Checks that a clip with sound from a tiny LTX-2.5 is the same file in every run, and that other programs read it.

    python benchmarks/ltx2_sound.py [--runs 20] [--ffprobe PATH]

Each run is a whole `ltx-dist render`, from the weights to the mp4, in a forked child and a folder of its own. ffprobe
and headless Chromium, if installed, then report codec, rate, channels and duration.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "tests" / "report")]
from browser import CHROMIUM, Browser  # noqa: E402
from forked import OURS, run  # noqa: E402

TOOL = Path(__file__).parent.parent / "tools" / "make_ltx2_checkpoint.py"
SIZE = {"height": 128, "width": 192, "num_frames": 49, "max_sequence_length": 16}
ENTRIES = "stream=codec_type,codec_name,sample_rate,channels,duration,nb_frames"


def render(model: Path, prompts: Path, out: Path) -> dict[str, Any]:
    """Render the clip, and return its sidecar."""
    settings = {f"defaults.{name}": value for name, value in SIZE.items()} | {
        "model.checkpoint": model, "placement.threads": 1, "cache.embeddings": "null",
    }  # fmt: skip
    command = ["render", str(prompts), "-o", str(out), *(f"--set={name}={value}" for name, value in settings.items())]
    log = out.with_suffix(".log")
    assert run(command, log) == 0, log.read_text()
    return json.loads((out / "clip.json").read_text())


def by_ffprobe(ffprobe: str, mp4: Path) -> list[dict[str, str]]:
    """What FFmpeg reports about each stream after decoding all packets. Raises if FFmpeg complains."""
    command = [ffprobe, "-v", "error", "-count_frames", "-show_entries", ENTRIES, "-of", "json", str(mp4)]
    told = subprocess.run(command, check=True, capture_output=True, text=True)
    assert not told.stderr, told.stderr
    return json.loads(told.stdout)["streams"]


def by_chromium(mp4: Path, sampling_rate: int, folder: Path) -> dict[str, Any]:
    """Size and seconds of the video as it plays, and what Web Audio decodes.

    Web Audio runs at the sound's own rate, so nothing is resampled, and the number of samples is that of the file.
    """
    page = folder / "page.html"
    page.write_text(f'<video src="{mp4.name}" muted></video>')
    browser = Browser(folder / "profile")
    try:
        browser.open(page.as_uri())
        browser.until("document.querySelector('video').readyState >= 2")
        data = base64.b64encode(mp4.read_bytes()).decode()
        return browser.run(
            f"""(async () => {{
              const video = document.querySelector('video');
              await video.play();
              const bytes = Uint8Array.from(atob('{data}'), (letter) => letter.charCodeAt(0));
              const sound = await new OfflineAudioContext(2, 1, {sampling_rate}).decodeAudioData(bytes.buffer);
              const loudest = Math.max(...sound.getChannelData(0).map(Math.abs));
              return {{width: video.videoWidth, height: video.videoHeight, seconds: video.duration,
                channels: sound.numberOfChannels, samples: sound.length, rate: sound.sampleRate, loudest}};
            }})()"""
        )
    finally:
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--ffprobe", default=shutil.which("ffprobe"))
    arguments = parser.parse_args()
    import ltx_dist.cli  # noqa: F401
    import ltx_dist.models.ltx2.decode
    import ltx_dist.models.ltx2.encode_text
    import ltx_dist.models.ltx2.refine  # noqa: F401

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(OURS)}
        # This runs in a process of its own, because the threads that torch starts would not survive a fork.
        subprocess.run(
            [sys.executable, TOOL, "2.5", folder / "ltx25"], check=True, env=environment, stdout=subprocess.DEVNULL
        )
        prompts = folder / "prompts.jsonl"
        prompts.write_text(json.dumps({"prompt": "a robot", "name": "clip"}) + "\n")
        records = [render(folder / "ltx25", prompts, folder / f"run{index}") for index in range(arguments.runs)]
        for digest in ("latents_sha256", "frames_sha256", "audio_sha256", "mp4_sha256"):
            found = Counter(record[digest] for record in records)
            print(f"{digest}: {len(found)} distinct in {arguments.runs} runs, {next(iter(found))[:16]}")
        first = records[0]
        told = {name: first[name] for name in ("sampling_rate", "audio_channels", "audio_samples")}
        print(f"recorded: {told}, {SIZE['num_frames']} frames at {first['request']['frame_rate']:g} per second")
        mp4 = folder / "run0" / "clip.mp4"
        print("ffprobe:", by_ffprobe(arguments.ffprobe, mp4) if arguments.ffprobe else "not installed")
        print("Chromium:", by_chromium(mp4, first["sampling_rate"], folder / "run0") if CHROMIUM else "not installed")


if __name__ == "__main__":
    main()
