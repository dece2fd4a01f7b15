"""Prompts at a URL, and prompts given directly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from test_prompts import CHECKPOINT, DEFAULTS, PRESET

from ltx_dist.inputs.config import DefaultsConfig
from ltx_dist.inputs.prompt_sources import cannot_read, folder_of, suffix_of
from ltx_dist.inputs.prompts import read_prompts
from ltx_dist.pipeline.request import RenderRequest

Store = Any


@pytest.fixture
def memory() -> Iterator[Store]:
    store = fsspec.filesystem("memory")
    yield store
    store.store.clear()


def read(source: str | list[Any], defaults: DefaultsConfig = DEFAULTS) -> list[RenderRequest]:
    return read_prompts(source, defaults, PRESET, CHECKPOINT)


@pytest.mark.parametrize(
    ("name", "text"),
    [("p.jsonl", '{"prompt": "a"}\n'), ("p.txt", "a\n"), ("P.CSV", "prompt\na\n"), ("p.yaml", "- a\n")],
)
def test_a_url_is_read_like_a_file(memory: Store, name: str, text: str) -> None:
    memory.pipe(f"/bucket/{name}", text.encode())
    (request,) = read(f"memory://bucket/{name}")
    assert (request.prompt, request.request_id) == ("a", "001-a")


def test_errors_at_a_url_name_it(memory: Store) -> None:
    memory.pipe("/bucket/p.jsonl", b'{"promt": "a"}\n')
    with pytest.raises(
        ValueError, match="^memory://bucket/p.jsonl:1: prompt: missing\nmemory://bucket/p.jsonl:1: promt: unknown key"
    ):
        read("memory://bucket/p.jsonl")
    with pytest.raises(ValueError, match="^memory://bucket/none.txt: no such file; check the URL$"):
        read("memory://bucket/none.txt")
    with pytest.raises(ValueError, match="^nothing://x/p.txt: cannot be read: .*nothing"):
        read("nothing://x/p.txt")
    with pytest.raises(ValueError, match="^memory://bucket/set: unknown kind of prompt file"):
        read("memory://bucket/set")


def test_the_query_of_a_url_may_hold_a_key_and_is_in_no_message() -> None:
    with pytest.raises(ValueError) as caught:
        read("nothing://host/p.csv?signature=secret")
    assert str(caught.value).startswith("nothing://host/p.csv: cannot be read: ")
    error = cannot_read("https://host/p.csv?key=secret", OSError("403: https://host/p.csv?key=secret"))
    assert str(error) == (
        "https://host/p.csv: cannot be read: 403: https://host/p.csv; check the URL and your access to it"
    )


def test_a_web_page_in_place_of_a_file_is_named(memory: Store) -> None:
    memory.pipe("/blob/p.csv", b"<!doctype html><html>")
    with pytest.raises(ValueError, match="p.csv: a web page, not the file itself"):
        read("memory://blob/p.csv")


@pytest.mark.parametrize(
    ("source", "suffix", "folder"),
    [
        ("a/b.CSV", ".csv", Path("a")),
        ("b.txt", ".txt", Path()),
        ("-", "", Path()),
        ("https://host/x/p.jsonl?download=true", ".jsonl", "https://host/x"),
        ("hf://datasets/owner/name/data/train.parquet", ".parquet", "hf://datasets/owner/name/data"),
        ("s3://bucket/a.b/p", "", "s3://bucket/a.b"),
    ],
)
def test_a_source_has_an_ending_and_a_folder(source: str, suffix: str, folder: Path | str) -> None:
    assert (suffix_of(source), folder_of(source)) == (suffix, folder)


def test_prompts_are_given_as_texts_and_mappings() -> None:
    first, second = read(["a", {"prompt": "b", "seed": 7}])
    assert (first.request_id, first.seed, second.request_id, second.seed) == ("001-a", 0, "002-b", 7)
    with pytest.raises(ValueError, match="^prompts:2: prompt: empty; write what the clip shows$"):
        read(["a", " "])
    with pytest.raises(ValueError, match="^prompts: no prompts in it"):
        read([])
