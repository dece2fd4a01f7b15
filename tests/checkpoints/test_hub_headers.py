"""A model on the hub is planned without its weights, with a stand-in for the hub on this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import hub_stand_in
import pytest

from ltx_dist.checkpoints.checkpoint import DEMO_MODEL
from ltx_dist.checkpoints.hub_headers import write_sparse


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO_MODEL, tmp_path / "model"))


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("a red circle\na blue square\n")
    return path


def in_a_process(tmp_path: Path, address: str, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """The hub's address is read when huggingface_hub is imported."""
    own = {"HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_ENDPOINT": address}
    environment = os.environ | own | {"LTX_DIST_CACHE": str(tmp_path / "cache"), "COLUMNS": "200"}
    command = (sys.executable, *command)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def plan(tmp_path: Path, address: str, prompts: Path, *more: str | Path) -> subprocess.CompletedProcess[str]:
    return in_a_process(tmp_path, address, "-m", "ltx_dist.cli", "plan", prompts, *more)


def test_a_plan_asks_for_headers_only_and_says_what_the_whole_model_would(
    model: Path, prompts: Path, tmp_path: Path
) -> None:
    weights = sum(path.stat().st_size for path in model.rglob("*.safetensors"))
    generic = ("--set", "model.version=generic")  # otherwise, the packaged model is recognised by its path
    with hub_stand_in.serve("someone/a-model", model) as hub:
        planned = plan(tmp_path, hub.address, prompts, "-m", "someone/a-model", *generic)
        assert planned.returncode == 0, planned.stderr
        assert not list((tmp_path / "hub").rglob("*.safetensors")), "no weights are in the hub's cache"
        sent = hub.num_bytes - sum(path.stat().st_size for path in model.rglob("*") if path.suffix != ".safetensors")
        assert sent < weights / 4, f"{sent} of {weights} bytes"
        kept = sum(path.stat().st_blocks * 512 for path in (tmp_path / "cache" / "headers").rglob("*.safetensors"))
        assert kept < weights / 4, "the weights are holes"
    local = plan(tmp_path, "http://127.0.0.1:9", prompts, "-m", model, *generic)
    of_hub = planned.stdout.replace(f"someone/a-model@{hub_stand_in.COMMIT}", "MODEL")
    assert of_hub == local.stdout.replace(str(model), "MODEL")
    assert re.search(r"cpu:0 .* 0\.0\d\d GB", of_hub), "sizes are counted"


def test_a_render_after_a_plan_downloads_the_weights(model: Path, prompts: Path, tmp_path: Path) -> None:
    code = (
        "from ltx_dist.checkpoints.checkpoint import open_checkpoint\n"
        "from ltx_dist.checkpoints.digests import checkpoint_digest\n"
        "print(checkpoint_digest(open_checkpoint({name!r})))"
    )
    with hub_stand_in.serve("someone/a-model", model) as hub:
        assert plan(tmp_path, hub.address, prompts, "-m", "someone/a-model").returncode == 0
        opened = in_a_process(tmp_path, hub.address, "-c", code.format(name="someone/a-model"))
        hub.asked.clear()
        again = plan(tmp_path, hub.address, prompts, "-m", "someone/a-model")
        assert again.returncode == 0 and hub.gets() == [], "what is in the cache is not asked for again"
    packaged = in_a_process(tmp_path, hub.address, "-c", code.format(name="demo"))
    assert opened.stdout == packaged.stdout != "", opened.stderr
    assert plan(tmp_path, hub.address, prompts, "-m", "someone/a-model").returncode == 0, "nor without network"


def test_a_header_that_is_none_is_named(model: Path, prompts: Path, tmp_path: Path) -> None:
    (model / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"\xff" * 64)
    with hub_stand_in.serve("someone/a-model", model) as hub:
        planned = plan(tmp_path, hub.address, prompts, "-m", "someone/a-model")
    assert planned.returncode == 2 and "Traceback" not in planned.stderr
    assert "the header of vae/diffusion_pytorch_model.safetensors cannot be read" in planned.stderr


def test_two_plans_that_write_one_header_at_once_do_not_share_a_partial_file(tmp_path: Path) -> None:
    other = tmp_path / "model.partial"
    other.write_text("of the other plan")
    header: dict[str, object] = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    write_sparse(header, tmp_path / "model.safetensors")
    assert other.read_text() == "of the other plan"
    assert {path.name for path in tmp_path.iterdir()} == {"model.partial", "model.safetensors"}
