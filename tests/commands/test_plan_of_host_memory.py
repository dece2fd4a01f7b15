"""`ltx-dist plan` shows how much host memory the workers take; if it is too much, the error says what would fit."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import sparse
from typer.testing import CliRunner

from ltx_dist.cli import app
from ltx_dist.placement import local_devices

GB = 10**9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full size")
    for version in ("0.9.5", "0.9.8-13b-dev"):
        sparse.save_sparse_checkpoint(folder / version, version)
    (folder / "prompts.txt").write_text("a red circle\na blue square\n")
    return folder


@pytest.fixture(autouse=True)
def wide_and_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PATH", "/nonexistent")


def plan(folder: Path, version: str, **placement: float | str) -> tuple[int, str]:
    """The exit code, and what was printed."""
    settings = [f"placement.{name}={value}" for name, value in {"device": "cuda", **placement}.items()]
    arguments = [str(folder / "prompts.txt"), "-m", str(folder / version)]
    result = CliRunner().invoke(app, ["plan", *arguments, *(word for one in settings for word in ("--set", one))])
    return result.exit_code, result.output


def host_line(printed: str) -> tuple[float, float, int]:
    """The GB that are needed and those that exist, and the workers that share them."""
    found = re.search(r"^Host memory: ([\d.]+) GB of ([\d.]+) GB for (\d+) workers? on one host$", printed, re.M)
    assert found, printed
    return float(found[1]), float(found[2]), int(found[3])


def test_eight_cards_of_24_gb_in_a_host_of_256_gb(folder: Path) -> None:
    eight = {"layout": "replicated", "devices": 8, "memory_gb": 24, "host_memory_gb": 256}
    code, printed = plan(folder, "0.9.5", **eight)
    assert code == 0 and host_line(printed) == (pytest.approx(8 * 1.85, abs=0.3), 256.0, 8), "all is resident"
    code, printed = plan(folder, "0.9.8-13b-dev", **eight)
    assert code == 0 and printed.count("streamed, transformer by block") == 8
    assert host_line(printed) == (pytest.approx(8 * 29.8, abs=1), 256.0, 8), "each has 13B page-locked"
    code, printed = plan(folder, "0.9.8-13b-dev", **(eight | {"host_memory_gb": 200}))
    assert code == 2 and "8 workers on one host need 238.1 GB of its 200.0 GB" in printed
    assert "use placement.devices: 6, or 238.1 GB of memory" in printed
    code, printed = plan(folder, "0.9.8-13b-dev", **(eight | {"host_memory_gb": 200, "devices": 6}))
    assert code == 0, "what was named fits"


def test_a_card_of_24_gb_in_a_host_of_32_gb(folder: Path) -> None:
    one = {"devices": 1, "memory_gb": 24, "host_memory_gb": 32}
    for version, needed in (("0.9.5", 1.8), ("0.9.8-13b-dev", 29.8)):
        code, printed = plan(folder, version, **one)
        assert code == 0 and host_line(printed) == (pytest.approx(needed, abs=0.3), 32.0, 1)
    code, printed = plan(folder, "0.9.8-13b-dev", **(one | {"host_memory_gb": 24}))
    assert code == 2 and "1 workers on one host need 29.8 GB of its 24.0 GB" in printed and "; use more" in printed


def test_a_card_of_6_gb_in_a_host_of_16_gb(folder: Path) -> None:
    one = {"devices": 1, "memory_gb": 6, "host_memory_gb": 16}
    code, printed = plan(folder, "0.9.5", **one)
    needed, there, _ = host_line(printed)
    assert code == 0 and "text_encoder by block" in printed and needed < there == 16.0
    code, printed = plan(folder, "0.9.8-13b-dev", **one)
    assert code == 2 and "placement.memory_gb: streamed needs at least" in printed
    assert "set model.transformer_storage=float8" in printed


def test_a_pod_of_64_gb_on_a_host_of_1_tb(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "driver").mkdir()
    driver = tmp_path / "driver" / "nvidia-smi"
    card = "GPU-%d, 24564, [N/A], 8.9, NVIDIA GeForce RTX 4090"
    driver.write_text("#!/bin/sh\n" + "".join(f"echo '{n}, {card % n}'\n" for n in range(4)))
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{driver.parent}:/bin:/usr/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/kubepods/pod7\n")
    (tmp_path / "sys/fs/cgroup/kubepods").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/kubepods/memory.max").write_text(f"{64 * GB}\n")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=1000 * GB))
    monkeypatch.setattr(local_devices, "host_memory_bytes", partial(local_devices.host_memory_bytes, tmp_path))
    code, printed = plan(folder, "0.9.8-13b-dev", layout="replicated")
    assert code == 2 and "4 workers on one host need" in printed and "of its 64.0 GB" in printed
    assert "use placement.devices: 2, or" in printed
    code, printed = plan(folder, "0.9.8-13b-dev", layout="replicated", devices=2)
    needed, there, workers = host_line(printed)
    assert code == 0 and needed <= there == 64.0 and workers == 2


def test_a_broken_driver_does_not_matter_to_a_plan_for_the_cpu(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'\nexit 18\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    code, printed = plan(folder, "0.9.5", device="cuda")
    assert code == 2 and "nvidia-smi failed: Failed to initialize NVML" in printed
    code, printed = plan(folder, "0.9.5", device="cpu")
    assert code == 0, printed
