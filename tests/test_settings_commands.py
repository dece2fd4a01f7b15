"""`fields`, `config`, `models`, profiles and `-m`: derived from the tables that rows and configs are checked by."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from ltx_dist.cli import app
from ltx_dist.commands.shared import complete_key, complete_profile
from ltx_dist.inputs.config import RenderConfig
from ltx_dist.inputs.config_file import load_config
from ltx_dist.inputs.profile import profile_path, profiles
from ltx_dist.inputs.prompt_row import Row
from ltx_dist.models.family import FAMILIES

ROOT = Path(__file__).parents[1]


def printed(*arguments: str, exit_code: int = 0) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == exit_code, result.output
    return result.output


def test_the_printed_config_is_the_default_one(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(printed("config"))
    assert load_config(path).model_dump() == load_config(None).model_dump()
    document = yaml.safe_load(path.read_text())
    keys = {f"{section}.{key}" for section, values in document.items() for key in values}
    known = {f"{s}.{key}" for s, field in RenderConfig.model_fields.items() for key in field.annotation.model_fields}
    assert keys == known
    for index, line in enumerate(lines := path.read_text().splitlines()):
        if line.startswith("  ") and not line.startswith("  #"):
            assert lines[index - 1].startswith("  # "), f"{line} has no comment"


def test_every_profile_can_be_printed_and_used() -> None:
    listed = printed("config", "--list")
    for name, path in profiles().items():
        assert printed("config", name) == path.read_text("utf-8")
        assert f"\n{name} " in f"\n{listed}"
    message = printed("config", "rtx490", exit_code=2)
    assert "--profile rtx490: no such profile; did you mean rtx4090?" in message


def test_a_config_replaces_keys_of_a_profile_and_the_command_line_those_of_both(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("placement:\n  memory_gb: 16\nrecovery:\n  exact: true\n")
    config = load_config(path, ["placement.threads=3"], profile_path("rtx4090"))
    assert config.placement.layout == "shared", "the profile's"
    assert (config.placement.memory_gb, config.recovery.exact, config.placement.threads) == (16, True, 3)
    assert config.recovery.spool_gb == load_config(profile_path("rtx4090")).recovery.spool_gb
    path.write_text("placement:\n  memori_gb: 16\n")
    with pytest.raises(ValueError, match=r"my\.yaml:2: placement\.memori_gb: unknown key; did you mean"):
        load_config(path, [], profile_path("rtx4090"))


def test_plan_takes_a_model_and_a_profile(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\n")
    planned = printed("plan", str(prompts), "-m", "demo", "--profile", "demo")
    assert "demo" in planned and "layout pinned" in planned and "cpu:2" in planned
    missing = printed("plan", str(prompts), "-m", "./nowhere", exit_code=2)
    assert "model.checkpoint: ./nowhere" in missing


def test_fields_lists_every_field_with_the_defaults_of_versions() -> None:
    table = printed("fields", "0.9.8-13b-dev", "2.3-distilled").splitlines()
    rows = {line.split()[0]: line for line in table[1:]}
    assert rows.keys() == Row.model_fields.keys()
    assert rows["num_inference_steps"].rstrip().split("  ")[-1] == "denoising steps"
    assert " 30 " in rows["num_inference_steps"] and " 8 " in rows["num_inference_steps"]
    assert "whole number, 1 to 1,000" in rows["num_inference_steps"]
    assert "no such version" in printed("fields", "0.8", exit_code=2)


def test_models_lists_every_version() -> None:
    listed = [line.split()[0] for line in printed("models").splitlines() if line]
    versions = [version for family in FAMILIES for version in family.presets]
    assert listed[1 : 1 + len(versions)] == versions


def test_the_shell_completes_profiles_and_keys() -> None:
    assert [name for name, _ in complete_profile("r")] == ["rtx4090"]
    keys = dict(complete_key("model."))
    assert "model.checkpoint=" in keys and all(keys.values())
    assert "defaults.num_frames=" in dict(complete_key("defaults.n"))


def test_messages_name_the_requirements_of_the_extras() -> None:
    from ltx_dist.store import remote_folder
    from ltx_dist.weights import quantization

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(quantization.REQUIREMENTS.values()) == set(extras["quantize"])
    assert set(remote_folder.REQUIREMENTS.values()) == {*extras["s3"], *extras["gcs"]}
