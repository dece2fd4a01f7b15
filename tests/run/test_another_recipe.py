"""A recipe with two more stages, one on the device and one on the host, needs no change to the package.

It can be planned, simulated, rendered here and on actors, and resumed, and is in the timeline, the page and the trace.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import another_recipe
import pytest
import tiny
from typer.testing import CliRunner

import ltx_dist.models.family
from ltx_dist.cli import app
from ltx_dist.cluster.ray_executor import RayExecutor
from ltx_dist.engine.loop import BatchLoop
from ltx_dist.inputs.config_file import load_config
from ltx_dist.placement.inventory import Inventory
from ltx_dist.run.batch import open_batch
from ltx_dist.run.crew import Crew
from ltx_dist.run.placed_batch import place_batch
from ltx_dist.scheduling.scheduler import Scheduler

SMALL = ["height=64", "width=64", "num_frames=9", "num_inference_steps=2"]


@pytest.fixture(autouse=True)
def only_the_other_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ltx_dist.models.family, "FAMILIES", (another_recipe.FAMILY,))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "0.9.5")


def settings(checkpoint: Path, *more: str) -> list[str]:
    return [f"model.checkpoint={checkpoint}", "placement.threads=1", *(f"defaults.{one}" for one in SMALL), *more]


def run(command: str, checkpoint: Path, folder: Path, *more: str) -> str:
    prompts = folder.parent / "prompts.txt"
    prompts.write_text("one\ntwo\nthree\n")
    arguments = [command, str(prompts), *(["-o", str(folder)] if command == "render" else []), *more]
    result = CliRunner().invoke(app, [*arguments, *(word for one in settings(checkpoint) for word in ("--set", one))])
    assert result.exit_code == 0, result.output
    return result.output


def record_of(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def test_it_is_planned_with_its_stages(checkpoint: Path, tmp_path: Path) -> None:
    planned = run("plan", checkpoint, tmp_path / "out", "--set", "placement.layout=pinned")
    assert "grade" in planned and "G grade" in planned and "C check" in planned


def test_it_renders_here_and_shows_in_every_view(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    run("render", checkpoint, folder, "--executor", "local")
    record = record_of(folder)
    ran = [event["stage"] for event in record["events"] if event["request_id"].startswith("001")]
    assert ran == ["encode_text", "denoise", "grade", "decode", "encode_video", "check"]
    assert [stage["name"] for stage in record["stages"]] == list(another_recipe.RECIPE.names)
    shown = CliRunner().invoke(app, ["timeline", str(folder)]).output
    assert "G grade" in shown and "C check" in shown and "cpu:0 check" in shown
    page = (folder / "index.html").read_text()
    legend = re.findall(r'<i class="swatch stage(\d+)"></i>(\w+)', page)
    assert {"grade", "check"} <= {verb for _, verb in legend}, "what the timeline has bars of"
    assert f".stage{next(number for number, verb in legend if verb == 'grade')} {{ color: #aa5500" in page
    trace = json.loads((folder / "trace.json").read_text())["traceEvents"]
    assert {"grade", "check cpu:0"} <= {event["name"] for event in trace}
    sidecar = json.loads(next(folder.glob("001*.json")).read_text())
    assert {"grade", "check"} <= set(sidecar["stages"])


def test_a_rerun_resumes_after_what_is_kept(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    run("render", checkpoint, folder, "--executor", "local", "--set", "recovery.keep_latents=true")
    before = frames_of(folder)
    for path in folder.glob("0*.mp4"):  # as if the run had been killed before it published
        path.unlink()
        path.with_suffix(".json").unlink()
    run("render", checkpoint, folder, "--executor", "local", "--set", "recovery.keep_latents=true")
    again = {event["stage"] for event in record_of(folder)["events"]}
    assert again == {"grade", "decode", "encode_video", "check"} and frames_of(folder) == before


@pytest.mark.ray
def test_actors_make_the_same(ray_cluster: None, checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    run("render", checkpoint, folder, "--executor", "local")
    config = load_config(None, settings(checkpoint, "placement.layout=pinned", "placement.device=cpu"))
    placed = place_batch(open_batch(str(tmp_path / "prompts.txt"), config), Inventory((), 2))
    executor = RayExecutor(Crew(placed).specs())
    try:
        loop = BatchLoop(Scheduler(placed.placement), executor)
        results = {r.request.request_id: r for r in loop.render(placed.batch.requests)}
    finally:
        executor.shutdown()
    assert {result.status for result in results.values()} == {"done"}, [r.error for r in results.values()]
    assert {name: result.video.frames_sha256 for name, result in results.items()} == frames_of(folder)
    assert {c.assignment.worker_id for c in loop.completions if c.assignment.stage == "grade"} == {"cpu:2"}


def frames_of(folder: Path) -> dict[str, str]:
    return {path.stem: json.loads(path.read_text())["frames_sha256"] for path in folder.glob("0*.json")}
