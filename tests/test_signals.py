"""Signals: the first asks for a stop, the second (or the end of the grace) interrupts, the third ends the process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from functools import partial

import psutil
import pytest
import ray
from ray._private import utils as ray_utils

from ltx_dist.cluster import ray_cluster
from ltx_dist.commands.signals import LEAST_SECONDS, LEAVE_SECONDS, stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_first_signal_only_asks(number: signal.Signals, request: pytest.FixtureRequest):
    request.addfinalizer(partial(signal.signal, number, signal.getsignal(number)))
    before = signal.default_int_handler  # under nohup, SIGHUP would be ignored, and would stay so
    signal.signal(number, before)
    with stop_on_signals(60.0) as stop:
        assert not stop.is_asked
        signal.raise_signal(number)
        assert stop.is_asked
    assert signal.getsignal(number) is before and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_when_the_grace_is_over_the_run_is_interrupted():
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), stop_on_signals(LEAVE_SECONDS + 0.3):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(60)
    assert 0.3 <= time.monotonic() - started < 30


def test_a_grace_shorter_than_leaving_takes_still_reads_the_state():
    with pytest.raises(KeyboardInterrupt), stop_on_signals(0.0):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(100 * LEAST_SECONDS)


def test_the_second_signal_interrupts_at_once():
    with pytest.raises(KeyboardInterrupt), stop_on_signals(3600.0):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_one_more_while_it_ends_leaves_on_the_spot():
    script = (
        "import signal\n"
        "from ltx_dist.commands.signals import stop_on_signals\n"
        "with stop_on_signals(3600.0):\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    try:\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "    finally:\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "        print('not reached')\n"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert process.returncode == 75 and process.stdout == ""


def test_with_ray_nothing_is_raised_and_the_loop_sees_it():
    with stop_on_signals(0.0) as stop:
        stop.interrupts = False
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_asked and not stop.is_over
        time.sleep(2 * LEAST_SECONDS)
        assert stop.is_over


def test_leaving_has_an_end_too():
    script = (
        "import signal, time\n"
        "from ltx_dist.commands.signals import stop_on_signals\n"
        "with stop_on_signals(0.0) as stop:\n"
        "    stop.last_words = lambda: print('last words')\n"
        "    try:\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        time.sleep(60)\n"
        "        print('not reached')\n"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False)
    assert process.returncode == 75
    assert process.stdout == "last words\nstopped; rerun the same command to resume\n"


def ready(script: str) -> subprocess.Popen[str]:
    """A process that runs the script, and has just printed that it is ready for a signal."""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_the_grace_goes_by_while_a_library_holds_the_interpreter():
    script = (
        "import time\n"
        "from ltx_dist.commands.signals import stop_on_signals\n"
        "with stop_on_signals(0.0) as stop:\n"
        "    stop.interrupts = False\n"
        "    time.sleep(1.0)\n"
        "    print('ready', flush=True)\n"
        "    sum(range(2 * 10**8))  # seconds in C during which no other thread can run\n"
        "    time.sleep(1.0)\n"
        "    print('not reached')\n"
    )
    process = ready(script)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 75 and "not reached" not in stdout


def test_a_signal_that_was_taken_at_once_leaves_the_whole_grace():
    script = (
        "import time\n"
        "from ltx_dist.commands.signals import stop_on_signals\n"
        "with stop_on_signals(5.0) as stop:\n"
        "    stop.interrupts = False\n"
        "    time.sleep(1.0)\n"
        "    print('ready', flush=True)\n"
        "    while not stop.is_over:\n"
        "        time.sleep(0.01)\n"
        "    print('had its time')\n"
    )
    process = ready(script)
    process.send_signal(signal.SIGTERM)
    stdout, _ = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (0, "had its time\n")


def ends(pid: int, within: float) -> bool:
    """Whether the process, which would run for 60 s, ends within these seconds, or only waits for its parent."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def test_leaving_takes_along_what_was_started():
    script = (
        "import signal, subprocess, time\n"
        "from ltx_dist.commands.signals import stop_on_signals\n"
        "with stop_on_signals(0.0) as stop:\n"
        "    stop.interrupts = False\n"
        "    print(subprocess.Popen(['sleep', '60']).pid, flush=True)\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=50, check=False)
    assert process.returncode == 75
    assert ends(int(process.stdout.split()[0]), within=30.0)


def test_a_stop_while_ray_starts_is_taken_by_us(monkeypatch: pytest.MonkeyPatch):
    def init(**options: object) -> None:
        ray_utils.set_sigterm_handler(lambda signum, frame: sys.exit(signum))  # what the real one does first
        signal.raise_signal(signal.SIGTERM)
        raise ConnectionError("as far as it goes")

    monkeypatch.setattr(ray, "init", init)
    with stop_on_signals(3600.0) as stop, pytest.raises(ValueError, match="as far as it goes"):
        ray_cluster.connect(None)
    assert stop.is_asked


def test_no_handler_in_c_takes_the_end_of_the_grace():
    """Ray's C++ replaces the handler of SIGALRM behind Python's back if a SIGTERM arrives while it starts."""
    script = (
        "import ctypes, signal, time\n"
        "from ltx_dist.commands.signals import stop_on_signals\n"
        "with stop_on_signals(0.0) as stop:\n"
        "    stop.interrupts = False\n"
        "    ctypes.CDLL(None).signal(signal.SIGALRM, None)  # SIG_DFL: it ends the process\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    time.sleep(0.5)\n"
        "    print(stop.is_over)\n"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (process.returncode, process.stdout) == (0, "True\n"), process.stderr


@pytest.mark.ray
def test_with_a_cluster_of_its_own_a_stop_is_taken_by_us_alone():
    script = (
        "import signal, time\n"
        "from ltx_dist.cluster import ray_cluster\n"
        "from ltx_dist.commands.signals import stop_on_signals\n"
        "with stop_on_signals(60.0) as stop:\n"
        "    ray_cluster.connect(None)\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    seconds, _ = signal.getitimer(signal.ITIMER_REAL)\n"
        "    print(stop.is_asked, seconds > 10)\n"
        "    ray_cluster.disconnect()\n"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (process.returncode, process.stdout) == (0, "True True\n"), process.stderr
    assert "SIGTERM received" not in process.stderr, "Ray's own handler prints a stack"
