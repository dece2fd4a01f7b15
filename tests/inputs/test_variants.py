"""Rows that vary: which clips they ask for, under which names, and what their sidecars say about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_prompts import CHECKPOINT, DEFAULTS, FUZZ, JSON, PRESET

from ltx_dist.inputs.config import DefaultsConfig
from ltx_dist.inputs.prompts import read_prompts
from ltx_dist.inputs.reading_config import PromptsConfig
from ltx_dist.inputs.variants import summary
from ltx_dist.pipeline.request import RenderRequest

Notes = dict[str, dict[str, Any]]

STORM = {"prompt": "a storm", "name": "storm", "seed": 7}


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(
    *rows: dict[str, Any], defaults: DefaultsConfig = DEFAULTS, expand: Any = "off", notes: Notes | None = None
) -> list[RenderRequest]:
    Path("p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    reading = PromptsConfig(expand=expand)
    return read_prompts("p.jsonl", defaults, PRESET, CHECKPOINT, reading=reading, notes=notes)


def names(*rows: dict[str, Any], **more: Any) -> list[str]:
    return [request.request_id for request in read(*rows, **more)]


def errors(*rows: dict[str, Any], **more: Any) -> list[str]:
    with pytest.raises(ValueError) as caught:
        read(*rows, **more)
    return str(caught.value).splitlines()


def test_num_videos_per_prompt_counts_seeds_from_the_rows_own() -> None:
    requests = read(STORM | {"num_videos_per_prompt": 3}, {"prompt": "b", "num_videos_per_prompt": 2})
    assert [(one.request_id, one.seed) for one in requests] == [
        ("storm-seed7", 7), ("storm-seed8", 8), ("storm-seed9", 9), ("002-b-seed1", 1), ("002-b-seed2", 2)
    ]  # fmt: skip


def test_vary_renders_every_combination() -> None:
    requests = read(STORM | {"vary": {"guidance_scale": [1, 3.5], "num_frames": "9,17"}})
    assert [(one.request_id, one.guidance_scale, one.num_frames, one.seed) for one in requests] == [
        ("storm-guidance_scale1-num_frames9", 1.0, 9, 7),
        ("storm-guidance_scale1-num_frames17", 1.0, 17, 7),
        ("storm-guidance_scale3.5-num_frames9", 3.5, 9, 7),
        ("storm-guidance_scale3.5-num_frames17", 3.5, 17, 7),
    ]


def test_another_value_renames_and_changes_no_clip() -> None:
    row = {"prompt": "a {red|blue} ball", "name": "ball", "vary": {"seed": [3, 5], "guidance_scale": [1, 3]}}
    more = row | {"prompt": "a {green|red|blue} ball", "vary": {"seed": [4, 3, 5], "guidance_scale": [0, 1, 2, 3]}}
    before, after = read(row, expand="all"), read(more, expand="all")
    assert (len(before), len(after)) == (8, 36)
    assert {one.request_id: one for one in before}.items() <= {one.request_id: one for one in after}.items()


def test_default_names_are_of_the_row_and_keep_what_varies_when_cut() -> None:
    row = {
        "prompt": "a very long description of nothing at hand",
        "vary": {"seed": "0-1", "decode_noise_scale": [0.025]},
    }
    assert names(row) == [
        f"001-a-very-long-description-of-nothing-at-ha-seed{seed}-decode_noise_scale0.025" for seed in (0, 1)
    ]
    long = row["vary"] | {"guidance_scale": [3], "guidance_rescale": [0.7], "decode_timestep": [0.05]}
    first, second = names(row | {"vary": long})
    assert len(first) == 100 and first.endswith(
        "-seed0-decode_noise_scale0.025-guidance_scale3-guidance_rescale0.7-decode_timestep0.05"
    )
    assert first.replace("-seed0-", "-seed1-") == second


def test_the_batch_varies_all_rows_but_for_fields_that_a_row_varies_itself() -> None:
    defaults = DefaultsConfig(vary={"seed": "0-1", "guidance_scale": [3]})
    assert names(STORM, {"prompt": "b", "name": "b", "vary": {"seed": [9]}}, defaults=defaults) == [
        "storm-seed0-guidance_scale3", "storm-seed1-guidance_scale3", "b-seed9-guidance_scale3"
    ]  # fmt: skip
    assert names(STORM | {"num_videos_per_prompt": 2}, defaults=defaults) == [
        "storm-seed7-guidance_scale3", "storm-seed8-guidance_scale3"
    ]  # fmt: skip
    repeated = DefaultsConfig(num_videos_per_prompt=2)
    assert names(STORM, STORM | {"name": "b", "vary": {"fit": ["pad"]}}, defaults=repeated) == [
        "storm-seed7", "storm-seed8", "b-fitpad-seed7", "b-fitpad-seed8"
    ]  # fmt: skip


def test_a_number_of_steps_may_vary_where_the_preset_has_a_schedule() -> None:
    requests = read(STORM | {"vary": {"num_inference_steps": [4, 8]}})
    assert [(one.num_inference_steps, one.timesteps) for one in requests] == [(4, None), (8, None)]


def test_alternatives_are_expanded_on_request_only() -> None:
    Path("size.txt").write_text("big\nsmall\n")
    row = {"prompt": "a {red|dark blue} __size__ ball"}
    assert [one.prompt for one in read(row)] == [row["prompt"]]
    requests = read(row, expand="all")
    assert [(one.request_id, one.prompt, one.seed) for one in requests] == [
        ("001-a-red-dark-blue-size-ball-red-big", "a red big ball", 0),
        ("001-a-red-dark-blue-size-ball-red-small", "a red small ball", 0),
        ("001-a-red-dark-blue-size-ball-dark-blue-big", "a dark blue big ball", 0),
        ("001-a-red-dark-blue-size-ball-dark-blue-small", "a dark blue small ball", 0),
    ]
    assert {one.prompt for one in read(row, expand=2)} < {one.prompt for one in requests}
    assert len(read(row, expand=2)) == 2


def test_lists_may_lie_in_a_folder_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "size.txt").write_text("big\n")
    Path("p.txt").write_text("a __size__ ball\n")
    reading = PromptsConfig(expand="all", wildcards=str(tmp_path / "lists"))
    (request,) = read_prompts("p.txt", DEFAULTS, PRESET, CHECKPOINT, reading=reading)
    assert request.prompt == "a big ball"


def test_long_picks_are_named_by_a_digest() -> None:
    row = {
        "prompt": " ".join("{" + f"first alternative {n}|second alternative {n}" + "}" for n in range(3)),
        "name": "x",
    }
    found = names(row, expand="all")
    assert len(set(found)) == 8 and all(len(name) == len("x-0123456789") for name in found)


def test_sidecars_are_told_the_values_and_meta() -> None:
    notes: Notes = {}
    row = {"prompt": "{a|b} {a|b}", "name": "x", "meta": {"id": 7}, "vary": {"seed": [1]}}
    read(row, {"prompt": "c"}, {"prompt": "d", "meta": {"tags": ["e"]}}, expand="all", notes=notes)
    assert notes["x-a-b-seed1"] == {
        "meta": {"id": 7}, "variation": {"of": "x", "values": {"{a|b}": "a", "{a|b} 2": "b", "seed": 1}}
    }  # fmt: skip
    assert notes["003-d"] == {"meta": {"tags": ["e"]}} and "002-c" not in notes


def test_meta_and_how_a_row_varies_are_no_part_of_the_request() -> None:
    (varied,) = read({"prompt": "a storm", "name": "storm", "vary": {"seed": [7]}, "meta": {"id": 1}})
    (plain,) = read(STORM | {"name": "storm-seed7"})
    assert varied == plain


def test_errors_name_row_and_field_once() -> None:
    assert errors(
        {"prompt": "a", "height": 130, "vary": {"seed": "0-9"}},
        {"prompt": "b", "vary": {"seed": "0-9", "cfg": [1]}, "num_videos_per_prompt": 2},
        {"prompt": "c", "guidance_scale": 1, "vary": {"guidance_scale": [-1, 3]}},
        {"prompt": "d", "vary": {"guidance_scale": [-1, 3]}},
        {"prompt": "e", "num_videos_per_prompt": 0, "meta": 3, "vary": [1]},
        {"prompt": "f", "name": "n" * 95, "vary": {"seed": "0-1"}},
        {"prompt": "g", "meta": {"a": "x" * 70_000}},
    ) == [
        "p.jsonl:1: height: 130 is not a multiple of 32; use 128 or 160",
        "p.jsonl:2: vary: cfg: unknown key; did you mean guidance_scale?",
        "p.jsonl:2: num_videos_per_prompt: vary has the seeds; leave one of the two out",
        "p.jsonl:3: guidance_scale: is given and varied; leave one of the two out",
        "p.jsonl:4: guidance_scale: -1 is too small; it must be at least 0",
        "p.jsonl:5: num_videos_per_prompt: 0 is too small; it must be at least 1 and at most 10000",
        "p.jsonl:5: vary: [1] is not a mapping",
        "p.jsonl:5: meta: 3 is not a mapping",
        "p.jsonl:6: name: has more than 100 characters with what varies; set a shorter one, or give the values labels: "
        "{soft: ..., hard: ...}",
        "p.jsonl:7: meta: takes 70009 bytes as JSON; at most 65536 are allowed",
    ]


def test_errors_of_what_all_rows_vary_are_reported_once() -> None:
    defaults = DefaultsConfig(vary={"guidance_scale": [-1, 3], "sed": [1], "seed": [1]}, num_videos_per_prompt=2)
    assert errors(STORM, STORM | {"name": "b"}, defaults=defaults) == [
        "defaults.vary: sed: unknown key; did you mean seed?",
        "defaults.vary: seed: defaults.num_videos_per_prompt sets the seeds, too; leave one of the two out",
        "defaults.vary: guidance_scale: -1 is too small; it must be at least 0",
    ]


def test_too_many_clips_are_refused_before_they_are_made() -> None:
    assert errors(STORM | {"vary": {"guidance_scale": "1,2,3", "num_frames": [9, 17]}, "num_videos_per_prompt": 10_000,
                           "prompt": "{a|b}"}, expand="all") == [
        "p.jsonl:1: vary: 2 x 3 x 2 x 10000 = 120000 clips; at most 100000 are allowed"
    ]  # fmt: skip


def test_csv_cells_vary_as_on_the_command_line() -> None:
    Path("p.csv").write_text(
        'prompt,name,num_videos_per_prompt,vary\na,x,2,\nb,y,,"seed=0-1; guidance_scale=1,3"\nc,z,,"{""seed"": [4]}"\n'
    )
    assert [one.request_id for one in read_prompts("p.csv", DEFAULTS, PRESET, CHECKPOINT)] == [
        "x-seed0", "x-seed1",
        "y-seed0-guidance_scale1", "y-seed0-guidance_scale3", "y-seed1-guidance_scale1", "y-seed1-guidance_scale3",
        "z-seed4",
    ]  # fmt: skip


def test_the_summary_is_a_product_where_there_is_one() -> None:
    def summarised(*rows: dict[str, Any], **more: Any) -> str | None:
        notes: Notes = {}
        return summary(names(*rows, notes=notes, **more), notes)

    repeated = DefaultsConfig(num_videos_per_prompt=5, vary={"guidance_scale": [1, 3, 5]})
    other = {"prompt": "b", "name": "b"}
    assert summarised(STORM, other) is None
    assert summarised(STORM, other, defaults=repeated) == (
        "2 prompts x 3 values of guidance_scale x 5 values of seed = 30 clips"
    )
    assert summarised(STORM, other | {"num_videos_per_prompt": 2}) == "2 prompts in variations = 3 clips"


FIELDS = st.sampled_from(["seed", "height", "guidance_scale", "fit", "loras", "prompt", "vary"]) | st.text()


@FUZZ
@given(st.dictionaries(FIELDS, JSON, max_size=3), JSON, st.text("a{|}_1$: "), st.sampled_from(["off", "all", 2]))
def test_any_variation_gives_requests_with_names_of_their_own_or_a_value_error(
    vary: dict[str, Any], meta: Any, prompt: str, expand: Any
) -> None:
    notes: Notes = {}
    try:
        requests = read({"prompt": prompt, "vary": vary, "meta": meta}, expand=expand, notes=notes)
    except ValueError as error:
        assert str(error)
    else:
        assert requests and len({request.request_id.casefold() for request in requests}) == len(requests)
        assert json.dumps(notes, allow_nan=False) and notes.keys() <= {request.request_id for request in requests}


def test_picks_that_differ_only_in_case_get_names_of_their_own() -> None:
    row = {"prompt": "a {Red|red|blue} ball", "name": "x"}
    found = names(row, expand="all")
    assert len(found) == 3 and found[2] == "x-blue"
    assert all(len(name) == len("x-0123456789") for name in found[:2]) and found[0] != found[1]
