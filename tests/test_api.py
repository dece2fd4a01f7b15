"""The Python interface makes the command line's clips, in any thread, and changes nothing in the importing process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import tiny
from typer.testing import CliRunner

import ltx_dist
from ltx_dist.api import renderer as api_renderer
from ltx_dist.cli import app
from ltx_dist.demo import PROMPTS
from ltx_dist.placement.inventory import DeviceInfo, Inventory
from ltx_dist.run.batch import Batch

SMALL: dict[str, Any] = {
    "defaults.height": 64, "defaults.width": 64, "defaults.num_frames": 9, "defaults.num_inference_steps": 2,
    "placement.threads": 1, "placement.device": "cpu", "placement.layout": "shared",
}  # fmt: skip

ROWS: list[Any] = ["a red circle moving left", {"prompt": "a blue square", "name": "blue", "seed": 5, "width": 96}]

DEMO_MODEL = PROMPTS.parent / "model"


def render(out: Path | str, prompts: Any = ROWS, **options: Any) -> ltx_dist.Run:
    return ltx_dist.render(prompts, out, **{"config": SMALL, "executor": "local", **options})


def frames_of(clips: Any) -> dict[str, str]:
    return {clip.name: clip.digests["frames_sha256"] for clip in clips}


@pytest.fixture(scope="module")
def by_command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clips that the command line makes from ROWS."""
    folder = tmp_path_factory.mktemp("by-command")
    rows = [row if isinstance(row, dict) else {"prompt": row} for row in ROWS]
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [argument for key, value in SMALL.items() for argument in ("--set", f"{key}={value}")]
    command = ["render", str(folder / "p.jsonl"), "-o", str(folder / "out"), "--executor", "local", *settings]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return folder / "out"


def test_importing_and_planning_change_nothing_in_the_process():
    script = (
        "import os, signal, sys\n"
        "before = dict(os.environ), [signal.getsignal(one) for one in signal.valid_signals()]\n"
        "import ltx_dist\n"
        "assert 'render' in dir(ltx_dist) and set(ltx_dist.__all__) <= set(dir(ltx_dist))\n"
        "assert not {'pydantic', 'rich', 'numpy'} & set(sys.modules), 'nothing before it is asked for'\n"
        "assert all(getattr(ltx_dist, name) for name in ltx_dist.__all__)\n"
        "assert ltx_dist.plan(['a red circle']).layouts\n"
        "assert not {'torch', 'ray'} & set(sys.modules)\n"
        "assert before == (dict(os.environ), [signal.getsignal(one) for one in signal.valid_signals()])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY",)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


def test_clips_are_those_of_the_command_line(by_command: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    events: list[str] = []
    run = render(tmp_path / "out", on_event=lambda event: events.append(event["event"]))
    seen = list(run)
    assert frames_of(seen) == frames_of(ltx_dist.clips(by_command)) == frames_of(ltx_dist.clips(tmp_path / "out"))
    result = run.result()
    assert [clip.name for clip in result] == ["001-a-red-circle-moving-left", "blue"], "in the order of the prompts"
    assert (len(result), result.failed, result.remaining, result.exit_code) == (2, [], (), 0)
    assert (run.progress.total, run.progress.done, run.progress.remaining) == (2, 2, 0)
    assert events[0] == "batch_started" and events[-1] == "batch_ended" and events.count("clip_done") == 2
    assert capfd.readouterr() == ("", ""), "nobody reads a terminal here"
    blue = result[1]
    assert blue.status == "done" and blue.path == tmp_path / "out" / "blue.mp4"
    assert blue.request["seed"] == 5 and set(blue.seconds) == {"encode_text", "denoise", "decode", "encode_video"}
    assert blue.frames().shape == (9, 64, 96, 3)

    again = render(tmp_path / "out")
    assert frames_of(again) == frames_of(seen), "those that are there are handed out, too"
    assert frames_of(again) == frames_of(seen), "to every loop"
    table = again.result().to_pandas()
    assert list(table["name"]) == [clip.name for clip in result] and list(table["width"]) == [64, 96]
    again.result().to_parquet(tmp_path / "clips.parquet")
    assert (tmp_path / "clips.parquet").stat().st_size > 0


def test_every_prompt_varies():
    planned = ltx_dist.plan(["a red circle"], config=SMALL, vary={"seed": range(2), "guidance_scale": [1, 3.5]})
    assert [one.request_id for one in planned.batch.requests] == [
        f"001-a-red-circle-seed{seed}-guidance_scale{scale}" for seed in (0, 1) for scale in ("1", "3.5")
    ]
    with pytest.raises(ltx_dist.InputError, match="vary: .*sed: unknown key; did you mean seed"):
        ltx_dist.plan(["a red circle"], config=SMALL, vary={"sed": [1]})


def test_a_dataframe_is_rows(tmp_path: Path):
    import pandas as pd

    frame = pd.DataFrame({"prompt": ["a", "b"], "seed": [3, None], "height": [64, 96], "name": [None, "b"]})
    plan = ltx_dist.plan(frame.astype({"seed": "Int64"}).astype({"seed": object}), config=SMALL)
    assert plan.names == ("001-a", "b")
    assert [(request.seed, request.height) for request in plan.batch.requests] == [(3, 64), (1, 96)]
    assert "shared" in str(plan) and "<td>shared</td>" in plan._repr_html_()
    (layout,) = plan.layouts
    assert layout.name == "shared" and layout.seconds >= layout.bound > 0 and len(layout.workers) == 1


@pytest.mark.parametrize(
    ("prompts", "options", "mistakes"),
    [
        (
            ["a", {"prompt": "b", "heigth": 3}, {"prompt": "c", "height": 130}, 7, {"prompt": "d", "name": "n"}]
            + [{"prompt": "e", "name": "N"}],
            {},
            [
                "prompts:2: heigth: unknown key; did you mean height?",
                "prompts:3: height: 130 is not a multiple of 32; use 128 or 160",
                "prompts:4: 7 is neither a prompt nor a mapping with one; put text in quotes",
                "prompts:6: name: 'N' is taken by line 5 (case does not count); choose another",
            ],
        ),
        ("a lighthouse", {}, ["prompts: 'a lighthouse' is not the path of a prompt file; put a single prompt"]),
        ({"prompt": "a"}, {}, ["prompts: {'prompt': 'a'} is one row; put it into a list"]),
        ([], {}, ["prompts: empty; give at least one"]),
        (["a"], {"config": {"placement.layoutt": 1}}, ["config: placement.layoutt: unknown key; did you mean"]),
        (["a"], {"config": {"placement": 3}}, ["config: placement: 3 is not a mapping of its keys"]),
        (["a"], {"model": ""}, ["model: empty"]),
        (["a"], {"executor": "rya"}, ["executor: 'rya' is not one of auto, local, ray"]),
        (["a"], {"progress": "loud"}, ["progress: 'loud' is not auto, True or False"]),
    ],
)  # fmt: skip
def test_bad_input_is_an_exception_with_every_mistake(
    tmp_path: Path, prompts: Any, options: dict[str, Any], mistakes: list[str]
):
    with pytest.raises(ltx_dist.InputError) as caught:
        render(tmp_path / "out", prompts, **options)
    assert len(caught.value.mistakes) == len(mistakes)
    for found, begin in zip(caught.value.mistakes, mistakes, strict=True):
        assert found.startswith(begin)
    assert not (tmp_path / "out").exists()


def test_what_shows_later_is_raised_by_the_run(tmp_path: Path):
    from ltx_dist.store.lock import folder_lock

    with folder_lock(tmp_path):
        run = render(tmp_path)
        with pytest.raises(ltx_dist.InputError, match="in use by"):
            list(run)
        with pytest.raises(ltx_dist.InputError, match="in use by"):
            run.result()
    (tmp_path / "blue.mp4").mkdir()
    with pytest.raises(ltx_dist.OutputError, match="a folder where a file"):
        render(tmp_path).result()


def test_a_clip_that_fails_is_a_clip(tmp_path: Path):
    bad = tiny.save_overflowing(DEMO_MODEL, tmp_path / "model")
    (clip,) = result = render(tmp_path / "out", ["a red circle"], model=bad).result()
    assert (clip.status, clip.path, result.exit_code, result.failed) == ("failed", None, 3, [clip])
    assert "the latents are not finite" in (clip.error or "") and "failed" in clip._repr_html_()
    assert [(one.name, one.status, one.error) for one in ltx_dist.clips(tmp_path / "out")] == [
        (clip.name, "failed", clip.error)
    ]


def test_in_a_thread_of_a_program_with_handlers_of_its_own(by_command: Path, tmp_path: Path):
    handlers = {one: signal.getsignal(one) for one in signal.valid_signals()}
    found: list[ltx_dist.Clip] = []
    thread = threading.Thread(target=lambda: found.extend(render(tmp_path)))
    thread.start()
    thread.join()
    assert frames_of(found) == frames_of(ltx_dist.clips(by_command))
    assert {one: signal.getsignal(one) for one in signal.valid_signals()} == handlers


def test_a_stopped_run_leaves_a_folder_to_resume(tmp_path: Path):
    prompts = [f"clip {number}" for number in range(4)]
    events: list[dict[str, Any]] = []

    def stop(event: dict[str, Any]) -> None:
        events.append(event)
        if event["event"] == "stage_ended" and event["stage"] == "denoise":
            stop_it.wait()
            run.stop()

    stop_it = threading.Event()
    with render(tmp_path, prompts, on_event=stop) as run:
        stop_it.set()
    result = run.result()
    assert result.exit_code == 75 and not run.is_running
    assert 1 <= len(result.remaining) == 4 - len(result), "at most those are there whose denoising had ended"
    assert json.loads((tmp_path / "run.json").read_text())["exit_code"] == 75
    denoised = {event["request_id"] for event in events if event.get("stage") == "denoise"}
    resumed: list[dict[str, Any]] = []
    done = render(tmp_path, prompts, on_event=resumed.append).result()
    assert done.exit_code == 0 and len(done) == 4 and not done.remaining
    assert not denoised & {event["request_id"] for event in resumed if event.get("stage") == "denoise"}


def test_an_exception_in_the_with_stops_the_run(tmp_path: Path):
    def wait(event: dict[str, Any]) -> None:
        if event["event"] == "stage_ended":
            has_left.wait(60)

    has_left = threading.Event()
    with pytest.raises(ZeroDivisionError), render(tmp_path, ["a", "b", "c"], on_event=wait) as run:
        threading.Timer(0.5, has_left.set).start()
        raise ZeroDivisionError
    assert not run.is_running and run.result().remaining


def test_runs_of_one_process_take_turns(tmp_path: Path):
    first, second = render(tmp_path / "a"), render(tmp_path / "b")
    third = render(tmp_path / "c")
    third.stop()
    assert third.result().exit_code == 75
    assert frames_of(first.result()) == frames_of(second.result())


def test_progress_is_printed_where_it_is_asked_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    render(tmp_path, progress=True).result()
    assert "2 clips: 2 done" in capfd.readouterr().err


def test_a_clip_shows_itself(by_command: Path):
    blue = next(clip for clip in ltx_dist.clips(by_command) if clip.name == "blue")
    assert '<video controls loop muted src="data:video/mp4;base64,' in blue._repr_html_()
    hostile = ltx_dist.Clip("<b>", {"prompt": "<script>"}, "failed", error="<i>")
    assert "<script>" not in hostile._repr_html_() and "&lt;i&gt;" in hostile._repr_html_()


def test_folders_with_other_things_in_them_are_read(tmp_path: Path):
    (tmp_path / "half.mp4").write_bytes(b"x")
    (tmp_path / "odd.json").write_text("[]")
    long = {"status": "done", "request": {}, "stages": {"decode": {"seconds": 10**400}}}
    (tmp_path / "long.json").write_text(json.dumps(long))
    (tmp_path / "run.json").write_text("{}")
    assert {clip.name: clip.status for clip in ltx_dist.clips(tmp_path)} == dict.fromkeys(
        ("half", "long", "odd"), "unknown"
    )
    with pytest.raises(ltx_dist.InputError, match="no such folder"):
        ltx_dist.clips(tmp_path / "none")


def test_an_output_may_be_a_url(by_command: Path, tmp_path: Path):
    import fsspec

    url = f"memory://{tmp_path.name}/out"
    try:
        assert frames_of(render(url)) == frames_of(ltx_dist.clips(by_command))
        found = ltx_dist.clips(url)
        assert [clip.path for clip in found] == [f"{url}/001-a-red-circle-moving-left.mp4", f"{url}/blue.mp4"]
        assert "done: memory://" in found[0]._repr_html_()
        with pytest.raises(ValueError, match="no mp4 on this machine"):
            found[0].frames()
    finally:
        fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


@pytest.mark.ray
def test_a_session_of_the_program_is_used_and_left(ray_cluster: None, by_command: Path, tmp_path: Path):
    import ray

    environment = dict(os.environ)
    run = render(tmp_path / "auto", executor="auto")
    assert frames_of(run) == frames_of(ltx_dist.clips(by_command))
    assert run.result().exit_code == 0 and ray.is_initialized()
    assert ray.get(ray.remote(lambda: 7).remote()) == 7
    assert dict(os.environ) == environment
    assert json.loads((tmp_path / "auto" / "run.json").read_text())["exit_code"] == 0
    with pytest.raises(ltx_dist.InputError, match="address: this process has joined the cluster at"):
        render(tmp_path / "other", executor="ray", address="192.0.2.1:6379").result()
    assert ray.is_initialized()


@pytest.mark.ray
def test_a_model_renders_the_batches_of_ray_data(ray_cluster: None, by_command: Path):
    import ray

    prompts = [ROWS[0], ROWS[1]["prompt"]]
    rows = [{"prompt": prompts[0], "seed": 0, "width": 64}, {"prompt": prompts[1], "seed": 5, "width": 96}]
    rows += [{"prompt": "odd", "seed": 1, "width": 65}]
    dataset = ray.data.from_items([row | {"id": number} for number, row in enumerate(rows)])
    rendered = dataset.map_batches(
        ltx_dist.Renderer,
        fn_constructor_kwargs={"config": SMALL, "keep_columns": ["id"]},
        batch_size=3,
        concurrency=1,
        num_cpus=1,
    )
    red, blue, odd = sorted(rendered.take_all(), key=lambda row: row["id"])
    assert {red["frames_sha256"], blue["frames_sha256"]} == set(frames_of(ltx_dist.clips(by_command)).values())
    assert red["error"] is None and b"ftyp" in red["mp4"][:12]
    assert (odd["mp4"], odd["error"]) == (None, "width: 65 is not a multiple of 32; use 64 or 96")


def test_a_renderer_keeps_its_model(by_command: Path):
    renderer = ltx_dist.Renderer(config=SMALL)
    first = renderer({"prompt": [ROWS[0]], "seed": [0]})
    held = renderer._executor
    second = renderer({"prompt": [ROWS[1]["prompt"]], "seed": [5], "width": [96]})
    assert renderer._executor is held
    assert {*first["frames_sha256"], *second["frames_sha256"]} == set(frames_of(ltx_dist.clips(by_command)).values())
    with pytest.raises(ltx_dist.InputError, match="'heigth': unknown column"):
        renderer({"prompt": ["a"], "heigth": [64]})
    assert renderer({"prompt": []})["mp4"] == []
    renderer.close()


@pytest.mark.parametrize(("settings", "expected"), [({}, 2), ({"placement.host_slots": 3}, 3)])
def test_a_renderers_host_slots_do_not_depend_on_the_batch(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], expected: int
):
    class Placed(Exception):
        """Ends a call once its batch is placed."""

    def place(batch: Batch, inventory: Inventory) -> None:
        raise Placed(*(worker.host_slots for worker in batch.placement(inventory).workers))

    h100 = DeviceInfo("NVIDIA H100 80GB HBM3", 80 * 10**9)
    monkeypatch.setattr(api_renderer, "local_inventory", lambda device: Inventory((h100,), 64))
    monkeypatch.setattr(api_renderer, "place_batch", place)
    renderer = ltx_dist.Renderer("demo", settings)
    for steps in (2, 200):
        with pytest.raises(Placed) as placed:
            renderer({"prompt": ["a"], "num_inference_steps": [steps]})
        assert placed.value.args == (expected,)


def test_in_a_notebook(by_command: Path, tmp_path: Path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cells = [
        "import ltx_dist as ltx",
        f"run = ltx.render({ROWS!r}, 'clips', config={SMALL!r}, executor='local')\nresult = run.result()",
        "result[1]",
        "print({clip.name: clip.digests['frames_sha256'] for clip in result})",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=500, startup_timeout=500, resources=place).execute()
    _, progress, player, digests = (cell.outputs for cell in notebook.cells)
    assert "2 clips: 2 done" in "".join(output.text for output in progress)
    assert "<video controls" in player[0].data["text/html"]
    assert digests[0].text.strip() == str(frames_of([*ltx_dist.clips(by_command)]))


@pytest.mark.ray
def test_the_examples_of_the_docs_run(ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parent.parent / "docs" / "python.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert len(blocks) == 7 and names["row"]["error"] is None
    assert names["result"].exit_code == 0 and names["frames"].shape == (25, 128, 128, 3)


@pytest.mark.ray
def test_a_cluster_of_the_run_ends_with_it(by_command: Path, tmp_path: Path):
    ours = {"RAY_USAGE_STATS_ENABLED", "RAY_worker_niceness", "OMP_WAIT_POLICY", "CUDA_DEVICE_ORDER"}
    script = (
        "import os\n"
        "import ltx_dist\n"
        f"run = ltx_dist.render({ROWS!r}, {str(tmp_path)!r}, config={SMALL!r}, executor='ray')\n"
        "print({clip.name: clip.digests['frames_sha256'] for clip in run.result()})\n"
        "import ray\n"
        f"assert not ray.is_initialized() and not {ours!r} & set(os.environ)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == str(frames_of([*ltx_dist.clips(by_command)]))
