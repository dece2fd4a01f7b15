"""`ltx-dist decode OUT`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ltx_dist.commands.shared import Address, Executor, ExecutorKind, bad_input

SetDecode = Annotated[
    list[str] | None, typer.Option("--set", help="One value of decode.*, output.* or placement.*; see docs/prompts.md.")
]


def decode(
    output: Annotated[str, typer.Argument(help="The folder of a run with --keep-latents.")],
    set_: SetDecode = None,
    executor: Executor = ExecutorKind.AUTO,
    address: Address = None,
) -> None:
    """Decode the clips of a folder again from their latents, with other tiles or another mp4. Loads only the VAE.

    Settings that are not given are those the clips were rendered with. Exit 3: clips without latents stay as they are.
    """
    with bad_input():
        from rich.console import Console

        from ltx_dist.run.decode_again import open_kept
        from ltx_dist.run.run import render_batch
        from ltx_dist.store.output import open_output

        out = open_output(output)
        batch = open_kept(Path(out.folder), set_ or [])
        sys.exit(render_batch(batch, out, executor.value, address, Console()))
