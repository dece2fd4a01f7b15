"""No process computes anything in several threads before oneMKL's vector functions have chosen their kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
from vector_math import FirstCalls, UnlikeMklError

TESTS = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def only_with_this_mkl() -> None:
    try:
        FirstCalls()
    except UnlikeMklError as error:
        pytest.skip(f"torch's mathematics are not those of oneMKL 2024.2 ({error})")


def printed(code: str) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True, timeout=300
    ).stdout.strip()


@pytest.mark.fault(1)
def test_a_worker_makes_the_first_calls_before_it_loads_anything():
    """Set oneMKL's variable to -1, so that the next call chooses the kernels, in however many threads it is made."""
    code = (
        "import vector_math\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from ltx_dist.checkpoints.checkpoint import open_checkpoint\n"
        "from ltx_dist.engine.executor import WorkerStartError\n"
        "from ltx_dist.pipeline.storage import Mp4Settings\n"
        "from ltx_dist.pipeline.worker import Worker\n"
        "from ltx_dist.worker.spec import WorkerSpec\n"
        "from ltx_dist.worker.stage_worker import StageWorker\n"
        "row = vector_math.FirstCalls().row\n"
        "print(row.value)\n"
        "checkpoint = replace(open_checkpoint('demo'), name='/gone', path=Path('/gone'))\n"
        "try:\n"
        "    StageWorker(WorkerSpec(Worker('w', ('denoise',), 'cpu'), checkpoint, 'float32', Mp4Settings()))\n"
        "except WorkerStartError:\n"
        "    print(row.value >= 0)\n"
    )
    assert printed(code) == "-1\nTrue"


@pytest.mark.fault(1)
@pytest.mark.slow
def test_first_calls_in_two_threads_differ_without_the_cure_and_never_with_it():
    """On two cores, half of them gave other values; enough calls are made that chance does not decide."""
    if "avx2" not in Path("/proc/cpuinfo").read_text() or (os.cpu_count() or 1) < 2:
        pytest.skip("needs AVX2 and two cores")
    wrong = "from vector_math import count_wrong\nprint(count_wrong({}, {}, {})[0])"
    assert printed(wrong.format(20000, False, 5)) == "5"
    assert printed(wrong.format(2000, True, 1)) == "0"
