"""Runs `ltx-dist render` in forked children, so that hundreds of runs can be started and killed in minutes.

Starting an interpreter and importing torch and diffusers takes several seconds, a tiny batch only one. So the parent
imports them once, computes nothing with torch itself (torch's threads would not survive a fork), and forks one child
per run.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = [str(ROOT), str(ROOT / "tests")]
sys.path[:0] = OURS
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.pop("RAY_ADDRESS", None)

SIZE = ["defaults.height=32", "defaults.width=32", "defaults.num_frames=9", "defaults.num_inference_steps=2"]
PLACE = ["placement.device=cpu", "placement.threads=1", "output.threads=1"]


def import_everything() -> None:
    """Import everything that a run imports, so that the children need not."""
    import diffusers
    import tiny  # noqa: F401
    import transformers

    import ltx_dist.cli
    import ltx_dist.report.verify  # noqa: F401

    # Both libraries import a class only when it is first accessed.
    for name in (
        "LTXPipeline",
        "AutoencoderKLLTXVideo",
        "LTXVideoTransformer3DModel",
        "FlowMatchEulerDiscreteScheduler",
    ):
        getattr(diffusers, name)
    for name in ("T5EncoderModel", "AutoTokenizer"):
        getattr(transformers, name)


def save_checkpoint(folder: Path) -> Path:
    """Save a tiny checkpoint in a process of its own, because that runs torch. Returns the folder."""
    code = f"import tiny, pathlib; tiny.save_checkpoint(pathlib.Path({str(folder)!r}), '0.9.5')"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(OURS)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, stderr=subprocess.DEVNULL)
    return folder


def write_prompts(path: Path, num_clips: int) -> Path:
    """Write prompts with names and seeds, so that their order does not matter. Returns the path."""
    rows = [{"prompt": f"clip number {n}", "name": f"clip-{n:03}", "seed": n} for n in range(num_clips)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def render_command(prompts: Path, out: Path, checkpoint: Path, *more: str) -> list[str]:
    settings = [f"model.checkpoint={checkpoint}", *SIZE, *PLACE]
    return ["render", str(prompts), "-o", str(out), *(word for s in settings for word in ("--set", s)), *more]


def start(arguments: Sequence[str], log: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Fork a child that runs `ltx-dist` with these arguments and prints into `log`. Returns its process id.

    prepare: called in the child before the command.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        from ltx_dist.cli import app

        prepare()
        app(list(arguments))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def exit_code(child: int) -> int:
    """Wait for a child, and return its exit code; negative for a signal, as in subprocess."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(arguments: Sequence[str], log: Path) -> int:
    return exit_code(start(arguments, log))


def digests(out: Path, failed: Collection[str] = ()) -> dict[str, tuple[str, str]]:
    """The recorded frames_sha256 and the digest of the mp4 as it is on disk, by clip.

    Asserts that every clip is intact, except those in `failed`.
    """
    from ltx_dist.report.verify import verify_folder

    bad = [verdict for verdict in verify_folder(out) if verdict.problem and verdict.name not in failed]
    assert not bad, bad
    found = {}
    for mp4 in sorted(out.glob("*.mp4")):
        sidecar = json.loads(mp4.with_suffix(".json").read_bytes())
        found[mp4.stem] = sidecar["frames_sha256"], hashlib.sha256(mp4.read_bytes()).hexdigest()
        assert found[mp4.stem][1] == sidecar["mp4_sha256"]
    return found
