"""Declares one more setting, in one place: rows, config, docs, hints, keys and shared passes all know it.

Run as a program, because the package derives them when it is imported.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ltx_dist.pipeline import request
from ltx_dist.pipeline.settings import setting


@dataclass(frozen=True, slots=True)
class WiderRequest(request.RenderRequest):
    motion: float = field(default=1.0, metadata=setting("how much moves", ge=0, le=9, other_names="motion_scale"))


request.RenderRequest = WiderRequest  # type: ignore[misc]

from ltx_dist.checkpoints.checkpoint import Checkpoint  # noqa: E402
from ltx_dist.inputs.config_file import load_config  # noqa: E402
from ltx_dist.inputs.prompts import read_prompts  # noqa: E402
from ltx_dist.inputs.reference import config_entries, row_entries  # noqa: E402
from ltx_dist.models.ltx_video.presets import PRESETS  # noqa: E402
from ltx_dist.models.ltx_video.recipes import RECIPE  # noqa: E402
from ltx_dist.pipeline.keys import Making, stage_keys  # noqa: E402
from ltx_dist.pipeline.recipe import Recipe  # noqa: E402
from ltx_dist.scheduling.batching import shared_settings  # noqa: E402

CHECKPOINT = Checkpoint("x", Path(), "LTXConditionPipeline", 32, 8, True, 128, weights={}, num_parameters={})


def read(text: str, *overrides: str) -> list[WiderRequest]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "p.jsonl"
        path.write_text(text)
        return read_prompts(str(path), load_config(None, overrides).defaults, PRESETS["0.9.5"], CHECKPOINT)


def error(text: str) -> str:
    try:
        read(text)
    except ValueError as found:
        return str(found).partition("p.jsonl:1: ")[2]
    raise AssertionError("it was accepted")


(from_row,) = read('{"prompt": "a", "motion": 2.5}')
(from_config,) = read('{"prompt": "a"}', "defaults.motion=2.5")
(plain,) = read('{"prompt": "a"}')
assert (from_row.motion, from_config.motion, plain.motion) == (2.5, 2.5, 1.0)
assert error('{"prompt": "a", "motion": 10}') == "motion: 10 is too large; it must be at least 0 and at most 9"
assert error('{"prompt": "a", "motion_scale": 2}') == "motion_scale: unknown key; did you mean motion?"
(entry,) = [entry for entry in row_entries() if entry.name == "motion"]
assert (entry.meaning, entry.allowed) == ("how much moves", "number, 0 to 9")
assert entry in config_entries()["defaults"]

as_before = request.RenderRequest.__base__(
    **{name: getattr(plain, name) for name in plain.__match_args__ if name != "motion"}
)
stages = [
    replace(stage, settings=(*stage.settings, "motion")) if stage.name == "denoise" else stage for stage in RECIPE
]
wider = Recipe("LTX-Video with motion", tuple(stages))
before, *after = [
    stage_keys(Making(recipe, {}, "LTXConditionPipeline", (32, 8), "float32"), one)
    for recipe, one in ((RECIPE, as_before), (wider, plain), (wider, from_row), (wider, from_config))
]
assert before == after[0], "older clips keep their keys"
assert after[1] == after[2] and after[1]["encode_text"] == before["encode_text"]
assert {stage for stage in before if before[stage] != after[1][stage]} == {"denoise", "decode", "encode_video"}
shared = shared_settings(RECIPE, (plain, from_row, from_config))
assert shared[0] != shared[1] == shared[2], "clips that differ in it share no pass"
print("known everywhere")
