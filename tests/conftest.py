"""What all tests share: tiers, a separate cache, and one Ray cluster, which the first test that needs it starts."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiers
from tiers import HEAVY, LONGEST, TIERS, tier_of

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS))
# Actors unpickle what tests send them, so they need the tests' modules, too. .venv-fast has no package installed.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH")]))

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Several test processes share the cores, and torch's threads would spend most of their time waiting for one another.
# Tests that need more threads set the number themselves. It is read when torch is imported, here and by commands.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("CUDA_VISIBLE_DEVICES", None)
os.environ.pop("RAY_ADDRESS", None)
os.environ.pop("COLUMNS", None)  # pytest sets it if it runs in several processes; it would wrap output

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As under nohup, or in a script's background. Children would inherit it, and Python would then ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tier", choices=list(TIERS), help="run one tier; fast also makes torch and Ray unimportable")


def pytest_configure(config: pytest.Config) -> None:
    """Registers the tiers as marks. In the tier `fast`, importing one of HEAVY fails even if it is installed."""
    for tier, needs in TIERS.items():
        config.addinivalue_line("markers", f"{tier}: {needs}; given by tests/tiers.py")
    if config.getoption("--tier") == "fast":
        sys.modules.update(dict.fromkeys(HEAVY))  # type: ignore[arg-type]  # None makes an import fail
        tiers.examples_share = 0.2


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out the files of other tiers in the tier `fast`, so that they are not even imported."""
    if config.getoption("--tier") == "fast" and collection_path.suffix == ".py":
        return tier_of(collection_path.relative_to(TESTS)) != "fast" or None
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks each test with its tier, selects those of the chosen tier, and puts the longest files first.

    Tests marked gpu need a CUDA device; torch is asked only if there are any.
    """
    for item in items:
        tier = tier_of(item.path.relative_to(TESTS), item.name.partition("[")[0])
        if item.get_closest_marker("ray") and tier != "chaos":
            tier = "system"
        item.add_marker(tier)
    if wanted := config.getoption("--tier"):
        others = [item for item in items if not item.get_closest_marker(wanted)]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item.get_closest_marker(wanted)]
    first = {TESTS / name: position for position, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path, len(LONGEST)))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def private_cache() -> Iterator[None]:
    """Caches digests and embeddings in a folder that only the tests use."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LTX_DIST_CACHE"] = folder
        yield


@pytest.fixture(autouse=True)
def empty_cache(private_cache: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps each test from finding the embeddings of another test's prompts."""
    monkeypatch.setenv("LTX_DIST_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A cluster with three fake GPUs. Workers compute on the config's device, a CPU."""
    import ray

    # The paths of Ray's sockets must be short, so pytest's long temporary folders will not do.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        ray.init(num_cpus=4, num_gpus=3, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        yield
        ray.shutdown()
