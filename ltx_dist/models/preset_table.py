"""Tabulates the main settings of the presets, for the docs and `ltx-dist models`."""

from __future__ import annotations

from ltx_dist.inputs.preset import Preset

COLUMNS = ("version", "width x height", "frames", "frame rate", "steps", "guidance", "tokens", "two passes")


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
