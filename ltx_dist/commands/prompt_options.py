"""Options of the commands that read prompts: their config values, and prompts given without a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ltx_dist.inputs.config import RenderConfig

PANEL = "Prompts and variations"

Vary = Annotated[
    list[str] | None,
    typer.Option(
        "--vary",
        rich_help_panel=PANEL,
        metavar="FIELD=VALUES",
        help="Render every prompt with each of these values, such as seed=0-4 or guidance_scale=1,3,5. Several "
        "--vary render every combination.",
    ),
]
Expand = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=PANEL,
        metavar="all|NUMBER",
        help="Render the prompts that {red|blue} and __colour__ (the lines of colour.txt) stand for: all of them, or "
        "this number per row.",
    ),
]


Text = Annotated[
    list[str] | None,
    typer.Option("--prompt", rich_help_panel=PANEL, metavar="TEXT", help="A prompt, instead of a file; repeatable."),
]
Column = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        rich_help_panel=PANEL,
        metavar="NAME=FIELD",
        help="Read a column or key as another field, such as caption=prompt; repeatable.",
    ),
]
KeepColumns = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=PANEL,
        metavar="NAME,NAME",
        help="Columns or keys that are not fields, to copy into the sidecar under `meta`.",
    ),
]

Images = Annotated[
    Path | None,
    typer.Option(help="A folder of images; each becomes the first frame of the clip with the same name."),
]


def given_prompts(source: str | None, texts: list[str] | None) -> str | list[str]:
    """The prompt file, or the prompts. Raises ValueError if both or neither are given."""
    if (source is None) == (not texts):
        raise ValueError("give either a file of prompts or --prompt")
    return source if source is not None else texts or []


def with_prompt_options(
    config: RenderConfig,
    vary: list[str] | None,
    expand: str | None,
    column: list[str] | None,
    keep_columns: str | None,
) -> RenderConfig:
    """The config with the options' values replacing its own. Raises ValueError naming the option."""
    config = config.model_copy(deep=True)  # `remember` must not change the defaults that all configs share
    if vary:
        from ltx_dist.inputs.vary import VARY_FORM, with_vary

        config = with_vary(config, _assignments("--vary", vary, VARY_FORM), "--vary")
    if expand is not None:
        number = expand.isascii() and expand.isdigit() and len(expand) < 19
        config = _with(config, "--expand", expand=int(expand) if number else expand)
    if column:
        columns = _assignments("--column", column, "COLUMN=FIELD, such as caption=prompt")
        config = _with(config, "--column", columns={**config.prompts.columns, **columns})
    if keep_columns is not None:
        config = _with(config, "--keep-columns", keep_columns=[name.strip() for name in keep_columns.split(",")])
    return config


def _assignments(option: str, given: list[str], form: str) -> dict[str, str]:
    from ltx_dist.inputs.vary import assignments

    try:
        return assignments(given, form)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def _with(config: RenderConfig, option: str, **update: Any) -> RenderConfig:
    """The config with one value of its section `prompts` replaced by an option's."""
    from pydantic import ValidationError

    from ltx_dist.inputs.explain import explain
    from ltx_dist.inputs.reading_config import PromptsConfig

    try:
        prompts = PromptsConfig.model_validate({**config.prompts.model_dump(exclude_unset=True), **update})
    except ValidationError as error:
        raise ValueError(f"{option}: {explain(error.errors()[0], None, (), option)}") from None
    return config.model_copy(update={"prompts": prompts})
