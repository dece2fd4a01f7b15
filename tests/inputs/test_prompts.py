"""read_prompts: four formats, three layers of values, and every error at once with its line."""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiers import examples

from ltx_dist.checkpoints.checkpoint import Checkpoint
from ltx_dist.inputs.config import DefaultsConfig
from ltx_dist.inputs.config_file import load_config
from ltx_dist.inputs.prompts import read_prompts
from ltx_dist.models.ltx_video.presets import PRESETS
from ltx_dist.pipeline.request import RenderRequest

PRESET = PRESETS["0.9.5"]
DEFAULTS = DefaultsConfig()
CHECKPOINT = Checkpoint(
    name="x",
    path=Path("/nowhere"),
    pipeline_class="LTXPipeline",
    spatial_compression_ratio=32,
    temporal_compression_ratio=8,
    timestep_conditioning=True,
    latent_channels=128,
    weights={},
    num_parameters={},
)


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


pytestmark = pytest.mark.usefixtures("in_tmp_path")


def read(name: str, content: str | bytes, defaults: DefaultsConfig = DEFAULTS, **grid: int) -> list[RenderRequest]:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    checkpoint = Checkpoint(**{**{f: getattr(CHECKPOINT, f) for f in Checkpoint.__slots__}, **grid})
    return read_prompts(name, defaults, PRESET, checkpoint)


def errors(name: str, content: str | bytes, defaults: DefaultsConfig = DEFAULTS, **grid: int) -> list[str]:
    with pytest.raises(ValueError) as caught:
        read(name, content, defaults, **grid)
    return str(caught.value).splitlines()


def row_error(**row: Any) -> str:
    (line,) = errors("p.jsonl", json.dumps({"prompt": "a", **row}))
    return line.removeprefix("p.jsonl:1: ")


def test_txt_is_a_prompt_a_line() -> None:
    requests = read("p.txt", "\ufeff# comment\r\n\r\n  A red circle, moving left!\r\na blue\tsquare\r\n")
    assert [request.prompt for request in requests] == ["A red circle, moving left!", "a blue square"]
    assert [request.request_id for request in requests] == ["001-a-red-circle-moving-left", "002-a-blue-square"]
    assert [request.seed for request in requests] == [0, 1]


def test_csv_cells_are_read_by_their_field() -> None:
    text = 'prompt,name,height,frame_rate,seed\n"a, b\nc",7,64,24,\n\nsecond,,,1e1,5\n'
    first, second = read("p.csv", text)
    assert (first.prompt, first.request_id, first.height, first.frame_rate, first.seed) == ("a, b c", "7", 64, 24.0, 0)
    assert (second.request_id, second.height, second.frame_rate, second.seed) == ("002-second", 512, 10.0, 5)


def test_jsonl_is_an_object_a_line() -> None:
    first, second = read("p.jsonl", '{"prompt": "a", "width": 64}\n\n{"prompt": "b", "seed": null}\n')
    assert (first.width, second.width, second.seed) == (64, 704, 1)


@pytest.mark.parametrize("text", ["- a\n- {prompt: b, width: 64}\n", "prompts:\n  - a\n  - prompt: b\n    width: 64\n"])
def test_yaml_is_a_list_of_texts_and_mappings(text: str) -> None:
    first, second = read("p.yml", text)
    assert (first.prompt, first.width, second.prompt, second.width) == ("a", 704, "b", 64)


@pytest.mark.parametrize(("text", "width"), [("a\nb\n", 704), (' \n{"prompt": "a", "width": 64}\n', 64)])
def test_standard_input_is_text_or_jsonl(text: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert read_prompts("-", DEFAULTS, PRESET, CHECKPOINT)[0].width == width


def test_row_wins_over_defaults_over_preset() -> None:
    defaults = DefaultsConfig(height=64, width=96, seed=10, negative_prompt="blurry")
    (request,) = read("p.jsonl", '{"prompt": "a", "height": 128}', defaults)
    values = (request.height, request.width, request.seed, request.negative_prompt, request.num_frames)
    assert values == (128, 96, 10, "blurry", PRESET.settings["num_frames"])


def test_frame_rate_is_always_a_float() -> None:
    (request,) = read("p.jsonl", '{"prompt": "a", "frame_rate": 24}')
    assert type(request.frame_rate) is float


def test_default_names_stay_short_plain_and_in_order() -> None:
    names = [request.request_id for request in read("p.txt", "Café " + "x" * 99 + "\n\u732b\n" + "a\n" * 998)]
    assert names[0] == ("001-cafe-" + "x" * 99)[:44]
    assert (names[1], names[2], names[999]) == ("002-\u732b", "003-a", "1000-a")


def test_everything_wrong_is_said_at_once_in_the_order_of_lines() -> None:
    text = (
        "prompt,height,num_frames,name,frame_rate\n"
        'a,130,25,ok,12\n"b\nb",128,24,OK,abc\n,128,25,con.x,0\nd,12.0,25,run.mp4,1,more\n'
    )
    assert errors("p.csv", text) == [
        "p.csv:2: height: 130 is not a multiple of 32; use 128 or 160",
        "p.csv:3: num_frames: 24 is not a multiple of 8 plus 1; use 17 or 25",
        "p.csv:3: frame_rate: 'abc' is not a number; it must be above 0 and at most 240",
        "p.csv:3: name: 'OK' is taken by line 2 (case does not count); choose another",
        "p.csv:5: frame_rate: 0.0 is too small; it must be above 0 and at most 240",
        "p.csv:5: prompt: empty; write what the clip shows",
        "p.csv:5: name: 'con.x' cannot be a file on Windows; choose another",
        "p.csv:6: 6 cells under 5 columns; quote text with a comma",
        "p.csv:6: height: '12.0' is not a whole number; write 12",
        "p.csv:6: name: 'run.mp4': leave the ending out; it is added",
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"heigth": 64}, "heigth: unknown key; did you mean height?"),
        ({"fps": None}, "fps: unknown key; did you mean frame_rate?"),
        ({"zzz": None}, "zzz: unknown key; known are negative_prompt, height,"),
        ({"\ud800": 1}, "\\ud800: unknown key; known are"),
        ({"\x1b[2J": 1}, "'\\x1b[2J': unknown key; known are"),
        ({"height": 16}, "height: 16 is not a multiple of 32; use 32"),
        ({"height": True}, "height: true is not a whole number"),
        ({"width": 64.0}, "width: 64.0 is not a whole number"),
        ({"width": 10**400}, "width: 1000"),
        ({"num_frames": 0}, "num_frames: 0 is too small"),
        ({"num_frames": 2}, "num_frames: 2 is not a multiple of 8 plus 1; use 1 or 9"),
        ({"num_inference_steps": 0}, "num_inference_steps: 0 is too small"),
        ({"num_inference_steps": 1001}, "num_inference_steps: 1001 is too large"),
        ({"guidance_scale": -0.1}, "guidance_scale: -0.1 is too small"),
        ({"guidance_scale": float("inf")}, "guidance_scale: inf is not a finite number"),
        ({"guidance_rescale": float("nan")}, "guidance_rescale: nan is not a finite number"),
        ({"frame_rate": 241}, "frame_rate: 241 is too large"),
        ({"seed": -1}, "seed: -1 is not a seed; leave it out: the default is defaults.seed plus the position"),
        ({"seed": 2**63}, "seed: 9223372036854775808 is too large"),
        ({"max_sequence_length": 513}, "max_sequence_length: 513 is too large"),
        ({"decode_timestep": 1.1}, "decode_timestep: 1.1 is too large"),
        ({"prompt": " \n"}, "prompt: empty"),
        ({"prompt": 5}, "prompt: 5 is not text; put it in quotes"),
        ({"prompt": "a\x07"}, "prompt: has the control character U+0007; remove it"),
        ({"prompt": "\ud800"}, "prompt: has the control character U+D800; remove it"),
        ({"prompt": "\u00e9" * 4097}, "prompt: is 8194 bytes long; at most 8192 are allowed"),
        ({"negative_prompt": "a\x00"}, "negative_prompt: has the control character U+0000"),
        ({"name": "../a"}, "name: '../a': use letters, digits, . _ - and begin with a letter or digit"),
        ({"name": "a" * 201}, "name: 'aaa"),
        ({"name": "a\n"}, "name: 'a\\n': use letters, digits"),
        ({"name": "Index"}, "name: 'Index' is the name of a file written beside the clips"),
        ({"name": "LPT1"}, "name: 'LPT1' cannot be a file on Windows"),
        ({"name": "a."}, "name: 'a.' cannot be a file on Windows"),
        ({"name": "a.JSON"}, "name: 'a.JSON': leave the ending out; it is added"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(row: dict[str, Any], message: str) -> None:
    assert row_error(**row).startswith(message)


def test_sizes_follow_the_checkpoint_and_32() -> None:
    row = '{"prompt": "a", "height": 64, "width": 192, "num_frames": 9}'
    assert errors("p.jsonl", row, spatial_compression_ratio=48, temporal_compression_ratio=16) == [
        "p.jsonl:1: height: 64 is not a multiple of 96; use 96",
        "p.jsonl:1: num_frames: 9 is not a multiple of 16 plus 1; use 1 or 17",
    ]


def test_wrong_defaults_and_presets_are_said_once_and_only_if_used() -> None:
    both = "prompt,height\na,64\nb,64\n"
    assert read("p.csv", both, DefaultsConfig(height=130))
    assert errors("q.csv", "prompt\na\nb\n", DefaultsConfig(height=130, frame_rate=0)) == [
        "defaults.height: 130 is not a multiple of 32; use 128 or 160",
        "defaults.frame_rate: 0.0 is too small; it must be above 0 and at most 240",
    ]
    assert errors("p.csv", both, temporal_compression_ratio=64) == [
        "preset 0.9.5: num_frames: 161 is not a multiple of 64 plus 1; use 129 or 193 in the prompt file or as "
        "defaults.num_frames"
    ]


def test_a_default_seed_must_stay_in_range() -> None:
    assert errors("p.txt", "a\nb\n", DefaultsConfig(seed=2**63 - 1)) == [
        "p.txt:2: seed: defaults.seed plus the position is 9223372036854775808; at most 9223372036854775807 is allowed"
    ]


def test_an_emoji_in_json_escapes_is_one_character_in_yaml_too() -> None:
    (request,) = read("p.yaml", '["a \\ud83d\\ude00"]')
    assert request.prompt == "a \U0001f600"
    assert errors("p.yaml", '["\\ud83d"]')[0].startswith("p.yaml:1: not valid YAML: ")


def test_names_on_one_line_are_compared_too() -> None:
    assert len(errors("p.yaml", "[{prompt: a, name: x}, {prompt: b, name: X}]")) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "p.md",
            "a",
            "p.md: unknown kind of prompt file; it must end in .csv, .json, .jsonl, .parquet, .tsv, .txt, .yaml, .yml ",
        ),
        ("p.txt", "", "p.txt: no prompts in it; write at least one"),
        ("p.txt", "# a\n\n", "p.txt: no prompts in it; write at least one"),
        ("p.txt", b"a\n\xff", "p.txt:2: not UTF-8 at byte 2; save the file as UTF-8"),
        ("p.txt", "a\n" * 100_001, "p.txt: 100001 prompts; split the file, at most 100000 are allowed"),
        ("p.csv", "promt\na\n", "p.csv:1: promt: unknown column; did you mean prompt?"),
        ("p.csv", "prompt,prompt\na,b\n", "p.csv:1: prompt: column given twice"),
        ("p.csv", 'prompt\n"a\n', "p.csv:2: not CSV: unexpected end of data"),
        ("p.jsonl", "[1]", "p.jsonl:1: one JSON document, not one object per line; name the file .json"),
        ("p.jsonl", "{", "p.jsonl:1: not JSON: "),
        ("p.jsonl", '{"prompt": "a", "prompt": "b"}', "p.jsonl:1: not usable JSON: a key is given twice"),
        ("p.yaml", "a", "p.yaml:1: write a list of prompts, each on a line with `- `"),
        ("p.yaml", "- &a x\n- *a", "p.yaml:2: not valid YAML: aliases (*name) are not allowed; write the value out"),
        ("p.yaml", "prompt: a", "p.yaml:1: 'prompt': unknown key; write a list of prompts, or one under the key"),
        ("p.yaml", "- a\n- !!bool x", "p.yaml:2: not valid YAML: 'x' is not a valid value"),
        ("p.yaml", "- a\n- no", "p.yaml:2: false is neither a prompt nor a mapping with one; put text in quotes"),
    ],
)
def test_a_wrong_file_says_where_and_what(name: str, content: str | bytes, message: str) -> None:
    assert errors(name, content)[0].startswith(message)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ValueError, match=r"no\.txt: cannot be read: No such file or directory; check the path"):
        read_prompts("no.txt", DEFAULTS, PRESET, CHECKPOINT)


def test_no_more_than_fifty_errors_are_printed() -> None:
    lines = errors("p.csv", "prompt,height\n" + "a,5\n" * 60)
    assert len(lines) == 51
    assert lines[-1] == "... and 10 more"


def list_or_value_error(name: str, content: bytes) -> None:
    try:
        requests = read(name, content)
    except ValueError as error:
        assert str(error)
    else:
        assert requests
        assert len({request.request_id.casefold() for request in requests}) == len(requests)
        optional = {"decode_noise_scale", "timesteps", "video", "reference", "second_pass", "sound", "windows"}
        assert {name for request in requests for name, value in asdict(request).items() if value is None} <= optional


EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
"""benchmarks/chaos.py asks for thousands."""
FUZZ = settings(
    max_examples=examples(EXAMPLES), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ENDINGS = st.sampled_from(["p.txt", "p.csv", "p.jsonl", "p.yaml"])
KEYS = st.sampled_from(["prompt", "name", "height", "num_frames", "frame_rate", "seed", "guidance_scale"]) | st.text()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([32, 25, "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)


@FUZZ
@given(ENDINGS, st.binary() | st.text().map(str.encode) | st.text("-:{}[]&*!,'\"\n\t pronmt#<=1.e").map(str.encode))
def test_any_bytes_give_requests_or_a_value_error(name: str, content: bytes) -> None:
    list_or_value_error(name, content)


@FUZZ
@given(st.sampled_from(["p.jsonl", "p.yaml"]), st.lists(st.dictionaries(KEYS, JSON, max_size=6), max_size=4))
def test_any_rows_give_requests_or_a_value_error(name: str, rows: list[dict[str, Any]]) -> None:
    text = "\n".join(json.dumps(row) for row in rows) if name == "p.jsonl" else json.dumps(rows)
    list_or_value_error(name, text.encode())


@FUZZ
@given(st.sampled_from(["prompt", "prompt,height,name", "prompt,seed,frame_rate"]), st.lists(st.lists(st.text())))
def test_any_cells_give_requests_or_a_value_error(header: str, rows: list[list[str]]) -> None:
    lines = (",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows)
    list_or_value_error("p.csv", "\n".join([header, *lines]).encode())


def test_what_is_wrong_with_a_default_says_where_the_default_was_given(tmp_path: Path) -> None:
    config, prompts = tmp_path / "c.yaml", tmp_path / "p.txt"
    config.write_text("# sizes\ndefaults:\n  width: 130\n")
    prompts.write_text("a cat\na dog\n")
    defaults = load_config(config, ["defaults.height=33"]).defaults
    with pytest.raises(ValueError) as caught:
        read_prompts(str(prompts), defaults, PRESET, CHECKPOINT)
    assert str(caught.value).splitlines() == [
        "--set defaults.height=33: 33 is not a multiple of 32; use 32 or 64",
        f"{config}:3: defaults.width: 130 is not a multiple of 32; use 128 or 160",
    ]
