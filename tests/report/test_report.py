"""index.html: what it holds, and that whatever a sidecar says stays text."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from builders import RECIPE, STAGES, WHOLE_RECIPE, D, E, V
from small_batch import run

from ltx_dist.media.mp4 import encode_video
from ltx_dist.pipeline.conditions import Condition
from ltx_dist.pipeline.request import RenderRequest
from ltx_dist.pipeline.storage import Mp4Settings
from ltx_dist.pipeline.work import Assignment, Completion, StageReport
from ltx_dist.pipeline.worker import Placement, Worker
from ltx_dist.report.advice import advice
from ltx_dist.report.bars import Bar
from ltx_dist.report.clips import read_clips
from ltx_dist.report.copied_command import copied_command
from ltx_dist.report.page import LOSSES, render_page, write_report
from ltx_dist.report.run_record import Counts, build_run_record

HOSTILE = "</script><script>hacked = 1</script> <img src=x onerror=hacked=1> \"'`{{ 7*7 }} & &amp; \u202e it's $(date)"

WORKERS = (
    Worker("gpu-0", (E, V), "cuda", device_index=0),
    Worker("gpu-1", (D,), "cuda", device_index=1),
)


def make_folder(
    folder: Path,
    names: Sequence[str],
    *,
    failed: Sequence[str] = (),
    seconds: Sequence[float] = (),
    prompt: str = "",
    exit_code: int | None = 0,
    remaining: int = 0,
    real_videos: bool = False,
) -> Path:
    """A folder as a run leaves it: clip after clip, encoded and decoded on one worker, denoised on the other."""
    folder.mkdir(parents=True, exist_ok=True)
    completions: list[Completion] = []
    now = 0.5
    for position, name in enumerate(names):
        denoise = seconds[position] if seconds else 1.0
        error = "CUDA out of memory\nat <layer 3>" if name in failed else None
        clip = [
            _completion(name, E, "gpu-0", now, 0.1),
            _completion(name, D, "gpu-1", now + 0.2, denoise, error),
        ]
        now += 0.2 + denoise
        clip += [] if error else [_completion(name, V, "gpu-0", now, 0.3)]
        completions += clip
        if not error:
            (folder / f"{name}.mp4").write_bytes(_video() if real_videos else b"mp4")
        (folder / f"{name}.json").write_text(json.dumps(_sidecar(name, prompt or f"the prompt of {name}", clip, error)))
    counts = Counts(len(names) + remaining, len(names) - len(failed), len(failed), remaining)
    record = build_run_record(
        counts, Placement(RECIPE, "pinned", WORKERS, dict.fromkeys(STAGES, 2)), completions, exit_code
    )
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def _completion(
    name: str, stage: str, worker_id: str, started: float, seconds: float, error: str | None = None
) -> Completion:
    report = StageReport(seconds, load_seconds=0.05, error=error)
    return Completion(Assignment((name,), stage, worker_id), started, started + seconds, report)


def _sidecar(name: str, prompt: str, completions: Sequence[Completion], error: str | None) -> dict[str, object]:
    request = RenderRequest(name, prompt, "", 64, 64, 9, 24.0, 25, 3.0, 0.0, 7, 0.05, None, 128)
    stages = {
        str(c.assignment.stage): {
            "worker": c.assignment.worker_id, "seconds": c.report.seconds, "load_seconds": 0.05, "peak_bytes": None
        }
        for c in completions
    }  # fmt: skip
    sidecar = {"request": asdict(request), "stages": stages, "checkpoint": {"name": "/models/it's", "sha256": {}}}
    return sidecar | ({"status": "failed", "error": error} if error else {"status": "done", "mp4_sha256": "ab" * 32})


@cache
def _video() -> bytes:
    frames = [np.full((64, 64, 3), 28 * i, dtype=np.uint8) for i in range(9)]
    return encode_video(
        frames, height=64, width=64, num_frames=9, frame_rate=24.0, output=Mp4Settings(), metadata={}
    ).mp4


class Elements(HTMLParser):
    """Every element with its attributes, and what the page's JSON says."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self._json: dict[str, str] = {}
        self.feed(page)
        self.data, self.timeline = (json.loads(self._json[name]) for name in ("clips-data", "timeline-data"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.found[-1] if self.found else ("", {})
        if tag == "script" and attributes.get("id"):
            self._json.setdefault(attributes["id"] or "", data)  # and not what follows the element

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_clips_have_their_own_settings_and_what_all_share_is_said_once(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, ["a", "b"])
    assert write_report(folder) == folder / "index.html"
    data = Elements((folder / "index.html").read_text("utf-8")).data
    assert data["row"].items() >= {"seed": "7", "height": "64", "guidance_scale": "3.0"}.items()
    assert [clip["row"] for clip in data["clips"]] == [{"prompt": f'"the prompt of {name}"'} for name in ("a", "b")]
    assert [clip["url"] for clip in data["clips"]] == ["a.mp4", "b.mp4"]
    stages = dict(zip(data["stages"], data["clips"][0]["stages"], strict=True))
    assert stages["denoise"] == [data["workers"].index("gpu-1"), 1.0]


@pytest.mark.fault(29)
def test_bars_are_in_seconds_with_shades_in_turns_on_each_lane(tmp_path: Path) -> None:
    page = Elements(render_page(make_folder(tmp_path, ["a", "b", "c"])))
    assert page.timeline["names"] == ["a", "b", "c"]
    lanes = {name: [Bar(*bar) for bar in bars] for name, _, bars in page.timeline["lanes"]}
    assert [(bar.shade, bar.clips) for bar in lanes["gpu-1"]] == [(0, [0]), (1, [1]), (0, [2])]
    first = lanes["gpu-1"][0]
    assert (first.start, first.seconds, first.load, first.error) == (0.2, 1.0, 0.05, "")
    assert [busy for _, busy, _ in page.timeline["lanes"]] == ["26% busy", "77% busy"]


def test_the_head_says_what_ran_where_and_how_fast(tmp_path: Path) -> None:
    page = render_page(make_folder(tmp_path, ["a", "b"]))
    facts = re.findall(r"<span>(.*?)</span>", page.partition('class="facts"')[2].partition("</p>")[0])
    assert facts == ["2 clips", "it&#39;s", "2 GPUs", "3 s", "2667 clips/h"]


def test_a_poster_is_used_where_it_is_there(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, ["a", "b"])
    (folder / "b.webp").write_bytes(b"a picture")
    assert [clip.poster for clip in read_clips(folder, RECIPE)] == [None, "b.webp"]


def test_what_the_prompt_file_says_in_meta_is_a_column(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, ["a"])
    sidecar = json.loads((folder / "a.json").read_text())
    (folder / "a.json").write_text(json.dumps(sidecar | {"meta": {"category": "sea"}}))
    (clip,) = read_clips(folder, RECIPE)
    assert clip.settings == {"model.checkpoint": '"/models/it\'s"', "meta.category": '"sea"'}
    assert "sea" not in clip.options


def test_what_a_clip_was_made_from_is_shown_while_it_is_there(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "out", ["a"])
    (tmp_path / "a lamp.png").write_bytes(b"a picture")
    sidecar = json.loads((folder / "a.json").read_text())
    places = [
        str(tmp_path / "a lamp.png"),
        str(tmp_path / "gone.png"),
        "https://example.com/c.png",
        "demo://first_frame.png",
    ]
    sidecar["request"]["conditions"] = [asdict(Condition(place, "", frame_index=8)) for place in places]
    (folder / "a.json").write_text(json.dumps(sidecar))
    (clip,) = read_clips(folder, RECIPE)
    own, of_demo = clip.pictures
    assert own == ("frame 8: a lamp.png", "../a%20lamp.png", False)
    assert of_demo[0] == "frame 8: first_frame.png" and of_demo[1].endswith("ltx_dist/demo/first_frame.png")


def test_the_same_folder_gives_the_same_page(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, ["a"])
    assert render_page(folder) == render_page(folder)
    assert not [path for path in folder.iterdir() if path.suffix not in (".mp4", ".json")]


def test_failed_clips_say_why_and_show_no_older_video(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, ["a", "b"], failed=["b"], exit_code=3)
    (folder / "b.mp4").write_bytes(b"of an earlier run")
    page = render_page(folder)
    elements = Elements(page)
    assert "finished, some failed" in page
    _, failed = elements.data["clips"]
    assert (failed["status"], failed["error"]) == ("failed", "CUDA out of memory\nat <layer 3>")
    assert "url" not in failed
    assert [bar[6] for bar in elements.timeline["lanes"][1][2]] == ["", failed["error"]]


def test_while_a_run_is_going_on(tmp_path: Path) -> None:
    page = render_page(make_folder(tmp_path, ["a"], exit_code=None, remaining=3))
    assert "<body data-running>" in page
    assert "3 remaining" in page
    assert "<body>" in render_page(make_folder(tmp_path, ["a"]))


def test_before_the_first_clip_and_without_a_record(tmp_path: Path) -> None:
    for folder in (tmp_path, make_folder(tmp_path / "begun", [], exit_code=None, remaining=3)):
        assert Elements(render_page(folder)).data["clips"] == []
    folder = make_folder(tmp_path / "clips", ["a"])
    (folder / "run.json").unlink()
    elements = Elements(render_page(folder))
    assert len(elements.data["clips"]) == 1
    assert elements.timeline is None


def test_halves_of_clips_are_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, ["a", "b", "c"])
    (folder / "a.json").unlink()
    (folder / "b.json").write_text('{"status": "done", "request": 7}')
    (folder / "c.mp4").unlink()
    assert [(clip.name, clip.status, clip.error) for clip in read_clips(folder, RECIPE)] == [
        ("a", "unknown", "a.json is missing"),
        ("b", "unknown", "b.json is damaged or not a sidecar"),
        ("c", "unknown", "c.mp4 is missing"),
    ]


@pytest.mark.parametrize("seconds", ["x", None, float("inf"), 10**400, [1]])
def test_seconds_that_are_none_are_damage(tmp_path: Path, seconds: object) -> None:
    folder = make_folder(tmp_path, ["a"])
    sidecar = json.loads((folder / "a.json").read_text())
    sidecar["stages"]["denoise"]["seconds"] = seconds
    (folder / "a.json").write_text(json.dumps(sidecar))
    assert "a.json is damaged" in render_page(folder)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    name = "<b>x<b> \"onload=1' # 100%\x1b[31m"
    folder = make_folder(tmp_path / "<script>alert(1)<", [name], prompt=HOSTILE)
    page = render_page(folder)
    elements = Elements(page)
    assert len(elements.named("script")) == 3, "two of JSON, and the page's own"
    assert elements.named("img") == elements.named("iframe") == []
    assert len(elements.named("b")) == 2, "one for each worker"
    assert "<script>hacked" not in page and "<script>alert" not in page
    assert not {"\x1b", "\x7f", "\u202e"} & set(page)
    (clip,) = elements.data["clips"]
    assert re.fullmatch(r"[A-Za-z0-9%._~-]+\.mp4", clip["url"])
    assert json.loads(elements.data["row"]["prompt"]) == HOSTILE


def test_the_policy_allows_its_own_script_and_style_only(tmp_path: Path) -> None:
    page = render_page(make_folder(tmp_path, ["a"], prompt="see https in prompts"))
    metas = Elements(page).named("meta")
    policy = next(meta["content"] for meta in metas if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy and "http" not in policy
    attributes = {key for _, found in Elements(page).found for key in found}
    assert not {"src", "style", "srcdoc", "action"} & attributes
    assert not [key for key in attributes if key.startswith("on")]
    assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttpRequest|innerHTML|insertAdjacentHTML|https?://", page)


def test_the_command_says_the_same_to_a_shell(tmp_path: Path) -> None:
    sidecar = json.loads((make_folder(tmp_path, ["a"], prompt=HOSTILE + r" \n é") / "a.json").read_text())
    command = copied_command(sidecar["request"], {"model.checkpoint": sidecar["checkpoint"]["name"]})
    printed, rendered = command.split(" | ltx-dist ")
    row = json.loads(subprocess.run(["sh", "-c", printed], check=True, capture_output=True).stdout)
    assert (row["prompt"], row["name"], row["seed"]) == (HOSTILE + r" \n é", "a", 7)
    assert "decode_noise_scale" not in row and "request_id" not in row
    arguments = subprocess.run(["sh", "-c", f"printf '%s\\n' {rendered}"], check=True, capture_output=True, text=True)
    assert arguments.stdout.splitlines() == ["render", "-", "-o", "again", "--set", "model.checkpoint=/models/it's"]


@pytest.mark.parametrize(
    ("names", "seconds", "said"),
    [
        (["a", "b", "c"], [9.0] * 3, "The bottleneck is the transformer: gpu-1 was busy"),
        (["a", "b", "c", "d"], [0.5] * 4, "The bottleneck is the transformer, yet gpu-1 waited"),
        (["a"], [9.0], "The longest clip alone took"),
        ([], [], ""),
    ],
)
def test_advice_is_of_facts(tmp_path: Path, names: list[str], seconds: list[float], said: str) -> None:
    folder = make_folder(tmp_path, names, seconds=seconds)
    text = advice(json.loads((folder / "run.json").read_text()), RECIPE)
    assert text.startswith(said) if said else text == ""


def test_ten_thousand_clips_take_few_bytes_each(tmp_path: Path) -> None:
    few, many = (
        len(render_page(make_folder(tmp_path / str(number), [f"{n:04d}-clip" for n in range(number)])))
        for number in (100, 200)
    )
    assert few < many < few + 100 * 1000, "names, prompts, digests and bars"


def test_where_the_time_went(tmp_path: Path) -> None:
    page = render_page(make_folder(tmp_path, ["a", "b"]))
    record = json.loads((tmp_path / "run.json").read_text())
    shares = {name: seconds / record["makespan_seconds"] for name, seconds in record["losses"].items()}
    assert set(shares) == set(LOSSES)
    for name, share in shares.items():
        assert (f"{LOSSES[name][0]} {share:.0%}</li>" in page) == (share >= 0.01)
    assert f"(by {record['lower_bound_by'].replace('_', ' ')})</dt>" in page


def test_the_timeline_says_which_stages_overlapped(tmp_path: Path) -> None:
    shown = run("timeline", make_folder(tmp_path, ["a", "b"])).output
    assert "\n1 of 4 runs of encode_text and decode overlapped with denoise on another worker\n" in shown


def test_the_timeline_lists_the_stages_of_runs_with_images(tmp_path: Path) -> None:
    clip = [
        _completion("a", "encode_text", "gpu-0", 0.0, 0.1), _completion("a", "encode_image", "gpu-0", 0.1, 0.1),
        _completion("a", "denoise", "gpu-1", 0.2, 1.0), _completion("b", "encode_text", "gpu-0", 0.3, 0.1),
        _completion("a", "refine", "gpu-1", 1.2, 1.0), _completion("a", "decode", "gpu-0", 2.2, 0.3),
    ]  # fmt: skip
    workers = Worker("gpu-0", (E, "encode_image", V), "cuda"), Worker("gpu-1", (D, "refine"), "cuda", device_index=1)
    placement = Placement(WHOLE_RECIPE, "pinned", workers, dict.fromkeys(WHOLE_RECIPE.on_device, 2))
    (tmp_path / "run.json").write_text(json.dumps(build_run_record(Counts(2, 1, 0, 1), placement, clip, 75)))
    expected = "1 of 4 runs of encode_text, encode_image and decode overlapped with denoise or refine on another worker"
    assert f"\n{expected}\n" in run("timeline", tmp_path).output
