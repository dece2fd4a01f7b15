"""Columns and keys with other names, and those that are copied to the sidecar."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_prompts import CHECKPOINT, DEFAULTS, PRESET

from ltx_dist.inputs.prompts import read_prompts
from ltx_dist.inputs.reading_config import PromptsConfig
from ltx_dist.pipeline.request import RenderRequest

CAPTIONS = PromptsConfig(columns={"caption": "prompt"}, keep_columns=["category", "id"])

TEXTS = {
    "p.csv": 'caption,category,id,meta.source,seed\na,"x, y",7,web,\nb,,,,3\n',
    "p.tsv": "caption\tcategory\tid\tmeta.source\tseed\na\tx, y\t7\tweb\t\nb\t\t\t\t3\n",
    "p.jsonl": '{"caption": "a", "category": "x, y", "id": "7", "meta.source": "web"}\n{"caption": "b", "seed": 3}\n',
    "p.json": '[{"caption": "a", "category": "x, y", "id": "7", "meta": {"source": "web"}},\n'
    '{"caption": "b", "seed": 3}]',
    "p.yaml": '- {caption: a, category: "x, y", id: "7", meta.source: web}\n- {caption: b, seed: 3, id: null}\n',
}


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(name: str, text: str, reading: PromptsConfig, notes: dict[str, Any] | None = None) -> list[RenderRequest]:
    Path(name).write_text(text, "utf-8")
    return read_prompts(name, DEFAULTS, PRESET, CHECKPOINT, reading=reading, notes=notes)


def errors(name: str, text: str, reading: PromptsConfig) -> list[str]:
    with pytest.raises(ValueError) as caught:
        read(name, text, reading)
    return [line.partition("; known are ")[0] for line in str(caught.value).splitlines()]


@pytest.mark.parametrize("name", TEXTS)
def test_columns_are_renamed_and_kept_in_every_format(name: str) -> None:
    notes: dict[str, Any] = {}
    first, second = read(name, TEXTS[name], CAPTIONS, notes)
    assert (first.prompt, first.seed, second.prompt, second.seed) == ("a", 0, "b", 3)
    assert notes == {"001-a": {"meta": {"category": "x, y", "id": "7", "source": "web"}}}


def test_two_columns_may_change_places() -> None:
    swapped = PromptsConfig(columns={"negative_prompt": "prompt", "prompt": "negative_prompt"})
    (request,) = read("p.csv", "prompt,negative_prompt\nbad,good\n", swapped)
    assert (request.prompt, request.negative_prompt) == ("good", "bad")


def test_a_column_may_be_renamed_into_the_sidecar() -> None:
    notes: dict[str, Any] = {}
    reading = PromptsConfig(columns={"clip": "name", "name": "meta.title"})
    read("p.csv", "clip,prompt,name\nx,a,The Clip\n", reading, notes)
    assert notes == {"x": {"meta": {"title": "The Clip"}}}


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl"])
def test_names_that_are_mistakes_stay_errors(name: str) -> None:
    text = {
        "p.csv": "caption,prompt,categry,sed\na,b,c,1\n",
        "p.jsonl": '{"caption": "a", "prompt": "b", "categry": "c", "sed": 1}\n',
    }[name]
    found = errors(name, text, CAPTIONS)
    assert f"{name}:1: sed: unknown {'column' if name == 'p.csv' else 'key'}; did you mean seed?" in found
    assert any(line.startswith(f"{name}:1: categry: unknown") for line in found)
    assert f"{name}:1: prompts.keep_columns: no column 'id'; there are caption, prompt, categry, sed" in found
    assert any(line.startswith(f"{name}:1: prompt: ") and "given twice" in line for line in found)


def test_a_column_that_is_not_there_is_an_error_of_each_format() -> None:
    reading = PromptsConfig(columns={"txt": "prompt"})
    assert errors("p.csv", "prompt\na\n", reading) == ["p.csv:1: prompts.columns: no column 'txt'; there are prompt"]


@pytest.mark.parametrize("name", ["p.txt", "p.json"])
def test_plain_prompts_have_no_columns(name: str) -> None:
    text = {"p.txt": "a\nb\n", "p.json": '["a", "b"]'}[name]
    plain = "these prompts are plain texts, without columns or keys; leave it out, or give a .csv or .jsonl file"
    renamed, kept = PromptsConfig(columns={"txt": "prompt"}), PromptsConfig(keep_columns=["id"])
    assert errors(name, text, renamed) == [f"{name}:1: --column (prompts.columns): {plain}"]
    assert errors(name, text, kept) == [f"{name}:1: --keep-columns (prompts.keep_columns): {plain}"]


def test_unknown_names_are_told_how_to_be_kept() -> None:
    with pytest.raises(
        ValueError, match="zzz: unknown column; known are .*; --keep-columns takes others into the sidecar$"
    ):
        read("p.csv", "prompt,zzz\na,b\n", PromptsConfig())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"columns": {"caption": "promt"}}, "caption=promt: promt is not a field; did you mean prompt?"),
        ({"keep_columns": ["seed"]}, "'seed' is a field, or empty; name columns that are neither"),
        ({"expand": 0}, "0 is not off, all, or a whole number of at least 1"),
        ({"expand": "some"}, "'some' is not off, all, or a whole number of at least 1"),
    ],
)
def test_the_config_is_checked_before_a_file_is_read(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        PromptsConfig.model_validate(given)
    assert message in str(caught.value)


def test_meta_holds_what_json_can() -> None:
    assert errors("p.yaml", "- {prompt: a, meta: {x: .inf}}\n", PromptsConfig()) == [
        "p.yaml:1: meta: holds what JSON cannot: only text, finite numbers, true, false, lists and mappings"
    ]
