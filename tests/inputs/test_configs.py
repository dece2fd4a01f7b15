"""Every profile loads and can be planned, for a full-size model and the devices that it is made for."""

from __future__ import annotations

from pathlib import Path

import pytest
import sparse
import yaml
from typer.testing import CliRunner, Result

from ltx_dist.cli import app
from ltx_dist.inputs.config_file import load_config
from ltx_dist.inputs.profile import profiles

CONFIGS = list(profiles().values())
NAMES = ["6gb", "cluster", "demo", "eight-gpu", "rtx4090", "three-gpu-pinned", "two-gpu"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("full-size")
    return {version: sparse.save_sparse_checkpoint(folder / version, version) for version in ("0.9.5", "0.9.8-13b-dev")}


@pytest.fixture(autouse=True)
def wide_and_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cell is cut, and GPUs of the machine that runs the tests do not count."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PATH", "/nonexistent")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("a red circle\na blue square\n")
    return path


def plan(prompts: Path, *arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["plan", str(prompts), *map(str, arguments)])


def test_there_is_a_config_for_each_kind_of_machine():
    assert [path.stem for path in CONFIGS] == NAMES


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_says_why_in_each_line(path: Path):
    first, *lines = path.read_text().splitlines()
    assert first.startswith("# ")
    for line in lines:
        assert line.startswith("#") or line.endswith(":") or "  # " in line, line


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_planned_for_the_devices_it_names(path: Path, prompts: Path, checkpoints: dict[str, Path]):
    settings = yaml.safe_load(path.read_text())
    checkpoint = checkpoints["0.9.8-13b-dev" if "13B" in path.read_text() else "0.9.5"]
    real = [] if settings["model"]["checkpoint"] == "demo" else ["--set", f"model.checkpoint={checkpoint}"]
    result = plan(prompts, "-c", path, *real)
    assert result.exit_code == 0, result.output
    placement = load_config(path).placement
    kind, count = placement.device, placement.devices
    assert all(f"{kind}:{index}" in result.output for index in range(count or 1))
    assert f"{kind}:{count}" not in result.output
    assert f"layout {placement.layout}" in result.output
    assert ("from the config" in result.output) == (kind == "cuda"), result.output


def test_devices_that_are_not_there_can_be_planned_for(prompts: Path, checkpoints: dict[str, Path]):
    wanted = [f"model.checkpoint={checkpoints['0.9.5']}", "placement.device=cuda", "placement.devices=2"]
    settings = [part for setting in wanted for part in ("--set", setting)]
    large = plan(prompts, *settings, "--set", "placement.memory_gb=80")
    assert large.exit_code == 0, large.output
    assert "2 GPUs of 80 GB (from the config, not detected)" in large.output
    assert "cuda:1" in large.output and "cuda:2" not in large.output and "resident" in large.output
    small = plan(prompts, *settings, "--set", "placement.memory_gb=16")
    assert small.exit_code == 0 and "time_sliced" in small.output, small.output


def test_nothing_is_made_up_where_the_config_asks_for_no_gpu(prompts: Path):
    result = plan(prompts)
    assert result.exit_code == 0 and "cpu:0" in result.output and "from the config" not in result.output
