"""The command that renders a clip of the page again, from its sidecar alone."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from ltx_dist.inputs.prompt_row import Row
from ltx_dist.inputs.windows import in_order, parts_of
from ltx_dist.pipeline.conditions import SecondPass
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.settings import declared
from ltx_dist.pipeline.sound import SoundSecondPass

_UNASKED: dict[str, Any] = {
    field.name: json.loads(json.dumps(field.default)) for field in fields(RenderRequest) if field.default is not MISSING
}
"""Defaults of a request's optional settings, which mean "not used"; some of them are not valid in a row."""

_FIELDS = frozenset(Row.model_fields)

_SCHEDULE = ("num_inference_steps", "timesteps", "denoise_strength")
_SECOND_PASS = [key for key in declared(SecondPass) if key not in _SCHEDULE]


def copied_command(request: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The command that renders the clip again, for a POSIX shell: its row, piped to a `render` of the same settings.

    settings: config values to set, by dotted key. It uses printf because echo interprets JSON's backslashes in some
    shells. `commandOf` in data.js builds the same command.
    """
    row = json.dumps(row_of(request, settings))
    return f"printf '%s\\n' {shlex.quote(row)} | ltx-dist render - -o again{options_of(settings)}"


def row_of(request: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of a request as a row of a prompt file. Settings that are null are left out."""
    asked = _in_words_of_a_row(request, settings)
    given = {key: value for key, value in asked.items() if value is not None and key != "request_id"}
    return {"name": request["request_id"]} | {
        key: value for key, value in given.items() if key in _FIELDS or value != _UNASKED.get(key)
    }


def options_of(settings: Mapping[str, Any]) -> str:
    """The settings as `--set` options, each preceded by a space; the packaged model needs none."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
    return "".join(
        f" --set {shlex.quote(f'{key}={text}')}"
        for key, text in texts.items()
        if (key, text) != ("model.checkpoint", "demo")
    )


def _in_words_of_a_row(request: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A request in the form of a row: media and LoRAs by path, and sound settings as fields of the row itself."""
    row = dict(request)
    sound, second, conditions = row.pop("sound", None), row.pop("second_pass", None), row.pop("conditions", None)
    video, reference, loras = (row.pop(key, None) for key in ("video", "reference", "loras"))
    if sound:
        row |= {key: value for key, value in sound.items() if value not in (None, [])}
    if second:
        of_row = _second_pass_of_sound(second) if sound else _second_pass(second, request)
        row["second_pass"] = of_row
    elif sound or settings.get("model.upscaler"):
        row["recipe"] = "one_pass"
    if conditions:
        row["conditions"] = [_condition(one, bool(sound)) for one in conditions]
    if video:
        row |= {"video": video["place"]} | _preparation(video)
    else:
        row.pop("denoise_strength", None)
    if reference:
        row |= {"reference": reference["place"]} | _preparation(reference)
    if windows := row.pop("windows", None):
        row["windows"] = {key: value for key, value in windows.items() if key != "prompts"}
        if list(windows["prompts"]) != in_order(parts_of(row["prompt"]), len(windows["prompts"])):
            row["segments"] = [{"prompt": prompt} for prompt in windows["prompts"]]
            del row["prompt"]
    if loras or settings.get("model.loras"):
        row["loras"] = _loras(loras or ())
    return row


def _loras(loras: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"path": one["place"], "weight": one["weight"]} for one in loras]


def _second_pass_of_sound(second: Mapping[str, Any]) -> dict[str, Any]:
    loras = {"loras": _loras(second["loras"])} if second.get("loras") else {}
    return {key: second[key] for key in declared(SoundSecondPass)} | loras


def _condition(one: Mapping[str, Any], with_sound: bool) -> dict[str, Any]:
    row = {"video" if one["is_video"] else "image": one["place"]}
    row |= {key: one[key] for key in ("frame_index", "strength", "fit")}
    if one["is_video"]:
        row |= {key: one[key] for key in ("start_frame", "num_frames")}
    elif with_sound:
        row["crf"] = one["crf"]
    elif one["preprocess"] == "official":
        row |= _preparation(one)
    return row


def _preparation(one: Mapping[str, Any]) -> dict[str, Any]:
    """The fit and preparation of a medium, as fields of a row."""
    names = ("fit", "preprocess", "crf", "blur") if one["preprocess"] == "official" else ("fit",)
    return {key: one[key] for key in names}


def _second_pass(second: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """The second pass as a row has it. Sizes are rounded down when a row is read, so the downscale factor is chosen a
    hundredth of a pixel above the first pass's size."""
    row = {key: second[key] for key in _SECOND_PASS}
    row["downscale_factor"] = min(
        1.0, max((second[f"first_{side}"] + 0.01) / request[side] for side in ("height", "width"))
    )
    scheduled = ("timesteps",) if second["timesteps"] is not None else ("num_inference_steps", "denoise_strength")
    return row | {key: second[key] for key in scheduled}
