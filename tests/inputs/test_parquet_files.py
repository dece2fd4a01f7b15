"""Parquet: columns have types, and only those that are needed are read."""

from __future__ import annotations

import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import fsspec
import pytest
from test_prompts import CHECKPOINT, DEFAULTS, PRESET

from ltx_dist.inputs import parquet_files
from ltx_dist.inputs.prompts import read_prompts
from ltx_dist.inputs.reading_config import PromptsConfig
from ltx_dist.pipeline.request import RenderRequest

pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")


def read(path: Path | str, notes: dict[str, Any] | None = None, **reading: Any) -> list[RenderRequest]:
    return read_prompts(str(path), DEFAULTS, PRESET, CHECKPOINT, reading=PromptsConfig(**reading), notes=notes)


def written(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_rows_are_typed_and_nulls_are_not_set(tmp_path: Path) -> None:
    path = written(
        tmp_path / "p.parquet", prompt=["a", "b"], seed=[7, None], guidance_scale=[None, 3.5], loras=[None, []]
    )
    first, second = read(path)
    assert (first.prompt, first.seed, first.guidance_scale) == ("a", 7, PRESET.settings["guidance_scale"])
    assert (second.prompt, second.seed, second.guidance_scale) == ("b", 1, 3.5)


def test_columns_are_renamed_kept_and_read_from_a_url(tmp_path: Path) -> None:
    columns = {
        "text": ["a"], "day": [date(2026, 1, 2)], "price": [Decimal("1.50")], "meta.tags": [["x", "y"]], "id": [9]
    }  # fmt: skip
    path, notes = written(tmp_path / "p.parquet", **columns), dict[str, Any]()
    fsspec.filesystem("memory").pipe("/data/p.parquet", path.read_bytes())
    try:
        (request,) = read(
            "memory://data/p.parquet", notes, columns={"text": "prompt"}, keep_columns=["day", "price", "id"]
        )
    finally:
        fsspec.filesystem("memory").store.clear()
    assert request.prompt == "a"
    assert notes == {"001-a": {"meta": {"day": "2026-01-02", "price": "1.50", "tags": ["x", "y"], "id": 9}}}


def test_errors_have_the_number_of_the_row(tmp_path: Path) -> None:
    path = written(tmp_path / "p.parquet", prompt=["a", "b"], height=[64, 130])
    with pytest.raises(ValueError, match="p.parquet:2: height: 130 is not a multiple of 32"):
        read(path)
    with pytest.raises(ValueError, match="q.parquet:1: sed: unknown column; did you mean seed?"):
        read(written(tmp_path / "q.parquet", prompt=["a"], sed=[1]))
    with pytest.raises(ValueError, match="r.parquet: no prompts in it"):
        read(written(tmp_path / "r.parquet", prompt=[]))


def test_what_is_no_parquet_or_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.parquet"
    with pytest.raises(ValueError, match="p.parquet: cannot be read: No such file or directory; check the path"):
        read(path)
    path.write_bytes(b"prompt\na\n")
    with pytest.raises(ValueError, match="p.parquet: cannot be read: "):
        read(path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="p.parquet: .*a git-lfs pointer"):
        read(path)
    written(path, prompt=["a" * 1000, "b" * 1000])
    monkeypatch.setattr(parquet_files, "MAX_ROWS", 1)
    with pytest.raises(ValueError, match="2 rows; at most 1 are allowed"):
        read(path)
    monkeypatch.undo()
    monkeypatch.setattr(parquet_files, "MAX_COLUMN_BYTES", 500)
    with pytest.raises(ValueError, match="its columns take 0 MiB; at most 0 are allowed"):
        read(path)


def test_a_long_text_that_rows_repeat_is_refused_before_it_fills_memory(tmp_path: Path) -> None:
    """A megabyte on disk, and 50 GB as rows."""
    prompts = pa.DictionaryArray.from_arrays(pa.array([0] * 50_000), pa.array(["a" * 10**6]))
    path = written(tmp_path / "p.parquet", prompt=prompts)
    assert path.stat().st_size < 2e6
    with pytest.raises(
        ValueError, match="p.parquet: cannot be read: its rows take 47683 MiB; at most 1024 are allowed"
    ):
        read(path)


def test_texts_and_numbers_may_be_stored_as_categories(tmp_path: Path) -> None:
    columns = {"prompt": ["a", "b", "a"], "seed": [1, 1, 2], "name": ["x", "y", "z"]}
    coded = {name: pa.array(values).dictionary_encode() for name, values in columns.items()}
    path = written(tmp_path / "p.parquet", **coded)
    found = [(request.prompt, request.seed) for request in read(path)]
    assert found == [("a", 1), ("b", 1), ("a", 2)]


def test_without_pyarrow_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "p.parquet", prompt=["a"])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match="p.parquet: parquet files are read with pyarrow: pip install pyarrow"):
        read(path)
