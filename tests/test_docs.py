"""What the docs tell people to type exists: commands, options, profiles, keys, and files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from ltx_dist.cli import app
from ltx_dist.inputs.config import RenderConfig
from ltx_dist.inputs.profile import profiles

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(path for path in (ROOT / "launch").iterdir() if path.is_file()),
    ]
)
OF_THE_PAST = "decisions.md"
"""A page whose notes name files as they were called at the time."""

COMMANDS = get_command(app).commands  # type: ignore[attr-defined]
KEYS = {f"{s}.{key}" for s, field in RenderConfig.model_fields.items() for key in field.annotation.model_fields}

IDS = {"ids": lambda path: path.name}


def invocations(text: str) -> Iterator[list[str]]:
    """The words after `ltx-dist` in code, from the command on."""
    joined = re.sub(r"\\\n[# ]*", " ", text)
    for line in joined.splitlines():
        for found in re.finditer(r"(?:^|[\s`/])ltx-dist +([a-z].*)", line):
            code = re.split(r"`| {2,}#| # |\||;|&&|, and ", found[1])[0]
            try:
                yield shlex.split(code.replace("[", "").replace("]", ""))
            except ValueError:  # prose with an apostrophe
                continue


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != OF_THE_PAST], **IDS)
def test_commands_and_their_options_exist(page: Path) -> None:
    for command, *words in invocations(page.read_text("utf-8")):
        if command not in COMMANDS:
            continue  # prose; `test_commands_of_code_blocks_exist` reads code
        options = {
            name for parameter in COMMANDS[command].params for name in (*parameter.opts, *parameter.secondary_opts)
        }
        for word in words:
            if re.fullmatch(r"-\w|--[a-z][\w-]+(=.*)?", word):
                assert word.partition("=")[0] in {*options, "--help"}, f"{page.name}: ltx-dist {command} {word}"
        for option, value in zip(words, words[1:], strict=False):
            if option == "--profile" and value.islower():
                assert value in profiles(), f"{page.name}: --profile {value}"
            if option == "--set" and re.match(r"\w+\.\w+=", value):
                assert value.partition("=")[0] in KEYS, f"{page.name}: --set {value}"


def code_blocks(text: str) -> Iterator[str]:
    yield from re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if page.suffix == ".md" and page.name != OF_THE_PAST], **IDS)
def test_commands_of_code_blocks_exist(page: Path) -> None:
    for block in code_blocks(page.read_text("utf-8")):
        for name in re.findall(r"^(?:\$ )?ltx-dist +([a-z]+)", block, re.MULTILINE):
            assert name in COMMANDS, f"{page.name}: ltx-dist {name}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.suffix == ".md"], **IDS)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, heading = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), f"{page.name}: {target}"
        if heading and other.suffix == ".md":
            assert heading in anchors(other.read_text("utf-8")), f"{page.name}: {target}"


def anchors(text: str) -> set[str]:
    """GitHub's anchors of the headings."""
    headings = re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != OF_THE_PAST], **IDS)
def test_files_of_the_repository_that_are_named_exist(page: Path) -> None:
    for name in re.findall(
        r"(?<![\w/.-])((?:launch|tools|benchmarks|docs|configs|tests)/[\w./-]*\w)", page.read_text("utf-8")
    ):
        assert (ROOT / name).exists(), f"{page.name}: {name}"


PROMISES = {
    "README.md": ("Why not a loop around a diffusers pipeline?\n", "\n\n"),
    "SECURITY.md": ("## What `ltx_dist` defends\n", "\n## "),
}
"""Where the list of each page begins and ends."""


@pytest.mark.parametrize("page", PROMISES)
def test_each_promise_names_a_test_that_exists(page: str) -> None:
    begin, end = PROMISES[page]
    section = (ROOT / page).read_text("utf-8").partition(begin)[2].partition(end)[0]
    promises = re.split(r"^- ", section, flags=re.MULTILINE)[1:]
    assert len(promises) >= 5
    tests = {path: path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    functions = {name for text in tests.values() for name in re.findall(r"^def (test_\w+)\(", text, re.MULTILINE)}
    for promise in promises:
        named = re.findall(r"`(?:tests/[\w/]*/)?(test_\w+)(\.py)?`", promise)
        assert named, f"{page}: no test is named by: {promise}"
        for name, is_file in named:
            assert is_file or name in functions, f"{page}: {name}"  # files: test_files_of_the_repository_...
