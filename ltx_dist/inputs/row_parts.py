"""The parts of a request that take several fields of a row: images and videos, second pass, windows, LoRAs, sound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.inputs.clip_settings import SOUND_FIELDS
from ltx_dist.inputs.loras import LoraResolver
from ltx_dist.inputs.media import FIELDS as MEDIA_FIELDS
from ltx_dist.inputs.media import MediaResolver
from ltx_dist.inputs.media_rows import LoraRow, lora_rows
from ltx_dist.inputs.passes import overlaid_schedule, second_pass
from ltx_dist.inputs.preset import Preset
from ltx_dist.inputs.sound import sound_problems, sound_second_pass, sound_settings, sound_warnings
from ltx_dist.inputs.windows import FIELDS as WINDOW_FIELDS
from ltx_dist.inputs.windows import asks_for_windows, windows_of
from ltx_dist.media.checks import high_frame_rate_warning, refined_aspect_warning
from ltx_dist.pipeline.conditions import SecondPass

_ASKING = (*MEDIA_FIELDS, *WINDOW_FIELDS, "recipe", "second_pass", "loras")
"""Fields of a row that ask for these parts; a request does not have them."""


class PartsResolver:
    """Resolves the parts of one row after another. problems, as (field, message), and warnings: the last row's."""

    def __init__(
        self,
        folder: Path | str,
        checkpoint: Checkpoint,
        preset: Preset,
        defaults: Mapping[str, Any],
        loras: Sequence[LoraRow],
    ) -> None:
        """folder: the prompt file's; paths are relative to it. loras: the config's `model.loras`."""
        self.problems: list[tuple[str, str]] = []
        self.warnings: list[str] = []
        self._checkpoint, self._preset, self._defaults = checkpoint, preset, defaults
        self._media = MediaResolver(folder, checkpoint)
        self._loras, self._model_loras = LoraResolver(folder, checkpoint, loras), loras

    def resolve(self, row: dict[str, Any], given: Mapping[str, Any], two_passes: bool) -> dict[str, Any]:
        """The parts, by field of the request; those with an error in `problems` are missing.

        row: values that are valid by themselves; fields that ask for parts, or have no effect, are removed from it.
        given: the row as it was written.
        """
        asked = {key: row.pop(key, None) for key in _ASKING}
        media = row | asked
        parts = self._media.resolve(media)
        self.problems = list(self._media.problems)
        self.warnings = [f"{field}: {message}" for field, message in self._media.warnings]
        loras_of_pass = self._add_second_pass(parts, asked, media) if two_passes else []
        self._add_windows(parts, row, asked | {"second_pass": two_passes})
        if not any(asked[field] for field in ("image", "conditions", "reference")) or asks_for_windows(asked):
            row.pop("image_cond_noise_scale", None)  # it has no effect, and must not change the key
        if self._add_loras(parts, asked) and loras_of_pass:
            self._add_loras_of_pass(parts, loras_of_pass, given)
        if self._checkpoint.generation:
            self._add_sound(parts, row, media)
        else:
            self.warnings += _odd_settings(row, parts.get("second_pass"))
        return parts

    def _add_second_pass(
        self, parts: dict[str, Any], asked: Mapping[str, Any], media: Mapping[str, Any]
    ) -> list[LoraRow]:
        """Add the second pass. Returns the LoRAs that only this pass uses."""
        try:
            of_row: dict[str, Any] = asked["second_pass"].model_dump() if asked["second_pass"] else {}
            of_preset = self._preset.two_passes.second if self._preset.two_passes else {}
            settings = overlaid_schedule(overlaid_schedule(of_preset, self._defaults.get("second_pass", {})), of_row)
            make = sound_second_pass if self._checkpoint.generation else second_pass
            parts["second_pass"] = make(settings, media, self._checkpoint)
            return [LoraRow.model_validate(one) for one in lora_rows(settings.get("loras") or [])]
        except ValueError as error:
            self.problems.append(("second_pass", str(error)))
            return []

    def _add_windows(self, parts: dict[str, Any], row: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
        try:
            parts["windows"] = windows_of(row, asked, self._checkpoint)
        except ValueError as error:
            field, _, message = str(error).partition(": ")
            self.problems.append((field, message))

    def _add_loras(self, parts: dict[str, Any], asked: Mapping[str, Any]) -> bool:
        """Add the LoRAs. Returns whether all are valid. Paths in the config are relative to the working directory."""
        of_config = asked["loras"] is None
        try:
            parts["loras"] = self._loras.resolve(
                self._model_loras if of_config else asked["loras"],
                Path() if of_config else None,
                has_reference=bool(asked["reference"]),
            )
        except ValueError as error:
            self.problems.append(("model.loras" if of_config else "loras", str(error)))
            return False
        return True

    def _add_loras_of_pass(self, parts: dict[str, Any], loras: Sequence[LoraRow], given: Mapping[str, Any]) -> None:
        of_row = (given.get("second_pass") or {}).get("loras")
        try:
            found = self._loras.resolve(loras, None if of_row else Path(), beside=parts["loras"])
            parts["second_pass"] = replace(parts["second_pass"], loras=found)
        except ValueError as error:
            self.problems.append(("second_pass", f"loras: {error}"))

    def _add_sound(self, parts: dict[str, Any], row: dict[str, Any], media: Mapping[str, Any]) -> None:
        asked = {key: row.pop(key, None) for key in SOUND_FIELDS}
        self.problems += sound_problems(asked, media, self._checkpoint)
        self.warnings += sound_warnings(asked, media, self._checkpoint)
        parts["sound"] = None if self.problems else sound_settings(asked, media)


def _odd_settings(row: Mapping[str, Any], two: SecondPass | None) -> Iterator[str]:
    """Warnings about settings of an LTX-Video clip that may not be meant."""
    if message := high_frame_rate_warning(row["frame_rate"]):
        yield f"frame_rate: {message}"
    if two and (message := refined_aspect_warning(two.width, two.height, row["width"], row["height"])):
        yield f"second_pass: {message}"
