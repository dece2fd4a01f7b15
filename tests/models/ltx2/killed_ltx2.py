"""Runs the command in forked children that die by SIGKILL when a stage begins.

    python killed_ltx2.py < cases.json          # [[STAGE, [ARGUMENT, ...]], ...] -> one exit code per line

Importing torch and diffusers takes several seconds, a tiny clip only one, so the parent imports them once. It computes
nothing with torch itself, because torch's threads would not survive a fork.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from ltx_dist.cli import app  # noqa: E402
from ltx_dist.models.family import FAMILIES  # noqa: E402
from ltx_dist.store.background_writer import BackgroundWriter  # noqa: E402
from ltx_dist.worker.stage_worker import StageWorker  # noqa: E402


def die(stage: str, arguments: list[str]) -> None:
    run = StageWorker.run

    def run_or_die(self: StageWorker, name: str, *rest: Any, **more: Any) -> Any:
        if name == stage:
            os.kill(os.getpid(), signal.SIGKILL)
        return run(self, name, *rest, **more)

    StageWorker.run = run_or_die  # type: ignore[method-assign]
    # By then, the outputs of earlier stages are on the disk, so it is known what a rerun still has to do.
    BackgroundWriter.do = lambda self, action: action()  # type: ignore[method-assign]
    app(arguments, standalone_mode=False)


def main() -> None:
    family = next(family for family in FAMILIES if family.name == "ltx2")
    for operation in family.operations:
        family.operation(operation)  # imports diffusers
    for stage, arguments in json.load(sys.stdin):
        child = os.fork()
        if child == 0:
            try:
                os.dup2(2, 1)
                die(stage, arguments)
            finally:
                os._exit(1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
