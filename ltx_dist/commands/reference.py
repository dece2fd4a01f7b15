"""`fields`, `config` and `models`: print what prompt files and configs may contain, and the known versions."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ltx_dist.commands.shared import bad_input, complete_profile
from ltx_dist.messages import tell

if TYPE_CHECKING:
    from ltx_dist.inputs.preset import Preset
    from ltx_dist.inputs.reference import Entry

WIDTH = 100


def fields(
    versions: Annotated[
        list[str] | None, typer.Argument(help="Versions to show the defaults of; `ltx-dist models` lists them.")
    ] = None,
) -> None:
    """List the fields of a prompt file's rows, with their limits and the defaults of the versions named."""
    with bad_input():
        from rich.table import Table

        from ltx_dist.commands.console import printing_console
        from ltx_dist.inputs.reference import row_entries

        presets = [_preset(version) for version in versions or ()]
        table = Table("field", "allowed", *(preset.version for preset in presets), "meaning", box=None, pad_edge=False)
        for entry in row_entries():
            own = (_shown(preset.settings.get(entry.name)) for preset in presets)
            table.add_row(entry.name, _plain(entry.allowed), *own, _plain(entry.meaning))
        printing_console().print(table, highlight=False, markup=False)


def config(
    profile: Annotated[
        str | None, typer.Argument(help="A profile to print instead of the defaults.", autocompletion=complete_profile)
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the profiles.")] = False,
) -> None:
    """Print a config as YAML with comments: every key at its default, or a profile. Edit it and pass it with -c."""
    with bad_input():
        from ltx_dist.inputs.profile import profile_path, profiles, purpose

        if list_:
            for name, path in profiles().items():
                tell(f"{name:18}{purpose(path)}")
        elif profile is not None:
            tell(profile_path(profile).read_text("utf-8").rstrip("\n"))
        else:
            tell("\n".join(default_config()))


def models() -> None:
    """List the known model versions with their main settings and the sources of these."""
    from rich.table import Table

    from ltx_dist.commands.console import printing_console
    from ltx_dist.inputs.preset import COLUMNS, preset_row

    table = Table(*COLUMNS, "source", box=None, pad_edge=False)
    for preset in _presets().values():
        table.add_row(*(_plain(cell) for cell in preset_row(preset)), preset.source)
    printing_console().print(table, highlight=False, markup=False)
    tell(
        "\nA checkpoint is `demo`, a folder in diffusers layout, an official .safetensors file, or owner/name on the "
        "Hugging Face hub. `ltx-dist plan` says which version it is; model.version names one of these instead."
    )


def default_config() -> Iterator[str]:
    """The lines of a config that sets every key to its default."""
    from ltx_dist.inputs.reference import config_entries

    yield "# Every key at its default. Remove what you do not change."
    for section, entries in config_entries().items():
        yield f"\n{section}:"
        for entry in entries:
            yield from _commented(entry)


def _commented(entry: Entry) -> Iterator[str]:
    # A default of `defaults.*` is not shown: what is not set comes from the version's preset.
    about = f"{_plain(entry.meaning).rstrip('.')}. Allowed: {_plain(entry.allowed)}."
    yield from textwrap.wrap(about, WIDTH, initial_indent="  # ", subsequent_indent="  # ")
    yield f"  {entry.name}: {_yaml(entry.default)}"


def _yaml(value: Any) -> str:
    import json

    return "null" if value is None else value if isinstance(value, str) and value.isalnum() else json.dumps(value)


def _plain(markdown: str) -> str:
    return markdown.replace("`", "")


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{number:g}" for number in value)
    return "" if value is None else repr(value) if isinstance(value, str) else f"{value:g}"


def _presets() -> Mapping[str, Preset]:
    from ltx_dist.models.family import FAMILIES

    return {version: preset for family in FAMILIES for version, preset in family.presets.items()}


def _preset(version: str) -> Preset:
    from ltx_dist.inputs.explain import did_you_mean

    if version not in (known := _presets()):
        raise ValueError(f"{version}: no such version{did_you_mean(version, known)}")
    return known[version]
