"""What Prometheus sees of a batch through a real node's agent; and that the dashboard asks for nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import ray
from builders import STAGES, D, E, V

from ltx_dist.cluster.ray_metrics import RayMetrics
from ltx_dist.pipeline.payloads import EncodedVideo
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.work import Assignment, Completion, Failure, RenderResult, StageReport

DASHBOARD = Path(__file__).parents[2] / "launch" / "grafana.json"
REQUEST = RenderRequest("a-clip", "a prompt", "", 64, 96, 17, 24.0, 8, 3.0, 0.0, 7, 0.0, None, 64)

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The metrics page of a node, after a clip whose denoising failed once.

    It comes from a process of its own, because this one may have a cluster already, and Ray allows only one.
    """
    page = tmp_path_factory.mktemp("metrics") / "page"
    subprocess.run([sys.executable, __file__, str(page)], check=True, timeout=300)
    return page.read_text()


def export() -> str:
    often = {"metrics_report_interval_ms": 500}
    ray.init(address="local", include_dashboard=False, num_cpus=1, log_to_driver=False, _system_config=often)
    try:
        metrics = RayMetrics(lambda: dict.fromkeys(STAGES, 2))
        for stage, error in ((D, "out of memory"), (D, None), (V, None)):
            report = StageReport(1.5, load_seconds=0.5, error=error, peak_bytes=7)
            metrics.stage_ended(Completion(Assignment(("a-clip",), stage, "cuda:0"), 0.0, 1.5, report))
        died = StageReport(0.0, error="its worker died")
        dying = Assignment(("other",), E, "cuda:1")
        metrics.stage_ended(Completion(dying, 0.0, 1.5, died, Failure.CRASH))
        metrics.clip_ended(RenderResult(REQUEST, "done", (), EncodedVideo(b"", 17, 64, 96, "", "")))
        return _page(ray.nodes()[0]["MetricsExportPort"])
    finally:
        ray.shutdown()


def _page(port: int) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                page: str = answer.read().decode()
        except OSError:  # the agent is not up yet
            page = ""
        if "ray_ltx_clips_total" in page:
            return page
        time.sleep(0.2)
    raise AssertionError("no metrics of ours within 60 s")


def value(page: str, name: str, **tags: str) -> float:
    lines = [line for line in page.splitlines() if line.startswith(name + "{")]
    (line,) = [line for line in lines if all(f'{key}="{tag}"' in line for key, tag in tags.items())]
    return float(line.rsplit(" ", 1)[1])


def test_counts_seconds_queues_memory_and_retries(exported: str) -> None:
    assert value(exported, "ray_ltx_clips_total", status="done") == 1
    assert value(exported, "ray_ltx_retries_total", stage="denoise") == 1
    assert value(exported, "ray_ltx_stage_failures_total", stage="denoise") == 1
    assert value(exported, "ray_ltx_stage_seconds_count", stage="denoise", worker="cuda:0") == 1
    assert value(exported, "ray_ltx_busy_seconds_total", worker="cuda:0") == 6
    assert value(exported, "ray_ltx_stage_clips_total", stage="denoise", worker="cuda:0") == 1
    assert value(exported, "ray_ltx_queue_length", stage="decode") == 2
    assert value(exported, "ray_ltx_device_peak_bytes", stage="decode") == 7


def test_no_clip_is_named(exported: str) -> None:
    assert "a-clip" not in exported


def test_the_dashboard_asks_for_what_there_is(exported: str) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for expression in expressions for name in re.findall(r"\bray_\w+", expression)}
    there = set(re.findall(r"^(ray_ltx_\w+)\{", exported, re.MULTILINE))
    assert asked <= there, asked - there
    families = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in there}
    assert {re.sub(r"_(total|bucket|count)$", "", name) for name in asked} == families, "every metric has its panel"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(export())
