"""Runs probes in forked children of one process that has imported the libraries, instead of one interpreter for each.

This is only for a CPU: CUDA does not survive a fork, and probes with environment variables of their own need them from
the start.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import IO, NoReturn

from .probe import Probe, main


def import_libraries() -> None:
    """Import what probes import, and compute nothing: torch's threads would not survive the fork."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    import diffusers
    import transformers

    import ltx_dist.models.ltx_video.load
    import ltx_dist.worker.stage_worker  # noqa: F401

    for name in ("LTXPipeline", "LTXConditionPipeline", "AutoencoderKLLTXVideo", "LTXVideoTransformer3DModel"):
        getattr(diffusers, name)
    assert transformers.T5EncoderModel is not None
    gc.freeze()  # so that the children's garbage collections skip what was imported


def run_forked(probe: Probe, scale: str, limit: float, out: Path, said: IO[str]) -> int | None:
    """The probe's exit code, or None if it ran out of time and was killed. What it prints goes into `said`."""
    child = os.fork()
    if not child:
        _in_child(probe, scale, out, said)
    deadline, status = time.monotonic() + limit, None
    try:
        while status is None and time.monotonic() < deadline:
            pid, ended = os.waitpid(child, os.WNOHANG)
            if pid:
                status = ended
            else:
                time.sleep(0.05)
    finally:
        if status is None:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return None if status is None else os.waitstatus_to_exitcode(status)


def _in_child(probe: Probe, scale: str, out: Path, said: IO[str]) -> NoReturn:
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        main(probe.name, scale, out)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # the row of a failed probe holds the last line of this
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
