"""`ltx-dist decode OUT`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ltx_dist.commands.shared import Address, Executor, ExecutorKind, bad_input

SetDecode = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="One value of decode.*, output.* or placement.*; `ltx-dist config` prints them. Repeatable."
    ),
]


def decode(
    output: Annotated[str, typer.Argument(help="The folder of a run with --keep-latents.")],
    set_: SetDecode = None,
    executor: Executor = ExecutorKind.AUTO,
    address: Address = None,
) -> None:
    """Decode the clips of a folder again from their latents, with other tiles or mp4 settings. Loads only the VAE.

    All other settings stay those of the clips. Clips without latents are left as they are; the exit code is then 3.
    """
    with bad_input():
        from ltx_dist.commands.rendering import run_command
        from ltx_dist.run.decode_again import open_kept
        from ltx_dist.store.output import open_output

        out = open_output(output)
        batch = open_kept(Path(out.folder), set_ or [])
        sys.exit(run_command(batch, out, executor, address))
