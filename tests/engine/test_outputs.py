"""Outputs are kept exactly as long as a later stage of the request may read them."""

from __future__ import annotations

from typing import Any

from builders import make_request

from ltx_dist.engine.outputs import Outputs
from ltx_dist.pipeline.recipe import Recipe, StageLabel, StageSpec

LABEL = StageLabel("X", "x", "x", "red")


def stage(name: str, *inputs: str, **more: Any) -> StageSpec:
    return StageSpec(name, name, LABEL, inputs=inputs, **more)


RECIPE = Recipe(
    "with a second pass",
    (
        stage("text"),
        stage("first", "text"),
        stage("second", "text", "first", only_with="prompt"),
        stage("frames", "first", "second"),
        stage("mp4", "frames", runs_on="host"),
        stage("poster", "mp4", runs_on="host"),
    ),
)
A, B = make_request("a"), make_request("b", prompt="")
"""`b` has no second pass."""


def held(outputs: Outputs[str], request: Any) -> set[str]:
    return {name for name in RECIPE.names if outputs.holds(request.request_id, name)}


def end(outputs: Outputs[str], name: str, *requests: Any) -> None:
    outputs.ended(name, requests, [f"{name} of {request.request_id}" for request in requests])


def test_a_stage_gets_its_inputs_in_order_and_none_for_a_stage_that_the_request_does_not_run() -> None:
    outputs = Outputs[str](RECIPE)
    end(outputs, "text", A, B)
    end(outputs, "first", A, B)
    end(outputs, "second", A)
    assert outputs.inputs("frames", [A, B]) == ["first of a", "second of a", "first of b", None]
    assert outputs.inputs("text", [A]) == []


def test_an_output_is_freed_when_no_later_stage_of_its_request_reads_it() -> None:
    outputs = Outputs[str](RECIPE)
    end(outputs, "text", A, B)
    end(outputs, "first", A, B)
    assert (held(outputs, A), held(outputs, B)) == ({"text", "first"}, {"first"})
    end(outputs, "second", A)
    assert held(outputs, A) == {"first", "second"}


def test_frames_are_not_held_and_what_they_are_made_of_is_until_the_last_host_stage_ends() -> None:
    outputs = Outputs[str](RECIPE)
    for name in ("text", "first", "frames"):
        end(outputs, name, B)
    assert held(outputs, B) == {"first"}, "a clip whose mp4 fails is decoded again"
    end(outputs, "mp4", B)
    assert held(outputs, B) == {"first", "mp4"}
    assert outputs.inputs("poster", [B]) == ["mp4 of b"]
    end(outputs, "poster", B)
    assert held(outputs, B) == set()


def test_a_released_request_holds_nothing() -> None:
    outputs = Outputs[str](RECIPE)
    outputs.put("a", "first", "from disk")
    assert outputs.inputs("frames", [A]) == ["from disk", None] and outputs.get("a", "first") == "from disk"
    outputs.release("a")
    assert outputs.inputs("frames", [A]) == [None, None]
