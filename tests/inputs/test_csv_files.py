"""Tables as programs write them: separators, line ends, byte order marks."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_prompts import errors, read


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", 'prompt;seed\n"a; b, c";7\nd;\n'),
        ("p.csv", "seed\tprompt\n7\ta; b, c\n\td\n"),
        ("p.tsv", "seed\tprompt\n7\ta; b, c\n\td\n"),
        ("p.tsv", 'prompt\tseed\n"a; b, c"\t7\nd\t\n'),
        ("p.csv", 'prompt,seed\n"a; b, c",7\nd,\n'),
    ],
)
def test_separators_are_those_of_the_header(name: str, text: str) -> None:
    for written in (text, text.replace("\n", "\r\n"), "\ufeff" + text):
        first, second = read(name, written)
        assert (first.prompt, first.seed, second.prompt, second.seed) == ("a; b, c", 7, "d", 1)


def test_one_column_needs_no_separator() -> None:
    assert [request.prompt for request in read("p.csv", "prompt\na; b\nc\n")] == ["a; b", "c"]


def test_cells_beyond_the_header_are_told_what_to_quote() -> None:
    assert (
        errors("p.csv", "prompt;seed\na; b;7\n")[0] == "p.csv:2: 3 cells under 2 columns; quote text with a semicolon"
    )
    assert errors("p.tsv", "prompt\na\tb\n") == ["p.tsv:2: 2 cells under 1 columns; quote text with a tab"]


def test_decimal_commas_are_told_to_be_points() -> None:
    assert errors("p.csv", "prompt;guidance_scale\na;3,5\n") == [
        "p.csv:2: guidance_scale: '3,5' is not a number; write 3.5"
    ]


def test_a_header_without_prompts_is_told_how_to_name_them() -> None:
    assert errors("p.tsv", "text,seed\na,7\n")[-1] == (
        "p.tsv:1: no column `prompt`; the first row names the columns, and --column NAME=prompt renames one"
    )
