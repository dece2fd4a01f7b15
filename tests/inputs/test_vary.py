"""`vary`: which values a text or list stands for, and the labels in the clips' names."""

from __future__ import annotations

from typing import Any

import pytest

from ltx_dist.inputs.vary import VARY_FORM, assignments, label_of, read_axes


def values(field: str, given: Any) -> list[Any]:
    axes, problems = read_axes({field: given})
    assert problems == []
    return [one.value for one in axes[field].values]


def labels(field: str, given: Any) -> list[str]:
    axes, problems = read_axes({field: given})
    assert problems == []
    return [one.label for one in axes[field].values]


def problem(field: str, given: Any) -> str:
    axes, (message,) = read_axes({field: given})
    assert axes == {}
    return message.removeprefix(f"{field}: ")


@pytest.mark.parametrize(
    ("field", "given", "expected"),
    [
        ("seed", "0-4", [0, 1, 2, 3, 4]),
        ("seed", "7", [7]),
        ("seed", " 3-5, 9", [3, 4, 5, 9]),
        ("seed", [0, 2], [0, 2]),
        ("seed", 5, [5]),
        ("guidance_scale", "1,3.5", [1.0, 3.5]),
        ("guidance_scale", [1, 3, 5], [1, 3, 5]),
        ("fit", "crop,pad", ["crop", "pad"]),
        ("negative_prompt", '["blurry, dark", ""]', ["blurry, dark", ""]),
        ("guidance_rescale", [None, 0.7], [None, 0.7]),
        ("image", "a-1.png,b.png", ["a-1.png", "b.png"]),
        ("timesteps", {"short": [1000, 500], "long": [1000, 700, 300]}, [[1000, 500], [1000, 700, 300]]),
    ],
)
def test_values_are_ranges_lists_or_labelled(field: str, given: Any, expected: list[Any]) -> None:
    assert values(field, given) == expected


def test_labels_depend_on_the_value_alone() -> None:
    assert labels("guidance_scale", [1, 3.0, 3.5, 1e-05]) == ["1", "3", "3.5", "1e-05"]
    assert labels("blur", [True, False]) == ["true", "false"]
    assert labels("guidance_rescale", [None, 0]) == ["none", "0"]
    assert labels("image", ["Dusk.png", "a dawn.png"]) == ["dusk-png", "a-dawn-png"]
    assert labels("loras", {"with toon": ["toon.safetensors"], "none": []}) == ["with-toon", "none"]
    assert labels("negative_prompt", ["b" * 30, "\u732b", ""]) == [
        "b" * 24 + "-" + label_of("b" * 30)[-6:],
        label_of("\u732b"),
        "none",
    ]
    assert len(label_of("\u732b")) == 6 and label_of("\u732b") != label_of("\u72ac")


@pytest.mark.parametrize(
    ("field", "given", "message"),
    [
        ("stepz", "1", "unknown key"),
        ("cfg", "1,3", "unknown key; did you mean guidance_scale?"),
        ("name", ["a", "b"], "cannot be varied; write one row per value"),
        ("prompt", ["a", "b"], "cannot be varied; write one row per value"),
        ("seed", [], "no values; write at least one"),
        ("seed", "5-2", "5-2 is empty; write 2-5"),
        ("seed", "0-9999999999", "0-9999999999 is 10000000000 values; at most 100000 clips are allowed"),
        ("seed", [1, 2, 1], "1 is given twice"),
        ("guidance_scale", [3, 3.0], "3.0 is given twice"),
        (
            "image",
            ["a b.png", "a-b.png"],
            "'a b.png' and 'a-b.png' would both be named a-b-png; give each value a label",
        ),
        ("timesteps", [[1000, 500]], "[1000, 500] has no label; give each value one"),
        ("seed", "[1, 2", "'[1, 2': not valid YAML"),
    ],
)
def test_what_cannot_be_varied_is_refused(field: str, given: Any, message: str) -> None:
    assert problem(field, given).startswith(message)


def test_yaml_that_a_comma_took_apart_is_recognised() -> None:
    axes, problems = read_axes({"seed": "0-4", 10: None})
    assert [one.value for one in axes["seed"].values] == [0, 1, 2, 3, 4]
    assert problems == ["10 is not a field; put values with commas in quotes: {seed: '0-4,10'}"]


def test_assignments_are_fields_and_values() -> None:
    assert assignments(["seed=0-4", " guidance_scale = 1,3 "], VARY_FORM) == {"seed": "0-4", "guidance_scale": "1,3"}
    with pytest.raises(ValueError, match="'seed': write FIELD=VALUES, such as seed=0-4"):
        assignments(["seed"], VARY_FORM)
    with pytest.raises(ValueError, match="seed is given twice; give it once: FIELD=VALUES, such as seed=0-4"):
        assignments(["seed=1", "seed=2"], VARY_FORM)
