"""The page in a real browser: from file://, under its own content security policy, with clips that play."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from PIL import Image
from test_report import HOSTILE, make_folder

from ltx_dist.media.mp4 import encode_video
from ltx_dist.pipeline.conditions import Condition
from ltx_dist.pipeline.payloads import Sound
from ltx_dist.pipeline.storage import Mp4Settings
from ltx_dist.report.copied_command import copied_command
from ltx_dist.report.page import write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium on this machine; launch/test.sh installs Debian's where it may"
    ),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Callable[..., Path]:
    def open_page(change: Callable[[int, dict[str, Any]], None] | None = None, **settings: Any) -> Path:
        folder = make_folder(tmp_path / "100% <b>clips</b>", **({"real_videos": True} | settings))
        for position, name in enumerate(settings["names"] if change else []):
            sidecar = json.loads((folder / f"{name}.json").read_text())
            change(position, sidecar)
            (folder / f"{name}.json").write_text(json.dumps(sidecar))
        browser.open(write_report(folder).as_uri())
        return folder

    return open_page


def shown(browser: Browser) -> list[str]:
    return browser.run("chosen.map((clip) => clip.name)")


def text(browser: Browser, selector: str) -> str:
    return browser.run(f"document.querySelector({selector!r}).textContent")


def choose(browser: Browser, selector: str, value: str, event: str = "change") -> None:
    browser.run(
        f"{{ const control = document.querySelector({selector!r}); control.value = {json.dumps(value)};"
        f"control.dispatchEvent(new Event({event!r})); }}"
    )


def press(browser: Browser, *keys: str) -> None:
    for key in keys:
        browser.call(
            "Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=27 if key == "Escape" else 0
        )


def of_a_sweep(position: int, sidecar: dict[str, Any]) -> None:
    sidecar["request"] |= {"prompt": "a lamp", "seed": position % 3, "guidance_scale": 1.0 + position // 3}


def test_clips_play_under_the_hand_and_nothing_but_them_is_asked_for(
    browser: Browser, opened: Callable[..., Path]
) -> None:
    folder = opened(names=["one", "two words # 100%", "three"])
    browser.until("[...document.querySelectorAll('video')].filter((video) => video.readyState >= 1).length === 3")
    assert (
        browser.run("[...document.querySelectorAll('video')].map((v) => [v.videoWidth, v.preload, v.paused])")
        == [[64, "metadata", True]] * 3
    )
    browser.point_at(".card")
    browser.until("document.querySelector('.card video').currentTime > 0.1")
    assert browser.run("[...document.querySelectorAll('video')].map((video) => video.paused)") == [False, True, True]
    browser.point_at("h1")
    browser.until("document.querySelector('.card video').paused")
    assert browser.complaints() == []
    allowed = {"index.html", *(path.name for path in folder.glob("*.mp4"))}
    asked = [url for url in browser.requested() if not url.startswith("data:")]
    assert len(asked) >= 4
    assert all(url.startswith("file:") for url in asked)
    assert {unquote(url).rpartition("/")[2] for url in asked} <= allowed


def test_a_poster_stands_for_its_clip_until_it_plays(browser: Browser, opened: Callable[..., Path]) -> None:
    def from_an_image(_: int, sidecar: dict[str, Any]) -> None:
        sidecar["request"]["conditions"] = [asdict(Condition(str(poster), ""))]

    folder = opened(names=["a", "b"])
    poster = folder / "a.webp"
    Image.new("RGB", (64, 64), "red").save(poster)
    (folder / "b.webp").write_bytes(b"not a picture")
    opened(from_an_image, names=["a", "b"])
    kinds = "[...document.querySelectorAll('.screen')].map((s) => [...s.children].map((e) => e.className || e.tagName))"
    browser.until(f'JSON.stringify({kinds}) === \'[["source","IMG"],["source","VIDEO"]]\'')
    browser.point_at(".card")
    browser.until("document.querySelector('.card video')?.currentTime > 0")
    browser.point_at("h1")
    browser.until(f'JSON.stringify({kinds}[0]) === \'["source","IMG"]\'')
    assert browser.complaints() == []


def test_search_facets_and_sort(browser: Browser, opened: Callable[..., Path]) -> None:
    def seeded(position: int, sidecar: dict[str, Any]) -> None:
        sidecar["request"]["seed"] = position // 2

    names = ["1-sea", "2-hill", "10-sky", "11-sky"]
    opened(seeded, names=names, failed=["2-hill"], seconds=[1.0, 2.0, 4.0, 3.0])
    assert shown(browser) == names
    choose(browser, "#search", "SKY prompt", "input")
    assert shown(browser) == ["10-sky", "11-sky"]
    assert text(browser, "#count") == "2 of 4 clips"
    browser.run("byId('all-clips').click()")
    choose(browser, "#facet-seed", "=0")
    assert shown(browser) == ["1-sea", "2-hill"]
    browser.run("byId('show-failed').click()")
    assert shown(browser) == ["2-hill"]
    assert "CUDA out of memory" in text(browser, ".card .reason")
    browser.run("byId('all-clips').click()")
    choose(browser, "#sort", "seconds")
    assert shown(browser)[0] == "10-sky"
    choose(browser, "#sort", "seed")
    browser.run("byId('descending').click()")
    assert shown(browser) == ["10-sky", "11-sky", "1-sea", "2-hill"]
    assert browser.complaints() == []


def test_width_and_height_are_one_setting(browser: Browser, opened: Callable[..., Path]) -> None:
    def of_a_size(position: int, sidecar: dict[str, Any]) -> None:
        sidecar["request"] |= {"width": [1024, 64, 128, 128][position], "height": [64, 64, 64, 1024][position]}

    opened(of_a_size, names=["a", "b", "c", "d"])
    assert text(browser, ".card .own") == "size 1024 × 64"
    assert browser.run("document.getElementById('facet-width')") is None
    choose(browser, "#sort", "size")
    assert shown(browser) == ["b", "c", "a", "d"]
    assert browser.complaints() == []


def test_width_and_height_make_a_facet_and_an_axis(browser: Browser, opened: Callable[..., Path]) -> None:
    def of_a_size(position: int, sidecar: dict[str, Any]) -> None:
        sidecar["request"] |= {"width": 1024 if position % 2 else 128}

    opened(of_a_size, names=["a", "b", "c", "d"])
    options = "[...byId('facet-size').options].map((one) => one.textContent).join()"
    assert browser.run(options) == "any,128 × 64 (2),1024 × 64 (2)"
    choose(browser, "#facet-size", "=1024 × 64")
    assert shown(browser) == ["b", "d"]
    assert browser.run("axisKeys().join()").startswith("size")


def test_a_card_has_what_differs_and_the_head_what_does_not(browser: Browser, opened: Callable[..., Path]) -> None:
    opened(of_a_sweep, names=[f"n{n}" for n in range(6)])
    assert text(browser, ".card .own") == "guidance 1seed 0"
    assert text(browser, ".card .prompt") == ""
    assert text(browser, "#shared") == "All clips: 64 × 64, 9 frames, 24 fps, 25 steps, prompt: a lamp"


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_the_first_clip_is_above_the_fold(
    browser: Browser, opened: Callable[..., Path], width: int, height: int
) -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
    opened(of_a_sweep, names=[f"n{n}" for n in range(6)], failed=["n1"], exit_code=3)
    box = browser.run("(({top, bottom}) => [top, bottom])(document.querySelector('.screen').getBoundingClientRect())")
    assert 0 < box[0] < box[1] <= height
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    browser.call("Emulation.setDeviceMetricsOverride", width=1280, height=1000, deviceScaleFactor=1, mobile=False)


def test_a_clip_opens_large_and_keys_lead_on(browser: Browser, opened: Callable[..., Path]) -> None:
    def noted(position: int, sidecar: dict[str, Any]) -> None:
        sidecar["request"] |= {"seed": 2**63 - 1 - position, "prompt": f'it\'s {position}: \\ "é"'}
        sidecar["cut_off"] = {"prompt": {"tokens": 340, "limit": 128}}

    folder = opened(noted, names=["a", "b"])
    browser.click(".card .open")
    browser.until("document.querySelector('#large video')?.currentTime > 0.1")
    assert text(browser, "#clip-facts").startswith(f"seed{2**63 - 1}"), "all digits"
    assert text(browser, "#clip-notes") == "prompt: 340 tokens, of which 128 are used"
    sidecar = json.loads((folder / "a.json").read_text())
    ours = copied_command(sidecar["request"], {"model.checkpoint": sidecar["checkpoint"]["name"]})
    assert command_parts(browser.run("commandOf(current)")) == command_parts(ours)
    browser.run("byId('copy-command').click()")
    browser.until("byId('copy-command').textContent === 'Copied'")
    press(browser, "s", "ArrowRight")
    assert text(browser, "#clip-name") == "b"
    press(browser, "ArrowRight", "x", "Escape")
    browser.until("!dialog.open && document.activeElement.closest('.card')?.dataset.name === 'b'")
    assert browser.run("[marked('star'), marked('reject')].map(([clip]) => clip.name)") == ["a", "b"]
    assert browser.complaints() == []


def command_parts(command: str) -> tuple[Any, list[str]]:
    printf, form, row, *rest = shlex.split(command)
    return json.loads(row), [printf, form, *rest]


def test_marks_outlive_the_page_and_their_rows_are_copied(browser: Browser, opened: Callable[..., Path]) -> None:
    opened(names=["a", "b", "c"])
    browser.run("for (const one of ['a', 'c']) document.querySelector(`[data-name=${one}] [data-mark=star]`).click()")
    browser.run("document.querySelector('[data-name=b] [data-mark=reject]').click()")
    browser.call("Page.reload")
    browser.until("document.readyState === 'complete' && document.querySelector('[data-marked=star]') !== null")
    assert text(browser, "#copy-star") == "Copy 2 starred rows"
    browser.run("copy = async (text) => { window.copied = text; }; byId('copy-star').click()")
    rows = [json.loads(line) for line in browser.run("window.copied").splitlines()]
    assert [(row["name"], row["prompt"]) for row in rows] == [("a", "the prompt of a"), ("c", "the prompt of c")]
    choose(browser, "#facet-mark", "=not reject")
    assert shown(browser) == ["a", "c"]


def test_the_grid_of_a_sweep_has_one_clock(browser: Browser, opened: Callable[..., Path]) -> None:
    opened(of_a_sweep, names=[f"n{n}" for n in range(6)])
    browser.run("byId('as-sweep').click()")
    assert browser.run("[...table.querySelectorAll('th')].map((head) => head.textContent)") == [
        "guidance 1", "guidance 2", "seed 0", "seed 1", "seed 2",
    ]  # fmt: skip
    assert browser.run("[...table.rows[2].querySelectorAll('.screen')].map((s) => s.dataset.name)") == ["n1", "n4"]
    browser.until("videosOfSweep().length === 6 && videosOfSweep().every((video) => !video.paused && !video.seeking)")
    choose(browser, "#clock", "0.5", "input")
    browser.until("videosOfSweep().every((video) => video.paused && !video.seeking)")
    assert browser.run("new Set(videosOfSweep().map((video) => video.currentTime.toFixed(3))).size") == 1
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [1280, 390])
def test_the_tools_of_a_sweep_take_one_line_and_names_keep_their_ends(
    browser: Browser, opened: Callable[..., Path], width: int
) -> None:
    def of_prompts(position: int, sidecar: dict[str, Any]) -> None:
        sidecar["request"] |= {"prompt": f"a lighthouse in a storm of {position // 3}", "seed": position % 3}

    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
    try:
        names = [f"{1 + n // 3:03d}-a-lighthouse-in-a-storm-with-waves-that-break-seed{n % 3}" for n in range(6)]
        opened(of_prompts, names=names)
        tops = "new Set([...document.querySelectorAll(QUERY)].map((e) => { const box = e.getBoundingClientRect();"
        tops += "return Math.round((box.top + box.bottom) / 2 / 4); })).size"
        for query in ("#search, #filters label", "#count, #size, #play-all, #as-cards"):
            shown = "#search" if width == 390 and query.startswith("#search") else query  # the rest is folded there
            assert browser.run(tops.replace("QUERY", json.dumps(shown))) == 1, query
        end = "(() => { const box = document.querySelector('.card h3').lastChild.getBoundingClientRect();"
        end += "return document.querySelector('.card').getBoundingClientRect().right - box.right; })()"
        assert browser.run(end) >= 10
        assert browser.run("document.querySelector('.card h3').lastChild.textContent") == "-break-seed0"
        assert text(browser, ".card h3") == names[0]
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    finally:
        browser.call("Emulation.setDeviceMetricsOverride", width=1280, height=1000, deviceScaleFactor=1, mobile=False)


def test_a_page_of_a_run_loads_itself_again_and_is_as_it_was(browser: Browser, opened: Callable[..., Path]) -> None:
    folder = opened(names=[f"{n:03d}" for n in range(40)], exit_code=None, remaining=2)
    assert browser.run("document.querySelector('.state').offsetLeft > document.querySelector('h1').offsetWidth")
    choose(browser, "#search", "prompt 0", "input")
    choose(browser, "#sort", "seconds")
    browser.run("scrollTo(0, 900)")
    make_folder(folder, names=[f"{n:03d}" for n in range(41)], exit_code=None, remaining=1)
    write_report(folder)
    browser.run("touched = -1e6; window.isOld = true; refreshWhenDue(0)")
    browser.until("!window.isOld && document.readyState === 'complete' && clips.length === 41")
    assert browser.run("[byId('search').value, choice.sort, scrollY]") == ["prompt 0", "seconds", 900]
    browser.run("openClip(clipOf.get('007')); window.isOld = true; touched = -1e6; refreshWhenDue(0)")
    assert browser.run("new Promise((done) => setTimeout(() => done([window.isOld, dialog.open]), 300))") == [
        True,
        True,
    ]
    browser.call("Page.reload")
    browser.until("!window.isOld && document.readyState === 'complete' && dialog.open")
    assert text(browser, "#clip-name") == "007"
    browser.run("sessionStorage.clear(); dialog.close()")


def test_the_timeline_names_the_clip_under_hand_and_keys(browser: Browser, opened: Callable[..., Path]) -> None:
    opened(names=["a", "b"])
    legend = browser.run("[...document.querySelectorAll('#legend li')].map((one) => one.textContent.trim())")
    assert legend == ["encode", "denoise", "decode", "loading weights"], (
        "what there is: no clip failed, no mp4 was timed"
    )
    browser.run("byId('chart').scrollIntoView({ block: 'center' }); byId('chart').focus()")
    press(browser, "ArrowDown", "ArrowRight")
    browser.until("!byId('tip').hidden")
    assert text(browser, "#tip").startswith("b\ndenoise 1.00 s · after loading weights for 0.05 s · from")
    press(browser, "Enter")
    assert text(browser, "#clip-name") == "b"
    browser.run("dialog.close()")
    before = browser.run("byId('extent').clientWidth")
    browser.run("byId('zoom-in').click()")
    assert browser.run("byId('extent').clientWidth") > 1.5 * before
    assert browser.run("[duration(5), duration(65), duration(7205)]") == ["5", "1:05", "2:00:05"]
    assert browser.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_can_be_read(browser: Browser, opened: Callable[..., Path], scheme: str) -> None:
    """Text has a contrast of at least 4.5 to its background, as WCAG asks."""
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    opened(names=["a", "b"], failed=["b"], exit_code=3)
    assert (luminance(browser, "body", "backgroundColor") > 0.5) == (scheme == "light")
    grounds = {
        "body": ("body", ".soft", ".state", ".link.bad", ".facts a", "label"),
        ".card": (".card h3", ".card .prompt"),
    }
    grounds |= {".screen": (".reason b", ".reason pre"), ".timeline": (".workers b", ".workers span")}
    for ground, selectors in grounds.items():
        below = luminance(browser, ground, "backgroundColor")
        for selector in selectors:
            low, high = sorted((below, luminance(browser, selector, "color")))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (selector, ground)
    browser.call("Emulation.setEmulatedMedia", features=[])


def luminance(browser: Browser, selector: str, part: str) -> float:
    """Relative luminance of a colour, which browsers give as `rgb(r, g, b)`."""
    colour = browser.run(f"getComputedStyle(document.querySelector({selector!r})).{part}")
    red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", colour)[:3])
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_nothing_moves_by_itself_for_those_who_asked_for_calm(browser: Browser, opened: Callable[..., Path]) -> None:
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    opened(names=["a"])
    browser.until("document.querySelector('.card video')?.readyState >= 1")
    browser.point_at(".card")
    browser.run("document.querySelector('.card .open').click()")
    browser.until("document.querySelector('#large video')?.readyState >= 1")
    assert browser.run("[...document.querySelectorAll('video')].every((video) => video.paused)")
    browser.call("Emulation.setEmulatedMedia", features=[])


def test_hostile_text_stays_text(browser: Browser, opened: Callable[..., Path]) -> None:
    def hostile(_: int, sidecar: dict[str, Any]) -> None:
        sidecar["request"] |= {HOSTILE: HOSTILE, "__proto__": HOSTILE, "constructor": [None], "seed": {"x": [HOSTILE]}}
        sidecar["request"] |= {"loras": [{"place": HOSTILE, "weight": HOSTILE}], "width": HOSTILE}
        sidecar["settings"] = {"model.checkpoint": HOSTILE, "constructor": None}

    folder = opened(hostile, names=["a", "b"], prompt=HOSTILE)
    (folder / os.fsdecode(b"not unicode \xff.mp4")).write_bytes((folder / "a.mp4").read_bytes())
    browser.open(write_report(folder).as_uri())
    browser.run("document.querySelector('.card .open').click()")
    assert text(browser, "#clip-prompt") == HOSTILE.replace("\u202e", " ")
    browser.run("openClip(clips.at(-1))")
    assert text(browser, "#clip-name") == "not unicode  "
    for view in ("as-sweep", "as-cards"):
        browser.run(f"dialog.close(); byId({view!r}).click()")
    ours = "p *:not(span, button, a), h1 *, h3 *:not(span), dd *, img, iframe, script:not([type])"
    found = f"document.querySelectorAll({ours!r})"
    assert browser.run(f"[{found}.length, window.hacked ?? 0]") == [1, 0], "the page's own script"
    assert browser.complaints() == []


def test_the_policy_stops_what_is_not_ours(browser: Browser, opened: Callable[..., Path]) -> None:
    opened(names=["a"])
    browser.run("document.body.append(Object.assign(document.createElement('script'), {textContent: 'hacked = 1'}))")
    assert browser.run("window.hacked ?? 0") == 0
    assert any("Content Security Policy" in text for text in browser.complaints())


def test_of_many_clips_only_those_near_the_window_exist(browser: Browser, tmp_path: Path) -> None:
    folder = make_folder(tmp_path, [f"{n:04d}-clip" for n in range(1, 301)])
    browser.open(write_report(folder).as_uri(), seconds=60)
    for script in ("scrollTo(0, 0)", "scrollTo(0, 10000)", "scrollTo(0, document.body.scrollHeight)"):
        browser.run(f"{script}; new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert browser.run("document.querySelectorAll('*').length") < 1000, "300 clips would be 5,000"
        assert browser.run("document.querySelectorAll('.card').length") < 60
    browser.run("focusCard(clipOf.get('0150-clip'))")
    card = "document.activeElement.closest('.card')"
    assert browser.run(f"[{card}.dataset.name, {card}.ariaPosInSet]") == ["0150-clip", "150"]
    press(browser, "ArrowRight")
    assert browser.run(f"{card}.dataset.name") == "0151-clip"


def test_a_clip_with_sound_is_heard_where_it_is_large_until_it_is_turned_off(browser: Browser, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "clips", names=["loud", "silent"], real_videos=True)
    wave = 0.3 * np.sin(np.arange(24000, dtype=np.float32) * np.float32(0.06))
    video = encode_video(
        [np.full((64, 64, 3), 9 * n, np.uint8) for n in range(24)], height=64, width=64, num_frames=24, frame_rate=24.0,
        output=Mp4Settings(), metadata={}, sound=Sound(np.stack([wave, wave]), 24000),
    )  # fmt: skip
    (folder / "loud.mp4").write_bytes(video.mp4)
    told = json.loads((folder / "loud.json").read_text()) | {"sampling_rate": 24000}
    (folder / "loud.json").write_text(json.dumps(told))
    browser.open(write_report(folder).as_uri())
    browser.run("openClip(clipOf.get('loud'))")
    assert browser.run("[byId('sound').hidden, byId('large').querySelector('video').muted]") == [False, False]
    assert "24 kHz" in text(browser, "#clip-facts")
    browser.run("byId('large').querySelector('video').play()")
    browser.until("byId('large').querySelector('video').webkitAudioDecodedByteCount > 0")
    browser.run("byId('sound').click()")
    browser.until("byId('large').querySelector('video').muted && byId('sound').ariaPressed === 'false'")
    browser.run("byId('next').click()")
    assert browser.run("[byId('clip-name').textContent, byId('sound').hidden]") == ["silent", True]
    browser.run("byId('previous').click()")
    assert browser.run("byId('large').querySelector('video').muted"), "it stays off"
    browser.run("byId('sound').click()")
    browser.run("byId('close').click()")
