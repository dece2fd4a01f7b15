"""Options of the commands that read prompts: what they put into the config, and prompts given without a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ltx_dist.inputs.config import RenderConfig

Vary = Annotated[
    list[str] | None,
    typer.Option(
        "--vary",
        metavar="FIELD=VALUES",
        help="Render every prompt with each of these values, such as seed=0-4 or guidance_scale=1,3,5. Several make "
        "every combination.",
    ),
]
Expand = Annotated[
    str | None,
    typer.Option(
        metavar="all|NUMBER",
        help="Render the prompts that {red|blue} and __colour__ (the lines of colour.txt) stand for: all of them, or "
        "this number per row.",
    ),
]


def with_prompt_options(config: RenderConfig, vary: list[str] | None, expand: str | None) -> RenderConfig:
    """The config with the options' values in place of its own. Raises ValueError naming the option."""
    config = config.model_copy(deep=True)  # `remember` is not to change the defaults that all configs share
    if vary:
        from ltx_dist.inputs.vary import assignments

        try:
            given = assignments(vary)
        except ValueError as error:
            raise ValueError(f"--vary: {error}") from None
        defaults = config.defaults.model_copy(update={"vary": {**(config.defaults.vary or {}), **given}})
        defaults.remember({"defaults.vary": "--vary"})
        config = config.model_copy(update={"defaults": defaults})
    if expand is not None:
        number = int(expand) if expand.isascii() and expand.isdigit() else 0
        if expand not in ("all", "off") and not 1 <= number < 2**63:
            raise ValueError(f"--expand: {expand!r} is not all, off or a number of at least 1")
        config = config.model_copy(update={"prompts": config.prompts.model_copy(update={"expand": number or expand})})
    return config
