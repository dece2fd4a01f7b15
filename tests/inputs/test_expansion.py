"""`{a|b}` and `__list__`: every combination or a sample, named after the chosen values."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltx_dist.inputs.expansion import Expander, folder_of_lists, used_lists
from ltx_dist.inputs.reading_config import PromptsConfig


def texts(folder: Path, prompt: str, sample: int | None = None, seed: int = 0) -> list[str]:
    return [one.text for one in Expander(folder).expand(prompt, sample, seed)]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("plain {text} with } and {", ["plain {text} with } and {"]),
        ("a {red|blue} ball", ["a red ball", "a blue ball"]),
        ("{a|b} {c|d}", ["a c", "a d", "b c", "b d"]),
        ("a {very |}small cat", ["a very small cat", "a small cat"]),
        ("{a|{b|c} d}", ["a", "b d", "c d"]),
        ("{x {a|b}}", ["{x a}", "{x b}"]),
        ("{a|a|b}", ["a", "b"]),
        ("{open {a|b}", ["{open a", "{open b"]),
    ],
)
def test_choices_become_every_combination(tmp_path: Path, prompt: str, expected: list[str]) -> None:
    assert texts(tmp_path, prompt) == expected


def test_wildcards_are_the_lines_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "colour.txt").write_text("# colours\nred\n\n  dark blue  \n{light|pale} green\n")
    (tmp_path / "sub" / "thing.txt").write_text("a __colour__ ball\n")
    assert texts(tmp_path, "__sub/thing__!") == [
        "a red ball!", "a dark blue ball!", "a light green ball!", "a pale green ball!"
    ]  # fmt: skip
    assert texts(tmp_path, "snake__case__x and __init") == ["snake__case__x and __init"]


def test_picks_name_the_clips(tmp_path: Path) -> None:
    first, second = Expander(tmp_path).expand("a {Very small|big} {red|red} ball", None, 0)
    assert (first.label, second.label) == ("very-small-red", "big-red")
    assert second.picks == (("{Very small|big}", "big"), ("{red|red}", "red"))


def test_a_sample_is_drawn_with_the_seed_and_without_repeats(tmp_path: Path) -> None:
    prompt = " ".join(["{a|b|c|d}"] * 40)  # 4^40 combinations, which must never be listed
    drawn = texts(tmp_path, prompt, sample=50, seed=1)
    assert len(set(drawn)) == 50
    assert drawn == texts(tmp_path, prompt, sample=50, seed=1) != texts(tmp_path, prompt, sample=50, seed=2)
    assert texts(tmp_path, "{a|b}", sample=5) == ["a", "b"]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("__none__", "__none__: .*none.txt is missing; prompts.wildcards names the folder of such lists"),
        ("__" + "a" * 300 + "__", "a.txt is missing"),
        ("__empty__", "__empty__: .*empty.txt has no lines"),
        ("__animals/*__", r"__animals/\*__: name one file below"),
        ("__a/../../etc/passwd__", "name one file below"),
        ("__loop__", "nested more than 20 deep; does a list name itself?"),
        ("{2$$a|b}", "weights .* and multiple picks .* are not supported"),
        ("{0.5::a|b}", "weights"),
        (" ".join(["{a|b|c|d}"] * 9), "stands for 262144 prompts; at most 100000 are allowed: set prompts.expand"),
        ("{x|" + "{a|b|c|d}" * 9 + "}", "more than 100000 alternatives in one place"),
    ],
)
def test_what_cannot_be_expanded_is_refused(tmp_path: Path, prompt: str, message: str) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "loop.txt").write_text("again __loop__\n")
    with pytest.raises(ValueError, match=message):
        Expander(tmp_path).expand(prompt, None, 0)


def test_the_lists_that_texts_use_are_found_with_those_that_they_name(tmp_path: Path) -> None:
    for name, text in {"a": "__b__\n__a__\n# __c__\n", "b": "x", "c": "y", "d": "z"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    assert used_lists(["a __a__, __none__, __../a__", "{b|__*__}", "un__d__er"], tmp_path) == {
        name: tmp_path / f"{name}.txt" for name in "abc"
    }


def test_a_folder_of_lists_in_the_home_of_nobody_is_refused(tmp_path: Path) -> None:
    reading = PromptsConfig(wildcards="~nobody-9/lists")
    with pytest.raises(ValueError, match="prompts.wildcards: ~nobody-9/lists: that user has no home folder"):
        folder_of_lists(reading, tmp_path)
