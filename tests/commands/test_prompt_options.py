"""What --prompt, --vary, --expand, --column and --keep-columns make of a config."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from ltx_dist.cli import app
from ltx_dist.commands.prompt_options import given_prompts, with_prompt_options
from ltx_dist.inputs.config import RenderConfig
from ltx_dist.inputs.config_file import load_config


def options(config: RenderConfig | None = None, **given: Any) -> RenderConfig:
    nothing: dict[str, Any] = dict.fromkeys(("vary", "expand", "column", "keep_columns"))
    return with_prompt_options(config or load_config(None), **(nothing | given))


def test_without_options_the_config_stays() -> None:
    config = load_config(None, ["defaults.seed=3"])
    assert options(config) == config


def test_vary_replaces_the_configs_values_field_by_field() -> None:
    config = load_config(None, ["defaults.vary={seed: 0-9, fit: [pad]}"])
    varied = options(config, vary=["seed=1,2", "guidance_scale=3"])
    assert varied.defaults.vary == {"seed": "1,2", "fit": ["pad"], "guidance_scale": "3"}
    assert (varied.defaults.named("vary"), config.defaults.named("vary")) == (
        "--vary", "--set defaults.vary={seed: 0-9, fit: [pad]}"
    )  # fmt: skip
    assert RenderConfig().defaults.named("vary") == "defaults.vary"  # which all configs share


def test_reading_options_go_on_top_of_the_configs() -> None:
    config = load_config(None, ["prompts.columns={a: prompt}", "prompts.wildcards=lists"])
    prompts = options(config, expand="all", column=["b=seed"], keep_columns="id, category").prompts
    assert prompts.columns == {"a": "prompt", "b": "seed"}
    assert (prompts.keep_columns, prompts.expand, prompts.wildcards) == (["id", "category"], "all", "lists")
    assert options(expand="10").prompts.expand == 10


def test_options_travel_with_a_submitted_config() -> None:
    sent = options(vary=["seed=0-1"], expand="2", column=["a=prompt"]).model_dump(mode="json", exclude_unset=True)
    assert sent == {
        "defaults": {"vary": {"seed": "0-1"}}, "prompts": {"expand": 2, "columns": {"a": "prompt"}}
    }  # fmt: skip
    assert RenderConfig.model_validate(sent).prompts.expand == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"vary": ["seed"]}, "--vary: 'seed': write FIELD=VALUES, such as seed=0-4"),
        ({"column": ["a=b"]}, "--column: a=b: b is not a field"),
        ({"column": ["a"]}, "--column: 'a': write COLUMN=FIELD, such as caption=prompt"),
        ({"keep_columns": "seed"}, "--keep-columns: 'seed' is a field, or empty"),
        ({"keep_columns": "a,,b"}, "--keep-columns: '' is a field, or empty"),
        ({"expand": "some"}, "--expand: 'some' is not off, all, or a whole number of at least 1"),
        ({"expand": "-1"}, "--expand: '-1' is not off, all"),
    ],
)
def test_a_wrong_option_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        options(**given)
    assert str(caught.value).startswith(message)


def test_prompts_are_a_file_or_given() -> None:
    assert given_prompts("p.txt", None) == "p.txt"
    assert given_prompts(None, ["a", "b"]) == ["a", "b"]
    for source, texts in ((None, None), (None, []), ("p.txt", ["a"])):
        with pytest.raises(ValueError, match="give either a file of prompts or --prompt"):
            given_prompts(source, texts)


def test_plan_prints_the_product_and_mistakes_of_its_options() -> None:
    def plan(*options: str) -> str:
        run = CliRunner().invoke(app, ["plan", "--set", "placement.device=cpu", *options])
        assert run.exit_code == (2 if "ltx-dist: " in run.output else 0), run.output
        return run.output

    planned = plan("--prompt", "a", "--prompt", "b", "--vary", "seed=0-4", "--vary", "guidance_scale=1,3")
    assert planned.splitlines()[1] == "2 prompts x 5 values of seed x 2 values of guidance_scale = 20 clips"
    assert "values of" not in plan("--prompt", "a")
    assert plan("--prompt", "a", "--vary", "guidance_scale=-1,3") == (
        "ltx-dist: --vary: guidance_scale: -1.0 is too small; it must be at least 0\n"
    )
    assert plan().startswith("ltx-dist: give either a file of prompts or --prompt")
