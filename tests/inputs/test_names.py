"""Names of clips: what can be one, and what a template makes of a batch."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from typing import Any

import pytest
from builders import make_request

from ltx_dist.inputs.config_file import load_config
from ltx_dist.inputs.names import check_template, renamed, slug, usable_name

STORM = make_request("storm", prompt="A lighthouse, in a *storm*!", seed=7, guidance_scale=3.0)
DAWN = make_request("002-dawn", prompt="夜明けの灯台", seed=8, guidance_scale=3.5, decode_noise_scale=None)


def names(template: str, *requests: Any, meta: dict[str, dict[str, Any]] | None = None) -> list[str]:
    notes = {name: {"meta": told} for name, told in (meta or {}).items()}
    found, new_notes = renamed(requests or (STORM, DAWN), notes, check_template(template))
    assert list(new_notes.values()) == list(notes.values()) and new_notes.keys() <= {one.request_id for one in found}
    return [request.request_id for request in found]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{index:04}", ["0001", "0002"]),
        ("{prompt:.12}-{seed}", ["A-lighthouse-7", "夜明けの灯台-8"]),
        ("{name}_s{seed:03}_g{guidance_scale}", ["storm_s007_g3", "002-dawn_s008_g3.5"]),
        ("{width}x{height}/{name}", ["64x64/storm", "64x64/002-dawn"]),
        ("{meta.group}/{meta.take}-{name}", ["sea-sky/1-storm", "Öl/2-002-dawn"]),
        ("out{index}", ["out1", "out2"]),
    ],
)
def test_a_template_names_every_clip(template: str, expected: list[str]):
    meta = {"storm": {"group": "../sea & sky/", "take": 1}, "002-dawn": {"group": "Öl", "take": 2}}
    assert names(template, meta=meta) == expected


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{promt:.40}", r"\{promt\}: unknown field; did you mean prompt\?"),
        ("{conditions}", r"\{conditions\}: unknown field; "),
        ("{prompt", "write fields as"),
        ("{prompt!r}", "write fields as"),
        ("{prompt.__class__}", r"unknown field"),
        ("{}", "write fields as"),
        ("{prompt[0]}", "write fields as"),
        ("{seed:{index}}", "write fields as"),
        ("../{name}", "begin with a letter or digit"),
        ("/tmp/{name}", "begin with a letter or digit"),
        ("a//{name}", "begin with a letter or digit"),
        ("{name}/", "begin with a letter or digit"),
        ("~{name}", "begin with a letter or digit"),
        ("a\\{name}", "use letters, digits"),
        ("con/{name}", "cannot be a file on Windows"),
        ("{name}.mp4", "leave the ending out"),
        ("run", "is the name of a file written beside the clips"),
        ("{index:>99999999999999}", "asks for more than the 230 bytes that a name may have"),
        ("{guidance_scale:.999999999f}", "asks for more than the 230 bytes"),
    ],
)
def test_a_wrong_template_is_an_error_of_the_config(template: str, why: str):
    with pytest.raises(ValueError, match=rf"--set output\.name=.*{why}"):
        load_config(None, [f"output.name={template}"])


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{guidance_scale}x", r"'3x' is the name of clip 1 \(storm\) too; add \{index\} or \{seed\}"),
        ("{meta.group}", r"\{meta\.group\} is not set; set it in the row, or leave it out of the template"),
        ("{decode_noise_scale}", r"\{decode_noise_scale\} is not set"),
        ("{prompt}" * 12, r"is 216 bytes long; at most 200 are allowed"),
        ("{negative_prompt}", r"no character of '\.\.' may be in a file name; use \{index\}"),
        ("{meta.device}/{name}", r"'nul/002-dawn' cannot be a file on Windows; choose another"),
    ],
)
def test_a_name_that_cannot_be_is_reported_with_its_clip(template: str, why: str):
    dawn = replace(DAWN, guidance_scale=3.0, negative_prompt="..")
    storm = replace(STORM, negative_prompt="x", decode_noise_scale=0.5)
    meta = {"storm": {"group": "a", "device": "gpu"}, "002-dawn": {"device": "nul"}}
    with pytest.raises(ValueError, match=rf"output\.name: clip 2 \(002-dawn\): .*{why}"):
        names(template, storm, dawn, meta=meta)


def test_a_format_that_is_not_of_the_value_is_reported():
    with pytest.raises(
        ValueError, match=r"clip 1 \(storm\): \{prompt:d\}: 'A lighthouse, .* cannot be written in this format"
    ):
        names("{prompt:d}")


def test_names_that_differ_in_case_or_in_how_accents_are_written_clash():
    for one, other in (("Été", "été"), ("é", unicodedata.normalize("NFD", "é"))):
        with pytest.raises(ValueError, match="is the name of clip 1"):
            names("{prompt}", replace(STORM, prompt=one), replace(DAWN, prompt=other))


def test_a_name_keeps_the_letters_of_every_script_in_one_form():
    assert usable_name(unicodedata.normalize("NFD", "été/빛/דג/圆-1")) == "été/빛/דג/圆-1"
    assert slug("  ночь: маяк (2)… ") == "ночь-маяк-2"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/..", "/a", "a/", "-a", ".a", "a b", "a\\b", "a:b", "a\0", "é" * 101, "a/run", "x/nul.b", "🔥"],
)
def test_what_can_be_no_file_somewhere_is_no_name(name: str):
    with pytest.raises(ValueError):
        usable_name(name)
