"""What all tests share: one Ray cluster on this machine, started when the first test asks for it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS))
# Actors unpickle what tests send them, so they need the tests' modules, too.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.pop("CUDA_VISIBLE_DEVICES", None)
os.environ.pop("RAY_ADDRESS", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked gpu need a CUDA device; torch is asked only if there are any."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def private_cache() -> Iterator[None]:
    """Digests and embeddings are cached in a folder of the tests' own."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LTX_DIST_CACHE"] = folder
        yield


@pytest.fixture(autouse=True)
def empty_cache(private_cache: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds the embeddings of another's prompts."""
    monkeypatch.setenv("LTX_DIST_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Three fake GPUs; the compute device is the config's, a CPU."""
    import ray

    # Ray's sockets have path names of limited length, so pytest's long temporary folders will not do.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        ray.init(num_cpus=4, num_gpus=3, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        yield
        ray.shutdown()
