"""The page in a real browser: from file://, under its own content security policy, with clips that play."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from test_report import HOSTILE, make_folder

from ltx_dist.report.page import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
)  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium on this machine; launch/test.sh installs Debian's where it may"
    ),
]


class Browser:
    """Headless Chromium over the DevTools protocol, which it speaks on file descriptors 3 and 4."""

    def __init__(self, profile: Path) -> None:
        (its_in, our_out), (our_in, its_out) = os.pipe(), os.pipe()
        # Numbers far above 3 and 4, so that the shell cannot close one while it moves the other.
        its_in, its_out = (fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (its_in, its_out))
        arguments = [CHROMIUM or "chromium", *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        shell = ["bash", "-c", f'exec "$@" 3<&{its_in} 4>&{its_out}', "bash", *arguments]
        self._process = subprocess.Popen(shell, pass_fds=(its_in, its_out), stderr=subprocess.DEVNULL)
        os.close(its_out)
        self._out, self._in, self._numbers = os.fdopen(our_out, "wb"), os.fdopen(our_in, "rb"), itertools.count(1)
        self.events: list[dict[str, Any]] = []
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=1280, height=1000, deviceScaleFactor=1, mobile=False)

    def call(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, url: str) -> None:
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of an expression, awaited if it is a promise."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script: str, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < deadline, f"never: {script}"
            time.sleep(0.05)

    def point_at(self, selector: str) -> None:
        """Move the mouse to the middle of an element, as a hand does."""
        x, y = self.run(
            f"(() => {{ const element = document.querySelector({selector!r});"
            "element.scrollIntoView({block: 'center'});"
            "const box = element.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector: str) -> None:
        self.point_at(selector)
        x, y = self.run(
            f"(() => {{ const box = document.querySelector({selector!r}).getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def complaints(self) -> list[str]:
        """What the console would show in red or yellow."""
        self.run("1")
        entries = [e["params"]["entry"] for e in self.events if e.get("method") == "Log.entryAdded"]
        thrown = [e["params"] for e in self.events if e.get("method") == "Runtime.exceptionThrown"]
        return [e["text"] for e in entries if e["level"] in ("error", "warning")] + [str(t) for t in thrown]

    def requested(self) -> list[str]:
        return [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]

    def close(self) -> None:
        self._out.close()  # the end of the pipe is the end of the browser
        self._in.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> dict[str, Any]:
        message = bytearray()
        while (byte := self._in.read(1)) != b"\0":
            assert byte, "the browser is gone"
            message += byte
        return json.loads(message)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Callable[..., Path]:
    def open_page(**settings: Any) -> Path:
        folder = make_folder(tmp_path / "100% <b>clips</b>", real_videos=True, **settings)
        browser.open(write_report(folder).as_uri())
        return folder

    return open_page


def shown(browser: Browser) -> list[str]:
    return browser.run("[...document.querySelectorAll('.clip:not([hidden])')].map((clip) => clip.dataset.name)")


def test_clips_play_and_nothing_but_them_is_asked_for(browser: Browser, opened: Callable[..., Path]) -> None:
    folder = opened(names=["one", "two words # 100%", "three"])
    browser.until("[...document.querySelectorAll('video')].every((video) => video.readyState >= 2)")
    assert browser.run("[...document.querySelectorAll('video')].map((v) => v.videoWidth)") == [64, 64, 64]
    browser.click(".play")
    browser.until("document.querySelector('video').currentTime > 0.1")
    browser.run("document.getElementById('play-all').click()")
    browser.until("[...document.querySelectorAll('video')].every((video) => video.currentTime > 0)")
    assert browser.complaints() == []
    allowed = {"index.html", *(path.name for path in folder.glob("*.mp4"))}
    asked = [url for url in browser.requested() if not url.startswith("data:")]
    assert len(asked) >= 4
    assert all(url.startswith("file:") for url in asked)
    assert {unquote(url).rpartition("/")[2] for url in asked} <= allowed


def test_search_sort_and_failed_only(browser: Browser, opened: Callable[..., Path]) -> None:
    opened(names=["1-sea", "2-hill", "10-sky"], failed=["2-hill"], seconds=[1.0, 2.0, 3.0])
    assert shown(browser) == ["1-sea", "2-hill", "10-sky"]
    search = "const s = document.getElementById('search'); s.value = '{}'; s.dispatchEvent(new Event('input'))"
    browser.run("{" + search.format("SKY prompt") + "}")
    assert shown(browser) == ["10-sky"]
    browser.run("{" + search.format("") + "}")
    browser.run("document.getElementById('failed-only').click()")
    assert shown(browser) == ["2-hill"]
    # A clip that the filter hides is still found from its bar.
    browser.run("document.querySelector('.bar').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    assert shown(browser) == ["1-sea", "2-hill", "10-sky"]
    browser.run(
        "{const s = document.getElementById('sort'); s.value = 'seconds'; s.dispatchEvent(new Event('change'))}"
    )
    assert shown(browser)[0] == "10-sky"
    assert browser.complaints() == []


def test_hover_and_arrow_keys_name_the_clip(browser: Browser, opened: Callable[..., Path]) -> None:
    opened(names=["a", "b"])
    browser.point_at(".bar.denoise")
    browser.until("!document.getElementById('tip').hidden")
    assert browser.run("document.getElementById('tip').textContent").startswith("a\ndenoise · 1.00 s")
    browser.run("document.querySelector('.bar').focus()")
    for key in ("ArrowRight", "Enter"):
        browser.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=0)
    assert browser.run("document.activeElement.dataset.name") == "b"
    before = browser.run("document.getElementById('chart').getBoundingClientRect().width")
    browser.click("#zoom-in")
    assert browser.run("document.getElementById('chart').getBoundingClientRect().width") > 1.5 * before
    assert browser.run("document.querySelectorAll('#ticks text').length") > 2


def test_loading_and_waiting_are_drawn(browser: Browser, opened: Callable[..., Path]) -> None:
    opened(names=["a", "b"])
    lanes = browser.run("[...document.querySelectorAll('.lane')].map((lane) => lane.querySelectorAll('.load').length)")
    assert lanes == [3, 2], "before each bar but the first, whose loading was start-up"
    waits = "[...document.querySelectorAll('.lane > .wait')].map((wait) => wait.getBoundingClientRect().width > 300)"
    assert browser.run(waits) == [True, True], "a line where no bar hides it"
    legend = browser.run("document.querySelector('.legend').textContent")
    assert all(word in legend for word in ("encode", "denoise", "decode", "mp4", "loading", "waiting")), legend


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_can_be_read(browser: Browser, opened: Callable[..., Path], scheme: str) -> None:
    """Text on its ground has a contrast of at least 4.5, as WCAG asks."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.call("Emulation.setEmulatedMedia", features=features)
    opened(names=["a"])
    ground = luminance(browser.run("getComputedStyle(document.body).backgroundColor"))
    assert (ground > 0.5) == (scheme == "light")
    for selector in ("body", ".settings", ".workers span", ".state", ".kind"):
        text = luminance(browser.run(f"getComputedStyle(document.querySelector('{selector}')).color"))
        low, high = sorted((ground, text))
        assert (high + 0.05) / (low + 0.05) >= 4.5, selector
    browser.call("Emulation.setEmulatedMedia", features=[])


def luminance(color: str) -> float:
    """Relative luminance of `rgb(r, g, b)`."""
    red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", color)[:3])
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_command_is_copied(browser: Browser, opened: Callable[..., Path]) -> None:
    opened(names=["a"])
    browser.click(".copy")
    browser.until("document.querySelector('.copy').textContent !== 'Copy command'")
    assert browser.run("document.querySelector('.copy').textContent") == "Copied"
    assert browser.complaints() == []


def test_hostile_text_stays_text(browser: Browser, opened: Callable[..., Path]) -> None:
    opened(names=["a"], prompt=HOSTILE)
    assert browser.run("document.querySelector('.prompt').textContent") == HOSTILE.replace("\u202e", " ")
    assert browser.run("[document.querySelectorAll('.prompt *, h1 *, img, iframe').length, window.hacked ?? 0]") == [
        0,
        0,
    ]
    assert browser.complaints() == []


def test_the_policy_stops_what_is_not_ours(browser: Browser, opened: Callable[..., Path]) -> None:
    opened(names=["a"])
    browser.run("document.body.append(Object.assign(document.createElement('script'), {textContent: 'hacked = 1'}))")
    assert browser.run("window.hacked ?? 0") == 0
    assert any("Content Security Policy" in text for text in browser.complaints())


def test_a_thousand_clips(browser: Browser, opened: Callable[..., Path]) -> None:
    began = time.monotonic()
    opened(names=[f"{n:04d}-clip" for n in range(1, 1001)])
    loading = browser.run("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000
    print(f"1,000 clips: {loading:.2f} s to load the page, {time.monotonic() - began:.1f} s with making the folder")
    browser.until("document.querySelector('video').readyState >= 2")
    assert browser.run("document.querySelectorAll('video[src]').length") < 60
    assert loading < 60  # 2.5 s seen, docs/benchmarks.md; more where others use the cores
    assert browser.complaints() == []
