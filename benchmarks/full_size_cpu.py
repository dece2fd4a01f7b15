"""Renders with LTX-Video 2B at full size on a CPU, through `ltx-dist render`, and measures the memory that this takes.

    python benchmarks/full_size_cpu.py [--keep DIR] [--quantization none|int8] [--tokens 32]

Writes a checkpoint of random weights (T5-XXL, the 2B transformer, the VAE of 0.9.5: 16 GB in bfloat16) to a temporary
folder, renders 2 prompts at 256x256x9 in 2 steps, and prints for each stage the peak memory of the process: all of it
(RSS), and without the pages of mapped files, which the system takes back when it needs them (anonymous). The frames are
noise. --tokens is the length that each prompt is padded to; they have only a few words. By default, a render pads to
256 tokens, for which T5 needs 7 TFLOP (several minutes on a CPU without bfloat16 instructions) and 0.04 GB of
memory instead of 0.01. --keep makes the checkpoint in DIR, or uses the one that is there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path

HERE = Path(__file__).parent
PROMPTS = ["a red ball rolls over grass", "waves in the evening"]
SETTINGS = {
    "model.precision": "bfloat16",
    "model.vae_precision": "float32",  # in bfloat16, a CPU without such instructions takes over 10 minutes per clip
    "model.version": "0.9.5",
    "cache.embeddings": "null",  # so that each prompt is encoded, whatever ran before
    "defaults.width": 256,
    "defaults.height": 256,
    "defaults.num_frames": 9,
    "defaults.num_inference_steps": 2,
    "placement.device": "cpu",
}


class MemoryOf(threading.Thread):
    """Samples the memory of a process: (seconds since 1970, bytes of RSS, bytes of its anonymous part)."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._status = Path(f"/proc/{pid}/status")
        self.samples: list[tuple[float, int, int]] = []

    def run(self) -> None:
        while True:
            try:
                lines = dict(line.split(":", 1) for line in self._status.read_text().splitlines())
                resident, anonymous = (int(lines[key].split()[0]) * 1024 for key in ("VmRSS", "RssAnon"))
            except (OSError, KeyError):  # the process has ended
                return
            self.samples.append((time.time(), resident, anonymous))
            time.sleep(0.05)

    def peaks(self, start: float, end: float) -> tuple[int, int]:
        during = [(resident, anonymous) for at, resident, anonymous in self.samples if start <= at <= end]
        return max(resident for resident, _ in during), max(anonymous for _, anonymous in during)


def render(checkpoint: Path, folder: Path, host_gb: float, quantization: str, tokens: int) -> int:
    """Render, and print the table. Returns the peak RSS in bytes."""
    prompts, events = folder / "prompts.txt", folder / "events.jsonl"
    prompts.write_text("\n".join(PROMPTS) + "\n")
    settings = SETTINGS | {
        "model.checkpoint": checkpoint,
        "model.text_encoder_quantization": quantization,
        "placement.host_memory_gb": host_gb,
        "defaults.max_sequence_length": tokens,
    }
    command = [
        sys.executable, "-m", "ltx_dist.cli", "render", str(prompts), "-o", str(folder / "out"), "--executor", "local",
        "--json-events", str(events),
    ]  # fmt: skip
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    started = time.time()
    process = subprocess.Popen(command)
    memory = MemoryOf(process.pid)
    memory.start()
    exit_code = process.wait()
    memory.join()
    if exit_code != 0:
        raise SystemExit(f"render ended with exit code {exit_code}")
    whole = time.time() - started
    print(f"done after {whole:.0f} s with {tokens} tokens per prompt and placement.host_memory_gb={host_gb:g}")
    print(f"{'stage':12} {'clip':42} {'seconds':>8} {'loading':>8} {'peak RSS':>10} {'anonymous':>10}")
    for line in events.read_text().splitlines():
        event = json.loads(line)
        if event["event"] != "stage_ended":
            continue
        end = datetime.fromisoformat(event["time"]).timestamp()
        seconds = event["finished"] - event["started"]
        resident, anonymous = memory.peaks(end - seconds - event["load_seconds"] - 0.1, end)
        print(
            f"{event['stage']:12} {event['request_id']:42} {seconds:8.1f} {event['load_seconds']:8.1f} "
            f"{resident / 1e9:7.2f} GB {anonymous / 1e9:7.2f} GB"
        )
    peak = max(resident for _, resident, _ in memory.samples)
    print(f"peak of the whole run: {peak / 1e9:.2f} GB, anonymous {max(a for _, _, a in memory.samples) / 1e9:.2f} GB")
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="folder of the checkpoint, which is made there if it is missing")
    parser.add_argument("--quantization", choices=("none", "int8"), default="none")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--scale", choices=("full", "tiny"), default="full")
    arguments = parser.parse_args()
    aim, host_gb = (13.0, 13.0) if arguments.quantization == "none" else (9.0, 9.0)
    with tempfile.TemporaryDirectory(prefix="full-size-") as temporary:
        checkpoint = (arguments.keep or Path(temporary)) / f"ltxv-2b-{arguments.scale}"
        if not checkpoint.exists():
            make = [sys.executable, str(HERE.parent / "tools" / "make_checkpoint.py"), "0.9.5", str(checkpoint)]
            subprocess.run([*make, "--scale", arguments.scale], check=True)
        peak = render(checkpoint, Path(temporary), host_gb, arguments.quantization, arguments.tokens)
    print(f"aim: at most {aim:g} GB: {'reached' if peak <= aim * 1e9 else 'missed'}")


if __name__ == "__main__":
    main()
