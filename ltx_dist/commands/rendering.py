"""What `render`, `demo` and `decode` share: signals stop the run, and a line and an exit code report its end."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from ltx_dist.commands.shared import ExecutorKind
from ltx_dist.run.stop import EXIT_INTERNAL, EXIT_OUTPUT, EXIT_STOPPED

if TYPE_CHECKING:
    from ltx_dist.run.batch import Batch
    from ltx_dist.store.output import Output


def run_command(
    batch: Batch, out: Output, executor: ExecutorKind, address: str | None, json_events: Path | None = None
) -> int:
    """Render a batch. Returns the exit code, which is also in `run.json`. Raises ValueError for bad input."""
    from ltx_dist.cluster.given_address import given_address
    from ltx_dist.commands.console import lasting_console
    from ltx_dist.commands.signals import stop_on_signals
    from ltx_dist.engine.executor import WorkerStartError
    from ltx_dist.engine.failures import SystemicError
    from ltx_dist.engine.workers import WorkersLostError
    from ltx_dist.report.event_log import EventLog
    from ltx_dist.run.run import render_batch
    from ltx_dist.run.session import say
    from ltx_dist.store.lock import check_platform
    from ltx_dist.store.output_errors import OutputError

    check_platform()
    console = lasting_console()
    try:
        with ExitStack() as held:
            followers = [held.enter_context(closing(EventLog(json_events)))] if json_events else []
            stop = held.enter_context(stop_on_signals(batch.config.recovery.grace_seconds))
            run = render_batch(batch, out, executor.value, given_address(address), stop, console, followers)
            assert run.exit_code is not None
            return run.exit_code
    except OutputError as error:
        say(console, f"cannot write the output: {error}; {error.remedy}, then rerun the same command", "red")
        return EXIT_OUTPUT
    except (WorkerStartError, SystemicError) as error:
        say(console, f"stopped: no clip can be rendered with this setup: {error}", "red")
        return EXIT_INTERNAL
    except WorkersLostError as error:
        say(console, f"stopped: {error}; rerun the same command to resume", "red")
        return EXIT_STOPPED
    except KeyboardInterrupt:
        say(console, "stopped; rerun the same command to resume")
        return EXIT_STOPPED
