"""What is clearly another program's file, name or number is refused or read as meant, but never taken for text."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_prompts import CHECKPOINT, DEFAULTS, PRESET, errors, read, row_error

from ltx_dist.commands.shared import bad_input
from ltx_dist.inputs.config import DefaultsConfig
from ltx_dist.inputs.config_file import load_config
from ltx_dist.inputs.prompts import read_prompts
from ltx_dist.pipeline.request import RenderRequest

DISTILLED = replace(CHECKPOINT, pipeline_class="LTXConditionPipeline")
SIGMAS = "1.0000, 0.9937, 0.9875, 0.9812, 0.9750, 0.9094, 0.7250, 0.4219"
"""As published by Lightricks in configs/ltxv-2b-0.9.8-distilled.yaml, where they are called timesteps."""

pytestmark = pytest.mark.usefixtures("in_tmp_path")


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def from_stdin(text: str, monkeypatch: pytest.MonkeyPatch) -> list[RenderRequest]:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    return read_prompts("-", DEFAULTS, PRESET, CHECKPOINT)


def warnings_of(name: str, text: str, defaults: DefaultsConfig = DEFAULTS) -> list[str]:
    Path(name).write_text(text)
    warnings: list[str] = []
    read_prompts(name, defaults, PRESET, CHECKPOINT, warnings)
    return warnings


AS_TIMESTEPS = (
    "timesteps: begins at 1: these are sigmas of 0 to 1; write timesteps: 1000, 993.7, 987.5, 981.2, 975, 909.4, 725, "
    "421.9"
)


@pytest.mark.fault(3)
@pytest.mark.parametrize(
    ("name", "content", "end"),
    [
        ("p.jsonl", f'{{"prompt": "a", "timesteps": [{SIGMAS}]}}', ""),
        ("p.json", f'[{{"prompt": "a", "timesteps": [{SIGMAS}]}}]', ""),
        ("p.yaml", f"- prompt: a\n  timesteps: [{SIGMAS}]\n", ""),
        ("p.csv", f'timesteps,prompt\n"{SIGMAS}",a\n', ""),
        ("p.csv", f'timesteps,prompt\n"[{SIGMAS}, 0]",a\n', ""),
        ("p.jsonl", f'{{"prompt": "a", "timesteps": [{SIGMAS}, 0.0]}}', ""),
    ],
)
def test_sigmas_are_no_timesteps_in_any_row(name: str, content: str, end: str) -> None:
    Path(name).write_text(content)
    with pytest.raises(ValueError) as caught:
        read_prompts(name, DEFAULTS, PRESET, DISTILLED)
    assert str(caught.value).partition(": ")[2] == AS_TIMESTEPS


@pytest.mark.fault(3)
@pytest.mark.parametrize("where", ["file", "set"])
def test_sigmas_are_no_timesteps_in_defaults(where: str) -> None:
    Path("c.yaml").write_text(f"defaults:\n  timesteps: [{SIGMAS}]\n" if where == "file" else "")
    overrides = [f"defaults.timesteps=[{SIGMAS}]"] if where == "set" else []
    defaults = load_config(Path("c.yaml"), overrides).defaults
    Path("p.txt").write_text("a\nb\n")
    with pytest.raises(ValueError) as caught:
        read_prompts("p.txt", defaults, PRESET, DISTILLED)
    (line,) = str(caught.value).splitlines()
    assert line.startswith("c.yaml:2: defaults.timesteps: " if where == "file" else "--set defaults.timesteps=")
    assert line.endswith(AS_TIMESTEPS.removeprefix("timesteps: "))


def test_timesteps_may_end_below_one() -> None:
    Path("p.jsonl").write_text('{"prompt": "a", "timesteps": [1000, 500, 0.5]}')
    (request,) = read_prompts("p.jsonl", DEFAULTS, PRESET, DISTILLED)
    assert request.timesteps == (1000.0, 500.0, 0.5)


@pytest.mark.fault(6)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prompt": "a cat"}\n{"prompt": "a dog", "seed": 3}\n', "1: this is JSON; name the file .jsonl"),
        ('[\n  {"prompt": "a"},\n  {"prompt": "b"}\n]\n', "1: this is JSON; name the file .json"),
        ('["a", "b"]', "1: this is JSON; name the file .json"),
        (
            "prompt,seed\na red circle,7\n",
            "1: 'prompt,seed' is the header of a table; name the file .csv, with commas ",
        ),
        ("prompt\na red circle\n", "1: 'prompt' is the header of a table"),
        ("caption;prompt;steps\na;b;7\n", "1: 'caption;prompt;steps' is the header of a table"),
        ("- a cat\n- a dog\n", "1: every line begins as '- ' does, as in a list; remove these marks"),
        ("1. a cat\n2. a dog\n", "1: every line begins as '1.' does, as in a list"),
        ("a\n--prompt b --seed 3\n", "2: '--prompt b --seed 3' is a command of another program; remove it, or write"),
        ("a cat --ar 16:9\na dog --seed 3\n", "1: '--ar' has a flag of another program, and 1 more; remove it"),
        ("a cat\nSteps: 20, Sampler: Euler\n", "2: 'Steps: 20, Sampler: Euler' is a list of settings; write rows"),
        ("prompt: a cat\n", "1: 'prompt: a cat' is a key and a value; write rows with the fields"),
        ('! {Subject}="cat","dog"\n{Subject} runs\n', '1: \'! {Subject}="cat","dog"\' is a command of another'),
        ("a\n| a | b |\n", "2: '| a | b |' is a row of a table"),
    ],
)
def test_another_format_in_plain_text_is_named(text: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert errors("p.txt", text)[0].startswith(f"p.txt:{message}")
    if "JSON" not in message:  # standard input may be JSON
        with pytest.raises(ValueError, match="<stdin>:"):
            from_stdin(text, monkeypatch)


def test_blocks_of_positive_and_negative_prompts_are_named_once_per_kind() -> None:
    text = "positive: a red circle\nnegative: blurry\n----\npositive: a blue square\nnegative: text\n"
    assert errors("p.txt", text) == [
        "p.txt:1: 'positive: a red circle' begins a positive or a negative prompt of another program, and 3 more; "
        "write rows with the fields prompt and negative_prompt, as .csv, .jsonl or .yaml",
        "p.txt:3: '----' has no words; remove it; each line is a prompt",
    ]


@pytest.mark.parametrize(
    "prompt",
    [
        "[cinematic] a cat", "{red|blue} ball", "(red:1.2) ball", "a -- dash -- in a prompt", "-5 degrees, snow",
        "3 cats", "2. Weltkrieg", "- a cat", "a prompt, a text", "what the --force does", "\U0001f408\U0001f408",
        "[a] {b}", "a: b", "!!", "<b>", "size: as of a whale is the dog, and it barks", "{a cat}",
    ],
)  # fmt: skip
def test_what_only_looks_a_little_like_another_format_stays_a_prompt(
    prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read("p.txt", f"{prompt}\nanother\n")[0].prompt == prompt
    assert from_stdin(f"{prompt}\nanother\n", monkeypatch)[0].prompt == prompt


ARRAY = '[\n  {"prompt": "a", "seed": 3},\n\n  "b",\n  {"prompt": "c"}\n]\n'


@pytest.mark.fault(26)
@pytest.mark.parametrize(
    "text", [ARRAY, f'{{"prompts": {ARRAY}}}', '{"prompt":"a","seed":3}\n{"prompt":"b"}\n{"prompt":\n"c"}']
)
def test_json_is_a_list_or_objects_one_after_the_other(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = read("p.json", text)
    assert [(request.prompt, request.seed) for request in requests] == [("a", 3), ("b", 1), ("c", 2)]


@pytest.mark.fault(6)
def test_a_json_list_is_read_from_standard_input_and_from_yaml_with_tabs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [request.prompt for request in from_stdin(ARRAY, monkeypatch)] == ["a", "b", "c"]
    assert [request.prompt for request in read("p.yaml", ARRAY.replace("  ", "\t"))] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\n{"prompt": "a"},\n{"prompt": "b", "fps": 2}]', "3: fps: unknown key; did you mean frame_rate?"),
        ('[\n{"prompt": "a"},\n{"prompt" "b"}]', "3: not JSON: Expecting ':' delimiter at column 11; write a list"),
        ('[{"prompt": "a"}\n{"prompt": "b"}]', "2: not JSON: Expecting ',' at column 1"),
        ('[{"prompt": "a"}] 3', "1: not JSON: Extra data at column 19"),
        ('[\n{"prompt": "a", "prompt": "b"}]', "2: not usable JSON: a key is given twice"),
        ('{"items": []}', "1: items: unknown key"),
        ("3", "1: 3 is not an object; write a list of objects"),
        ("[]", " no prompts in it; write at least one"),
        ("", " no prompts in it; write at least one"),
        ("[1]", "1: 1 is neither a prompt nor a mapping with one; put text in quotes"),
    ],
)
def test_a_mistake_in_json_has_its_line(text: str, message: str) -> None:
    assert any(line.startswith(f"p.json:{message}") for line in errors("p.json", text))


@pytest.mark.fault(26)
def test_a_json_list_called_jsonl_is_one_mistake() -> None:
    assert errors("p.jsonl", ARRAY) == ["p.jsonl:1: one JSON document, not one object per line; name the file .json"]
    assert errors("p.jsonl", '{\n "prompt": "a"\n}\n')[0].endswith("name the file .json")


@pytest.mark.fault(27)
@pytest.mark.parametrize(
    ("key", "ours"),
    [
        ("steps", "num_inference_steps"),
        ("num_steps", "num_inference_steps"),
        ("cfg", "guidance_scale"),
        ("CFG Scale", "guidance_scale"),
        ("fps", "frame_rate"),
        ("resolution", "height and width in pixels"),
        ("video_length", "num_frames"),
        ("frame_count", "num_frames"),
        ("length", "num_frames"),
        ("duration", "num_frames: seconds times frame_rate, to a multiple of 8 plus 1"),
        ("text", "prompt"),
        ("caption", "prompt"),
        ("prompt_en", "prompt"),
        ("negative", "negative_prompt"),
        ("filename", "name"),
        ("heigth", "height"),
        ("repeat_generation", "num_videos_per_prompt"),
        ("image_start", "image"),
        ("image_end", "conditions: [{image: ..., frame_index: -1}]"),
        ("denoising_strength", "denoise_strength"),
        ("lora", "loras"),
        ("metadata", "meta"),
    ],
)
def test_a_name_of_another_program_is_translated(key: str, ours: str) -> None:
    assert row_error(**{key: 1}) == f"{key}: unknown key; did you mean {ours}?"
    assert errors("p.csv", f"prompt,{key}\na,1\n") == [f"p.csv:1: {key}: unknown column; did you mean {ours}?"]


def test_names_of_other_programs_are_translated_in_a_config_too() -> None:
    Path("c.yaml").write_text("defaults:\n  steps: 3\n  resolution: 3\n")
    with pytest.raises(ValueError) as caught:
        load_config(Path("c.yaml"), ["steps=20", "defaults.cfg=3", "defaults.seed=-1"])
    assert str(caught.value).splitlines() == [
        "c.yaml:2: defaults.steps: unknown key; did you mean defaults.num_inference_steps?",
        "c.yaml:3: defaults.resolution: unknown key; did you mean defaults.height and defaults.width in pixels?",
        "--set steps=20: unknown key; did you mean defaults.num_inference_steps?",
        "--set defaults.cfg=3: unknown key; did you mean defaults.guidance_scale?",
        "--set defaults.seed=-1: -1 is not a seed; leave it out: the default is defaults.seed plus the position in the "
        "file",
    ]


@pytest.mark.fault(27)
def test_a_table_of_pandas_or_a_spreadsheet_says_which_column_has_no_name() -> None:
    assert errors("p.csv", ",prompt,seed\n0,a red circle,7\n1,a blue square,8\n") == [
        "p.csv:1: column 1 has no name; name it or remove it (pandas: index=False)"
    ]
    first, second = read("p.csv", "prompt,,seed,,\na,,7,,\nb,,,,,,,\n")
    assert (first.prompt, first.seed, second.prompt, second.seed) == ("a", 7, "b", 1)


@pytest.mark.parametrize(("seed", "whole"), [("42.0", "42"), ("-3.", "-3"), ("1.50", None), ("0.0", "0")])
def test_a_whole_number_written_as_a_float_is_not_guessed_but_named(seed: str, whole: str | None) -> None:
    (message,) = errors("p.csv", f"prompt,seed\na,{seed}\nb,\n")
    remedy = f"write {whole}" if whole else "it must be at least 0 and at most 9223372036854775807"
    assert message == f"p.csv:2: seed: '{seed}' is not a whole number; {remedy}"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"seed": "5"}, "seed: '5' is not a whole number; write 5 without quotes"),
        ({"frame_rate": "25"}, "frame_rate: '25' is not a number; write 25 without quotes"),
        ({"guidance_scale": "-3.5"}, "guidance_scale: '-3.5' is not a number; write -3.5 without quotes"),
        ({"conditions": [{"image": "a.png", "frame_index": "8"}]}, "frame_index: '8' is not a whole number; write 8 w"),
    ],
)
def test_a_number_in_quotes_is_told_to_be_written_without(row: dict[str, Any], message: str) -> None:
    assert message in row_error(**row)


def test_a_whole_number_as_a_json_float_is_named_too() -> None:
    assert row_error(seed=42.0) == "seed: 42.0 is not a whole number; write 42"
    assert row_error(num_frames=9.5).startswith("num_frames: 9.5 is not a whole number; it must be at least 1")


@pytest.mark.fault(27)
def test_mistakes_are_counted_and_not_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    rows = ",\n".join(f'  {{"prompt_en": "thing {number}", "color_en": "red"}}' for number in range(45))
    with pytest.raises(SystemExit), bad_input():
        read("p.yaml", f"[\n{rows}\n]\n")
    heading, *lines = capsys.readouterr().err.splitlines()
    assert heading == "ltx-dist: 135 mistakes:" and len(lines) == 51 and lines[-1] == "... and 85 more"
    assert sum("known are" in line for line in lines) == 1
    with pytest.raises(SystemExit), bad_input():
        raise ValueError("a folder is unusable; complete it:\n  vae: missing\n  tokenizer: missing")
    assert capsys.readouterr().err.startswith("ltx-dist: a folder is unusable")


@pytest.mark.fault(27)
@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ("utf-16-le", "UTF-16 without a byte order mark"),
        ("utf-16-be", "UTF-16 without a byte order mark"),
        ("utf-16", "UTF-16"),
        ("utf-32-le", "UTF-32 without a byte order mark"),
        ("utf-32", "UTF-32"),
    ],
)
@pytest.mark.parametrize("text", ["a red circle\na blue square\n", "\u732b\n\u72ac\u3068\u732b\n"])
def test_wide_encodings_are_named(encoding: str, named: str, text: str) -> None:
    for name in ("p.txt", "p.csv", "p.yaml"):
        assert errors(name, text.encode(encoding)) == [f"{name}: {named}, not UTF-8; save the file as UTF-8"]


def test_a_zero_in_a_file_of_utf_8_is_a_mistake_of_its_line() -> None:
    assert errors("p.txt", b"a cat\nb\0c\n") == ["p.txt:2: prompt: has the control character U+0000; remove it"]


@pytest.mark.fault(27)
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.txt", "a\r\rb\r"),
        ("p.jsonl", '{"prompt": "a"}\r{"prompt": "b"}\r'),
        ("p.json", '["a",\r"b"]\r'),
        ("p.csv", "prompt\ra\rb\r"),
        ("p.yaml", "- a\r- b\r"),
    ],
)
def test_lines_may_end_in_a_carriage_return_alone(name: str, text: str) -> None:
    assert [request.prompt for request in read(name, text)] == ["a", "b"]


@pytest.mark.fault(27)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("seed: 010", "seed: '010' is not a whole number; write 10"),
        ("seed: 1:30", "seed: '1:30' is not a whole number"),
        ("frame_rate: 23:59.5", "frame_rate: '23:59.5' is not a number"),
        ("seed: 2024-01-01", "seed: '2024-01-01' is not a whole number"),
        ("num_frames: 09", "num_frames: '09' is not a whole number; write 9"),
    ],
)
def test_numbers_that_yaml_would_convert_are_refused(value: str, message: str) -> None:
    assert errors("p.yaml", f"- prompt: a\n  {value}\n")[0].startswith(f"p.yaml:1: {message}")


def test_dates_and_times_are_text_where_text_is_asked() -> None:
    requests = read(
        "p.yaml", "- 2024-01-01\n- 1:30\n- {prompt: 007, name: 010}\n- {prompt: b, seed: 1_000}\n- 2026-99-99\n"
    )
    assert [request.prompt for request in requests] == ["2024-01-01", "1:30", "007", "b", "2026-99-99"]
    assert (requests[2].request_id, requests[3].seed) == ("010", 1000)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("-7", -7), ("0x1F", 31), ("1e3", 1000.0), ("1.5", 1.5), (".5", 0.5), ("2.", 2.0), ("1.5e-2", 0.015)],
)
def test_plain_numbers_stay_numbers(text: str, value: float) -> None:
    config = load_config(None, [f"defaults.guidance_scale={text}"]) if value >= 0 else None
    assert config is None or config.defaults.guidance_scale == value


@pytest.mark.fault(27)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a cat: the movie\n", "1: 'a cat: the movie' reads as a key and its value; put a prompt with a colon in"),
        ("- Lighthouse: a storm\n", "1: 'Lighthouse: a storm' reads as a key and its value"),
        ("- promt: a\n", "1: promt: unknown key; did you mean prompt?"),
        (
            "- prompt: a cat: the movie\n",
            "1: not valid YAML: mapping values are not allowed here; put text with a colon",
        ),
        ("- a\n- @home\n", "2: not valid YAML: found character '@' that cannot start any token; put text that begins"),
        ("- a\n- {red|blue} ball\n", "2: not valid YAML: expected <block end>, but found '<scalar>'; put text that"),
        ("- !wow a\n", "1: not valid YAML: could not determine a constructor for the tag '!wow'; put text that begins"),
        ("-\ta:\n\t- b\n", "1: not valid YAML: found character '\\t' that cannot start any token; indent with spaces"),
    ],
)
def test_unquoted_text_in_yaml_is_told_to_be_quoted(text: str, message: str) -> None:
    assert any(line.startswith(f"p.yaml:{message}") for line in errors("p.yaml", text))


def test_a_comment_that_may_belong_to_a_prompt_is_warned_of() -> None:
    text = '- a # b\n- "c # d"\n- prompt: e\n  seed: 7 # lucky\n  negative_prompt: f  # g\n- h#i\n# j\n'
    assert warnings_of("p.yaml", text) == [
        f"p.yaml:{where} is a comment in YAML and left out; put the text in quotes if it belongs to it"
        for where in ("1: prompt: '# b'", "5: negative_prompt: '# g'")
    ]


@pytest.mark.fault(29)
@pytest.mark.parametrize(
    ("prompt", "part", "kind"),
    [
        ("a {red|blue} ball", "{red|blue}", "a choice"),
        ("a {2$$red|blue|green} ball", "{2$$red|blue|green}", "a choice"),
        ("a __colour__ ball", "__colour__", "a wildcard"),
        ("a __animals/cat*__ runs", "__animals/cat*__", "a wildcard"),
        ("a ball <lora:toon:0.8>", "<lora:toon:0.8>", "another program's tag"),
        ("a (red:1.2) ball", "(red:1.2)", "a weight"),
    ],
)
def test_parts_that_other_programs_replace_are_warned_of(prompt: str, part: str, kind: str) -> None:
    (warning,) = warnings_of("p.txt", f"plain\n{prompt}\n{prompt} again\n")
    remedy = (
        "--expand all renders every variant of a prompt"
        if kind in ("a choice", "a wildcard")
        else "Write one row per variant, or run a program that expands it first"
    )
    assert warning == (
        f"p.txt:2: {part!r} would be {kind} in other programs; here it is plain text, as are such parts of 1 more "
        f"prompt. {remedy}"
    )
    (of_default,) = warnings_of("q.txt", "plain\n", DefaultsConfig(negative_prompt=prompt))
    assert part in of_default
    if kind in ("a choice", "a wildcard"):
        assert of_default.endswith("A negative_prompt is never expanded; vary renders several of them")


def test_plain_braces_and_underscores_are_not_warned_of() -> None:
    assert warnings_of("p.txt", "a {red} ball\nsnake_case__x\nf(x: 3y)\na (cat) | dog\n__init\n") == []
