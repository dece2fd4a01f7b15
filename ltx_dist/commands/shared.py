"""What the commands share: options, how bad input ends a command, how a config is loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ltx_dist.messages import Mistakes, clean_lines

if TYPE_CHECKING:
    from ltx_dist.inputs.config import RenderConfig

Prompts = Annotated[
    str, typer.Argument(help="A .txt, .csv, .jsonl, .json or .yaml file of prompts, or - for standard input.")
]
Config = Annotated[Path | None, typer.Option("-c", "--config", help="A YAML config file; see configs/ for examples.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="One config value, such as placement.layout=pinned; see docs/prompts.md."),
]


class ExecutorKind(StrEnum):
    """Values of `--executor`."""

    AUTO = "auto"
    LOCAL = "local"
    RAY = "ray"


Executor = Annotated[
    ExecutorKind,
    typer.Option(
        help="Where workers run: in this process or as Ray actors; auto uses Ray for a cluster or several workers."
    ),
]
Address = Annotated[str | None, typer.Option(help="The address of a Ray cluster to join; RAY_ADDRESS by default.")]


def load(path: Path | None, overrides: list[str] | None) -> RenderConfig:
    """The config. Raises ValueError with one line per mistake; warns of texts that ` #` cut off in the file."""
    from ltx_dist.inputs.config_file import cut_off_texts, load_config

    config = load_config(path, overrides or [])
    for warning in cut_off_texts(path) if path else ():
        print(f"ltx-dist: warning: {clean_lines(warning)}", file=sys.stderr)
    return config


@contextmanager
def bad_input() -> Iterator[None]:
    """Print input errors without a traceback, and exit with 2."""
    try:
        yield
    except UnicodeEncodeError:
        raise  # also a ValueError, but about what is written, not about the input
    except ValueError as error:
        heading = f"{error.number} mistakes:\n" if isinstance(error, Mistakes) and error.number > 1 else ""
        print(f"ltx-dist: {heading}{clean_lines(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(75)
