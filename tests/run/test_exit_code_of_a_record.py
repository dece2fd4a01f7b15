"""`run.json` and the page say how a run ended once it has; before that, or if it was killed, that it has not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ltx_dist.report import live_page


@pytest.mark.fault(19)
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_has_no_exit_code_until_it_ends(tmp_path: Path, signum: signal.Signals) -> None:
    out = tmp_path / "out"
    rows = [{"prompt": f"a {n}", "name": f"c{n}", "num_inference_steps": 4} for n in range(300)]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    # The page is rewritten after each clip, not every ten seconds.
    code = f"import {live_page.__name__} as page, ltx_dist.cli as cli\npage.PAGE_EVERY = 0.0\npage.PAGE_SHARE = 1e9"
    command = [sys.executable, "-c", f"{code}\ncli.main()", "render", str(tmp_path / "p.jsonl"), "-o", str(out)]
    process = subprocess.Popen([*command, "--executor", "local"], stdout=subprocess.DEVNULL)

    def record() -> dict[str, object]:
        path = out / "run.json"
        return json.loads(path.read_text()) if path.exists() else {"done": 0, "exit_code": None}

    try:
        deadline = time.monotonic() + 180
        while record()["done"] == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        refreshed = record()
        assert refreshed["done"] != 0 and refreshed["exit_code"] is None
        assert "ended by an error" not in (out / "index.html").read_text()
        process.send_signal(signum)
        process.wait(120)
    finally:
        process.kill()
    assert record()["exit_code"] == (None if signum == signal.SIGKILL else 75)
    assert "ended by an error" not in (out / "index.html").read_text()
