"""If a cluster cannot be started or joined, one line says what is wrong, which setting is to blame, and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from ltx_dist.cluster import ray_cluster
from ltx_dist.cluster.ray_cluster import why_not
from ltx_dist.placement.inventory import DeviceInfo, Inventory
from ltx_dist.user_cache import from_home, user_cache

SMALL = [word for one in ("device=cpu", "threads=1") for word in ("--set", f"placement.{one}")]


def render(tmp_path: Path, *arguments: str, **environment: str | None) -> tuple[int, str]:
    """Exit code and standard error of `render --executor ray` with these variables; None unsets one."""
    prompts = tmp_path / "p.txt"
    prompts.write_text("a red circle\n")
    command = [sys.executable, "-m", "ltx_dist.cli", "render", str(prompts), "-o", str(tmp_path / "out"), *SMALL]
    settings = {name: value for name, value in (os.environ | environment).items() if value is not None}
    done = subprocess.run(
        [*command, *arguments], env=settings, capture_output=True, text=True, timeout=300, check=False
    )
    return done.returncode, done.stderr.strip()


@pytest.mark.fault(28)
@pytest.mark.parametrize(
    ("address", "words"),
    [
        (
            "ray://head:10001",
            "'ray://head:10001' is not HOST:PORT of a cluster's head (port 6379 by default); ray:// is",
        ),
        ("http://head:8265", "http:// is the job server, which `ltx-dist submit` takes"),
        ("127.0.0.1:9", "nothing answers at 127.0.0.1:9"),
    ],
)
def test_an_address_is_named_after_what_gave_it(tmp_path: Path, address: str, words: str):
    code, errors = render(tmp_path, RAY_ADDRESS=address)
    assert (code, len(errors.splitlines())) == (2, 1), errors
    assert errors.startswith("ltx-dist: RAY_ADDRESS: ") and words in errors
    assert errors.endswith("unset RAY_ADDRESS to render on this machine alone")
    code, errors = render(tmp_path, "--address", address, RAY_ADDRESS="127.0.0.1:10")
    assert code == 2 and errors.startswith("ltx-dist: --address: ") and words in errors and "RAY_ADDRESS" not in errors


def test_a_head_without_gpus_and_cpus_does_not_limit_the_hosts_that_render(monkeypatch: pytest.MonkeyPatch) -> None:
    def node(name: str, **resources: float) -> dict[str, Any]:
        return {"NodeID": name, "Alive": True, "Resources": resources}

    head, small = node("head", CPU=0, memory=4e9), node("c", CPU=8, memory=32e9)
    nodes = [head, node("a", CPU=48, memory=256e9, GPU=8), node("b", CPU=32, memory=128e9, GPU=4)]
    monkeypatch.setattr(ray_cluster, "free_gpus", lambda nodes: [])
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="head:6379"))
    found = ray_cluster.joined("auto")
    assert (found.num_cpus, found.host_memory_bytes) == (32, 128 * 10**9)
    nodes[:] = [node("d", CPU=16, memory=64e9), small]
    found = ray_cluster.joined("auto")
    assert (found.num_cpus, found.host_memory_bytes) == (8, 32 * 10**9), "without GPUs every node renders"


def test_a_node_with_an_old_gpu_and_a_small_one_counts_as_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray may give either to a worker. A batch in bfloat16 that fits the large one would fail on the other."""
    old = DeviceInfo("NVIDIA Quadro RTX 6000", 24 * 10**9, compute_capability=(7, 5))
    small = DeviceInfo("NVIDIA A2000", 12 * 10**9, index=1, compute_capability=(8, 6))
    unknown = DeviceInfo("MIG slice", 40 * 10**9, index=2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for gpus, expected in (
        ((old, small, unknown), replace(small, compute_capability=(7, 5))),
        ((small, unknown), small),
        ((unknown,), unknown),
        ((), None),
    ):
        monkeypatch.setattr(ray_cluster, "local_inventory", lambda gpus=gpus: Inventory(gpus, 4))
        assert ray_cluster.weakest_gpu() == expected


@pytest.mark.fault(28)
def test_both_versions_are_named_where_they_differ():
    error = RuntimeError(
        "Version mismatch: The cluster was started with:\n    Ray: 2.40.0\n    Python: 3.12.1\n"
        "This process on Driver was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    )
    assert why_not(error) == (
        "it runs Ray 2.40.0 with Python 3.12.1, and this is Ray 2.60.0 with Python 3.11.7; "
        "both sides need the same Ray and the same minor version of Python"
    )


@pytest.mark.ray
def test_the_message_about_versions_is_rays_own(monkeypatch: pytest.MonkeyPatch):
    from ray._private.utils import check_version_info

    with pytest.raises(RuntimeError) as caught:
        check_version_info({"ray_version": "2.40.0", "python_version": "3.12.1"}, "Driver")
    assert why_not(caught.value).startswith("it runs Ray 2.40.0 with Python 3.12.1, and this is Ray ")


@pytest.mark.fault(14)
@pytest.mark.ray
def test_a_home_without_a_place_for_the_token_is_named(tmp_path: Path):
    """A file is where `.ray` would be, so even root cannot write there, like a user of `docker run --user 12345`."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".ray").write_text("")
    code, errors = render(tmp_path, "--executor", "ray", HOME=str(home), RAY_AUTH_MODE=None)
    assert (code, len(errors.splitlines())) == (2, 1), errors
    assert errors.startswith(f"ltx-dist: Ray did not start on this machine: {home}/.ray")
    assert errors.endswith("set HOME to a folder that you can write to")


@pytest.mark.fault(14)
@pytest.mark.ray
def test_a_place_for_rays_files_that_is_none_is_named(tmp_path: Path):
    taken = tmp_path / "taken"
    taken.write_text("")
    code, errors = render(tmp_path, "--executor", "ray", RAY_TMPDIR=str(taken))
    assert (code, len(errors.splitlines())) == (2, 1), errors
    assert str(taken) in errors and errors.endswith("set RAY_TMPDIR to a folder that you can write to")


@pytest.mark.fault(14)
@pytest.mark.ray
def test_a_place_for_rays_files_with_a_long_path_is_named(tmp_path: Path):
    long = tmp_path / ("d" * 100)
    long.mkdir()
    code, errors = render(tmp_path, "--executor", "ray", TMPDIR=str(long), RAY_TMPDIR=None)
    assert (code, len(errors.splitlines())) == (2, 1), errors
    assert errors.endswith("would be too long; set RAY_TMPDIR to a short one, such as /tmp")


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No HOME, and a user without an entry in /etc/passwd."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 1_234_567)


def test_without_a_home_the_cache_asks_for_a_folder(homeless: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("LTX_DIST_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(ValueError, match="no home folder to keep a cache in; set LTX_DIST_CACHE or HOME"):
        user_cache()
    monkeypatch.setenv("LTX_DIST_CACHE", str(tmp_path))
    assert user_cache() == tmp_path


def test_without_a_home_a_path_in_it_is_refused(homeless: None):
    with pytest.raises(ValueError, match="model.checkpoint: ~/ltx: this user has no home folder; write the full path"):
        from_home("~/ltx", "model.checkpoint")


def test_a_path_in_the_home_of_nobody_is_refused():
    with pytest.raises(ValueError, match="cache.embeddings: ~nobody-9/x: that user has no home folder"):
        from_home("~nobody-9/x", "cache.embeddings")


@pytest.mark.parametrize("name", ["a" * 256, "~/" + "é" * 128, "a/" * 2049])
def test_what_is_too_long_for_the_name_of_a_file_is_refused(name: str):
    """`Path.exists` would raise OSError."""
    with pytest.raises(ValueError, match=r"^model.checkpoint: .{60}\.\.\.: too long for the name of a file"):
        from_home(name, "model.checkpoint")


@pytest.mark.ray
def test_without_a_home_ray_says_which_variable_is_missing():
    assert why_not(RuntimeError("Could not determine home directory.")).endswith(
        "set HOME to a folder that you can write to"
    )
