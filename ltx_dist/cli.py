"""The command line. Heavy libraries are imported only where a command needs them, so that `--help` is instant."""

from __future__ import annotations

import gc
import logging
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ltx_dist import __version__
from ltx_dist.commands import doctor, folders, jobs, reference
from ltx_dist.commands.console import accept_all_characters, open_standard_streams
from ltx_dist.commands.decode import decode
from ltx_dist.commands.export import export
from ltx_dist.commands.prompt_options import (
    Column,
    Expand,
    Images,
    KeepColumns,
    Text,
    Vary,
    given_prompts,
    with_prompt_options,
)
from ltx_dist.commands.shared import (
    Address,
    Config,
    Executor,
    ExecutorKind,
    Model,
    Profile,
    Prompts,
    Set,
    bad_input,
    load,
)
from ltx_dist.environment import set_ours
from ltx_dist.messages import clean_lines, tell
from ltx_dist.run.stop import EXIT_DONE, EXIT_INTERNAL, EXIT_OUTPUT
from ltx_dist.user_cache import from_home

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ltx_dist.inputs.config import RenderConfig


EXAMPLES = """Examples:

ltx-dist demo

ltx-dist plan prompts.txt -m Lightricks/LTX-Video --profile rtx4090

ltx-dist render prompts.txt -m Lightricks/LTX-Video --profile rtx4090 -o clips
"""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Render batches of prompts with LTX-Video or LTX-2 on one or many GPUs. "
    "Exit codes: 0 all done, 1 internal error, 2 bad input, 3 some clips failed, 74 cannot write the output, "
    "75 stopped and resumable.",
    epilog=EXAMPLES,
)

RENDER, LOOK, CLUSTER, SETUP = "Render", "Results", "Ray cluster", "Set up"

Output = Annotated[
    str,
    typer.Option(
        "-o",
        "--output",
        help="The folder for the clips, or a URL (s3://, gs://...); clips that are up to date are kept.",
    ),
]
PlannedOutput = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        help="An output folder: also count its clips that an earlier version of ltx-dist made.",
    ),
]
JsonEvents = Annotated[Path | None, typer.Option(help="Append events to this file as JSON Lines.")]
Exact = Annotated[
    bool,
    typer.Option("--exact", help="Fail a clip that runs out of memory instead of retrying in ways that change pixels."),
]
Bfloat16 = Annotated[bool, typer.Option("--bfloat16", help="Short for --set model.precision=bfloat16.")]
KeepLatents = Annotated[
    bool, typer.Option("--keep-latents", help="Short for --set recovery.keep_latents=true; `decode` needs it.")
]


@app.command(rich_help_panel=RENDER)
def render(
    output: Output,
    prompts: Prompts = None,
    model: Model = None,
    profile: Profile = None,
    config: Config = None,
    set_: Set = None,
    images: Images = None,
    executor: Executor = ExecutorKind.AUTO,
    address: Address = None,
    bfloat16: Bfloat16 = False,
    exact: Exact = False,
    json_events: JsonEvents = None,
    keep_latents: KeepLatents = False,
    prompt: Text = None,
    vary: Vary = None,
    expand: Expand = None,
    column: Column = None,
    keep_columns: KeepColumns = None,
) -> None:
    """Render a file of prompts into a folder of clips. Rerun the same command to resume."""
    with bad_input():
        short = {
            "model.precision=bfloat16": bfloat16,
            "recovery.keep_latents=true": keep_latents,
            "recovery.exact=true": exact,
        }
        overrides = [*(set_ or []), *(override for override, given in short.items() if given)]
        settings = load(config, overrides, profile, model)
        settings = with_prompt_options(settings, vary, expand, column, keep_columns)
        sys.exit(_render(given_prompts(prompts, prompt), output, settings, executor, address, json_events, images))


@app.command(rich_help_panel=RENDER)
def demo(
    output: Output = "out/demo",
    config: Config = None,
    set_: Set = None,
    executor: Executor = ExecutorKind.AUTO,
    address: Address = None,
    json_events: JsonEvents = None,
) -> None:
    """Render the packaged prompts with the packaged model, and print the timeline. Works offline, on a CPU."""
    from ltx_dist.demo import demo_config, demo_prompts, with_packaged_upscaler

    with bad_input():
        overrides = set_ or []
        settings = with_packaged_upscaler(load(config, overrides) if config else demo_config(overrides))
        exit_code = _render(demo_prompts(settings), output, settings, executor, address, json_events)
        if exit_code == EXIT_DONE and "://" not in output:
            tell("")
            folder = from_home(output, "--output")
            folders.print_timeline(folder)
            tell(f"\nOpen {folder / 'index.html'}: every clip with its settings, and the timeline.")
    sys.exit(exit_code)


@app.command(rich_help_panel=RENDER)
def plan(
    prompts: Prompts = None,
    output: PlannedOutput = None,
    model: Model = None,
    profile: Profile = None,
    config: Config = None,
    set_: Set = None,
    prompt: Text = None,
    vary: Vary = None,
    expand: Expand = None,
    column: Column = None,
    keep_columns: KeepColumns = None,
    images: Images = None,
) -> None:
    """Show which worker would run what, and in which order. Loads no model, downloads no weights, needs no GPU.

    With -o it also counts the clips in that folder that an earlier version made and that would be rendered again.
    To plan for GPUs that this machine lacks, set placement.device=cuda, placement.devices and placement.memory_gb.
    """
    with bad_input():
        from ltx_dist.api.planning import plan_of
        from ltx_dist.checkpoints.hub_headers import fetch_headers
        from ltx_dist.commands.console import printing_console
        from ltx_dist.commands.plan_table import print_plan
        from ltx_dist.run.batch import open_batch
        from ltx_dist.run.session import say
        from ltx_dist.store.key_versions import outdated, why_again
        from ltx_dist.store.output_errors import output_errors

        settings = load(config, set_, profile, model)
        settings = with_prompt_options(settings, vary, expand, column, keep_columns)
        batch = open_batch(given_prompts(prompts, prompt), settings, fetch_headers, images)
        console = printing_console()
        print_plan(plan_of(batch), console)
        if output is not None:
            with output_errors():
                number = outdated(from_home(str(output), "--output"), batch.names)
            if number:
                say(console, why_again(number))


for panel, commands in (
    (RENDER, (decode,)),
    (LOOK, (folders.timeline, folders.report, folders.verify, export)),
    (CLUSTER, (jobs.submit, jobs.status, jobs.stop)),
    (SETUP, (doctor.doctor, reference.models, reference.config, reference.fields)),
):
    for command in commands:
        app.command(rich_help_panel=panel)(command)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if show:
        tell(f"ltx-dist {__version__}")
        raise typer.Exit


def main() -> None:
    set_ours()
    accept_all_characters()
    output = open_standard_streams()
    if logging.lastResort:  # prints the messages of our loggers
        logging.lastResort.setFormatter(_CleanFormatter())
    try:
        app()
    except Exception:  # an internal error, whose message may quote what files say
        tell(traceback.format_exc().rstrip(), sys.stderr)
        sys.exit(EXIT_INTERNAL)
    finally:
        # Otherwise the interpreter collects all objects of torch and diffusers before it exits, for over a second.
        gc.freeze()
        output.flush()
        if output.lost is not None:  # what a command prints is its output
            tell(f"ltx-dist: cannot write standard output: {output.lost.strerror}", sys.stderr)
            sys.exit(EXIT_OUTPUT)


class _CleanFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return clean_lines(super().format(record))


def _render(
    prompts: str | Sequence[Any],
    output: str,
    config: RenderConfig,
    executor: ExecutorKind,
    address: str | None,
    json_events: Path | None,
    images: Path | None = None,
) -> int:
    from ltx_dist.commands.rendering import run_command
    from ltx_dist.run.batch import open_batch
    from ltx_dist.store.output import open_output

    batch = open_batch(prompts, config, images=images)
    return run_command(batch, open_output(output), executor, address, json_events)


if __name__ == "__main__":
    main()
