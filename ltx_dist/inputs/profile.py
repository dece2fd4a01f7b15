"""Configs that come with the package, one for each kind of machine."""

from __future__ import annotations

from pathlib import Path

from ltx_dist.inputs.explain import did_you_mean

_FOLDER = Path(__file__).with_name("profiles")


def profiles() -> dict[str, Path]:
    """The profiles by name, such as `rtx4090`; each file's first line says what it is for."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.yaml"))}


def profile_path(name: str) -> Path:
    """The path of a profile. Raises ValueError naming the profiles if there is none with this name."""
    known = profiles()
    if name not in known:
        raise ValueError(f"--profile {name}: no such profile{did_you_mean(name, known)}")
    return known[name]


def purpose(path: Path) -> str:
    """What a profile is for: its first line."""
    return path.read_text("utf-8").splitlines()[0].removeprefix("# ")
