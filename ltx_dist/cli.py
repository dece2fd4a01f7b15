"""The command line. Heavy libraries are imported only where a command needs them, so that `--help` is instant."""

from __future__ import annotations

import sys
from contextlib import closing, nullcontext
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ltx_dist import __version__
from ltx_dist.commands.shared import Config, Prompts, Set, bad_input, load

if TYPE_CHECKING:
    from ltx_dist.config import RenderConfig


class ExecutorKind(str, Enum):
    """What `--executor` may be."""

    AUTO = "auto"
    LOCAL = "local"
    RAY = "ray"


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Render batches of prompts with LTX-Video on one or many GPUs. "
    "Exit codes: 0 all done, 1 internal error, 2 bad input, 3 some clips failed, 74 output could not be written, "
    "75 stopped and resumable.",
)

Output = Annotated[Path, typer.Option("-o", "--output", help="The folder for the clips; what it holds is kept.")]
Executor = Annotated[
    ExecutorKind, typer.Option(help="This process or Ray actors; auto is Ray for a cluster or several workers.")
]
Address = Annotated[str | None, typer.Option(help="A running Ray cluster to join; RAY_ADDRESS by default.")]
JsonEvents = Annotated[Path | None, typer.Option(help="Append what happens to this file, one JSON object a line.")]
Bfloat16 = Annotated[bool, typer.Option("--bfloat16", help="Short for --set model.precision=bfloat16.")]


@app.command()
def render(
    prompts: Prompts,
    output: Output,
    config: Config = None,
    set_: Set = None,
    executor: Executor = ExecutorKind.AUTO,
    address: Address = None,
    bfloat16: Bfloat16 = False,
    json_events: JsonEvents = None,
) -> None:
    """Render a file of prompts into a folder of clips. Run it again to go on where it stopped."""
    with bad_input():
        overrides = [*(set_ or []), *(["model.precision=bfloat16"] if bfloat16 else [])]
        sys.exit(_render(prompts, output, load(config, overrides), executor, address, json_events))


@app.command()
def demo(
    output: Output = Path("out/demo"),
    config: Config = None,
    set_: Set = None,
    executor: Executor = ExecutorKind.AUTO,
    address: Address = None,
    json_events: JsonEvents = None,
) -> None:
    """Render the packaged prompts with the packaged model, and print who did what when. Works offline, on a CPU."""
    from ltx_dist.demo import PROMPTS, demo_config

    with bad_input():
        settings = load(config, set_ or []) if config else demo_config(set_ or [])
        exit_code = _render(str(PROMPTS), output, settings, executor, address, json_events)
        if exit_code == 0:
            print()
            _print_timeline(output)
            print(f"\nOpen {output / 'index.html'}: every clip with its settings, and who did what when.")
    sys.exit(exit_code)


@app.command()
def timeline(folder: Annotated[Path, typer.Argument(help="The folder of a run.")]) -> None:
    """Print what each worker did when, in the last run into a folder."""
    with bad_input():
        _print_timeline(folder)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="The folder of a run.")]) -> None:
    """Write the page (index.html) and the trace of a folder anew, from run.json and the clips' sidecars."""
    with bad_input():
        from ltx_dist.output.report import write_report
        from ltx_dist.output.trace import write_trace

        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder")
        if (folder / "run.json").exists():
            print(write_trace(folder))
        print(write_report(folder))


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="The folder of a run.")]) -> None:
    """Check every published clip: whole, readable, and the very file that was written. Exit 3 if any is not."""
    with bad_input():
        from ltx_dist.output.verify import verify_folder

        verdicts = list(verify_folder(folder))
    bad = [verdict for verdict in verdicts if verdict.problem is not None]
    for verdict in bad:
        print(f"{verdict.name}: {verdict.problem}")
    print(f"{len(verdicts) - len(bad)} of {len(verdicts)} clips are whole")
    if bad:
        print("the render command that made this folder renders the others again, and only those")
        sys.exit(3)


@app.command()
def plan(prompts: Prompts, config: Config = None, set_: Set = None) -> None:
    """Say which worker would run what, and in which order. Loads no model and needs no GPU."""
    with bad_input():
        from rich.console import Console

        from ltx_dist.batch import open_batch
        from ltx_dist.devices import local_inventory
        from ltx_dist.plan import print_plan

        batch = open_batch(prompts, load(config, set_ or []))
        print_plan(batch, local_inventory(), Console())


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if show:
        print(f"ltx-dist {__version__}")
        raise typer.Exit


def main() -> None:
    app()


def _render(
    prompts: str,
    output: Path,
    config: RenderConfig,
    executor: ExecutorKind,
    address: str | None,
    json_events: Path | None,
) -> int:
    from rich.console import Console

    from ltx_dist.batch import open_batch
    from ltx_dist.output.event_log import EventLog
    from ltx_dist.run import render_batch

    batch = open_batch(prompts, config)
    with closing(EventLog(json_events)) if json_events else nullcontext() as events:
        return render_batch(batch, output, executor.value, address, Console(), events)


def _print_timeline(folder: Path) -> None:
    from rich.console import Console

    from ltx_dist.output.run_record import read_run_record, recorded_completions
    from ltx_dist.scheduling.timeline import first_start, gantt, overlaps
    from ltx_dist.types import Stage

    record = read_run_record(folder)
    workers = [worker["worker_id"] for worker in record["workers"]]
    completions = recorded_completions(record)
    print(gantt(completions, workers, width=min(Console().width, 120)))
    others = [c for c in completions if c.assignment.stage in (Stage.ENCODE_TEXT, Stage.DECODE)]
    hidden = {id(overlap.other) for overlap in overlaps(completions)}
    print(f"{len(hidden)} of {len(others)} encodes and decodes ran while another worker denoised another clip")
    print(f"the first work began {first_start(completions):.1f} s after the workers began to load")


if __name__ == "__main__":
    main()
