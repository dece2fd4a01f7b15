"""Defaults of a model version, used for settings that neither row nor config sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from ltx_dist.inputs.clip_settings import BatchSettings

TAKES_TIMESTEPS = "LTXConditionPipeline"
"""LTXPipeline of diffusers 0.42 raises on `timesteps`, because it passes its own sigmas along with them."""


@dataclass(frozen=True, slots=True)
class TwoPasses:
    """How a version is published with a latent upscaler: settings of its first pass that replace the preset's, settings
    of its second pass, where they are from, and which of the source's settings are not supported here."""

    first: Mapping[str, Any]
    second: Mapping[str, Any]
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Preset:
    """Defaults of one version: `settings` by the names that rows have for them.

    source: where the values are from. note: which of the source's settings are not supported here. two_passes: None if
    the version is published with one pass. The pipeline class and noise scheduler are not part of a preset: they come
    from checkpoints/versions.py, or from a diffusers folder itself.
    """

    version: str
    settings: Mapping[str, Any]
    source: str
    note: str = ""
    two_passes: TwoPasses | None = None

    def __post_init__(self) -> None:
        unknown = self.settings.keys() - BatchSettings.model_fields.keys()
        assert not unknown, f"{self.version}: no such settings: {unknown}"


def with_settings(preset: Preset, **settings: Any) -> Preset:
    """The preset with these settings replacing its own; use `replace` for its other fields."""
    return replace(preset, settings=MappingProxyType({**preset.settings, **settings}))


def without_setting(preset: Preset, name: str) -> Preset:
    return replace(preset, settings={key: value for key, value in preset.settings.items() if key != name})


COLUMNS = ("version", "width x height", "frames", "frame rate", "steps", "guidance", "tokens", "two passes")
"""Column headings of the table of presets, in the docs and in `ltx-dist models`."""


def preset_row(preset: Preset) -> tuple[str, ...]:
    """One string for each of COLUMNS."""
    settings = preset.settings
    schedule = next((f", by their own `{name}`" for name in ("timesteps", "sigmas") if name in settings), "")
    return (
        preset.version,
        f"{settings['width']} x {settings['height']}",
        str(settings["num_frames"]),
        f"{settings['frame_rate']:g}",
        f"{settings['num_inference_steps']}{schedule}",
        f"{settings['guidance_scale']:g}" if settings["guidance_scale"] > 1 else "none",
        str(settings["max_sequence_length"]),
        "with an upscaler" if preset.two_passes else "no",
    )
