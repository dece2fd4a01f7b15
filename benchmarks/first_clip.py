"""Counts the different values of each clip over many process starts: one, if equal keys give equal pixels.

    python benchmarks/first_clip.py [--starts N] [--forked] [--without-cure]

Every start renders two prompts on two threads with the packaged model. The prompts were encoded before, so the
transformer's rotary embedding is the first thing that the two threads compute together. On CPUs with AVX-512, oneMKL's
first call went wrong there in one of twenty starts (`settle_kernels` in `ltx_dist/worker/device.py`). `--without-cure`
shows whether it does so on this CPU.

A start is the command in a new interpreter, which spends ten seconds on imports. With `--forked` it is a child of a
process that has imported everything and computed nothing, so that oneMKL is in the state of a new process; this takes
one second per start.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from subprocess import Popen

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # on shared cores, spinning threads keep each other waiting

from forked import exit_code, import_everything, start

PROMPTS = "a red circle moving left\na blue square moving right\n"
SETTINGS = ("defaults.num_inference_steps=1", "placement.threads=2", "placement.device=cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=300)
    parser.add_argument("--forked", action="store_true")
    parser.add_argument("--without-cure", action="store_true")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        from ltx_dist.cli import app

        prepare(given.without_cure)
        app(given.child)
    else:
        same_in_all_starts(given)


def same_in_all_starts(given: argparse.Namespace) -> None:
    values: defaultdict[str, Counter[str]] = defaultdict(Counter)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ltx-first-clip-") as folder:
        root = Path(folder)
        os.environ["LTX_DIST_CACHE"] = str(root / "cache")
        if given.forked:
            import_everything()
        (root / "prompts.txt").write_text(PROMPTS)
        one_start(root, "encoded", given)  # leaves the encoded prompts in the cache
        for number in range(1, given.starts + 1):
            for name, digest in one_start(root, str(number), given).items():
                values[name][digest] += 1
            if number % 20 == 0 or number == given.starts:
                seen = ", ".join(f"{name} {sorted(found.values())}" for name, found in sorted(values.items()))
                print(f"{number} starts, {time.monotonic() - began:.0f} s: {seen}", flush=True)
    most = max(map(len, values.values()))
    print(f"{given.starts} process starts: {most} value{'s' * (most > 1)} per clip")
    sys.exit(most > 1)


def one_start(root: Path, name: str, given: argparse.Namespace) -> dict[str, str]:
    """The digest of each clip's latents, by the clip's name, after one run in a process of its own."""
    out, log = root / name, root / "log"
    words = ["render", str(root / "prompts.txt"), "-m", "demo", "-o", str(out), "--executor", "local"]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    if given.forked:
        code = exit_code(start(words, log, lambda: prepare(given.without_cure)))
    else:
        flags = ["--without-cure"] * given.without_cure
        with log.open("wb") as file:
            code = Popen([sys.executable, __file__, *flags, "--child", *words], stdout=file, stderr=file).wait()
    if code:
        sys.exit(log.read_text())
    record = json.loads((out / "run.json").read_bytes())
    assert name == "encoded" or not any(e["stage"] == "encode_text" for e in record["events"]), "encoded again"
    return {path.stem: json.loads(path.read_bytes())["latents_sha256"] for path in sorted(out.glob("0*.json"))}


def prepare(without_cure: bool) -> None:
    if without_cure:
        from ltx_dist.worker import stage_worker

        stage_worker.settle_kernels = lambda: None


if __name__ == "__main__":
    main()
