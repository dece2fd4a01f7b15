"""What the commands share: options, reporting bad input, loading a config."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ltx_dist.messages import Mistakes, tell
from ltx_dist.run.stop import EXIT_BAD_INPUT, EXIT_OUTPUT, EXIT_STOPPED
from ltx_dist.store.output_errors import OutputError

if TYPE_CHECKING:
    from ltx_dist.inputs.config import RenderConfig


def complete_profile(incomplete: str) -> list[tuple[str, str]]:
    """Names of profiles with their purpose, for shell completion."""
    from ltx_dist.inputs.profile import profiles, purpose

    return [(name, purpose(path)) for name, path in profiles().items() if name.startswith(incomplete)]


def complete_key(incomplete: str) -> list[tuple[str, str]]:
    """Config keys as `section.key=` with their meaning, for shell completion."""
    from ltx_dist.inputs.reference import config_entries

    keys = [(f"{section}.{one.name}=", one.meaning) for section, ones in config_entries().items() for one in ones]
    return [(key, meaning) for key, meaning in keys if key.startswith(incomplete)]


Prompts = Annotated[
    str | None,
    typer.Argument(
        help="A .txt, .csv, .tsv, .jsonl, .json, .yaml or .parquet file of prompts, its URL (https://, s3://, hf://), "
        "or - for standard input."
    ),
]
Config = Annotated[
    Path | None, typer.Option("-c", "--config", help="A YAML config file; `ltx-dist config > my.yaml` writes one.")
]
Profile = Annotated[
    str | None,
    typer.Option(
        help="Settings for a kind of machine, such as rtx4090; -c and --set override them. "
        "`ltx-dist config --list` lists all.",
        autocompletion=complete_profile,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "-m", "--model", help="Short for --set model.checkpoint=MODEL: a folder, a .safetensors file or owner/name."
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="One config value, such as placement.layout=pinned; `ltx-dist config` prints every key. Repeatable.",
        autocompletion=complete_key,
    ),
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
Address = Annotated[str | None, typer.Option(help="The address of a Ray cluster to join; defaults to RAY_ADDRESS.")]


def load(
    path: Path | None, overrides: list[str] | None, profile: str | None = None, model: str | None = None
) -> RenderConfig:
    """The config. Raises ValueError with one line per mistake; warns of texts that ` #` cut off in the file."""
    from ltx_dist.inputs.config_file import cut_off_texts, load_config
    from ltx_dist.inputs.profile import profile_path

    named = [] if model is None else [f"model.checkpoint={model}"]
    config = load_config(path, [*named, *(overrides or [])], None if profile is None else profile_path(profile))
    for warning in cut_off_texts(path) if path else ():
        tell(f"ltx-dist: warning: {warning}", sys.stderr)
    return config


@contextmanager
def bad_input() -> Iterator[None]:
    """Print errors of the input, and of an output that cannot be read or written, without a traceback, and exit with 2
    or 74."""
    try:
        yield
    except UnicodeEncodeError:
        raise  # also a ValueError, but about the output, not about the input
    except ValueError as error:
        heading = f"{error.number} mistakes:\n" if isinstance(error, Mistakes) and error.number > 1 else ""
        tell(f"ltx-dist: {heading}{error}", sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except OutputError as error:
        tell(f"ltx-dist: {error}; {error.remedy}", sys.stderr)
        sys.exit(EXIT_OUTPUT)
    except KeyboardInterrupt:
        tell("stopped", sys.stderr)
        sys.exit(EXIT_STOPPED)
