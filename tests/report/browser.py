"""Headless Chromium over the DevTools protocol, for the tests of the page, its benchmark and its pictures."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
)  # fmt: skip

RELOADED = "Inspected target navigated or closed"
"""DevTools' error for an expression that was still running when the page was reloaded."""


class ReloadedError(Exception):
    """The page was reloaded before it gave an answer."""


class Browser:
    """One window of 1280 x 1000 pixels. Chromium speaks the protocol on file descriptors 3 and 4."""

    def __init__(self, profile: Path) -> None:
        (its_in, our_out), (our_in, its_out) = os.pipe(), os.pipe()
        # The numbers are far above 3 and 4, so that the shell cannot close one while it moves the other.
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
                if answer.get("error", {}).get("message") == RELOADED:
                    raise ReloadedError
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, url: str, seconds: float = 20) -> None:
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'", seconds)

    def run(self, script: str) -> Any:
        """The value of an expression, awaited if it is a promise."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script: str, seconds: float = 20) -> None:
        """Wait until the expression is true, over reloads of the page."""
        deadline = time.monotonic() + seconds
        while True:
            with suppress(ReloadedError):
                if self.run(script):
                    return
            assert time.monotonic() < deadline, f"never: {script}"
            time.sleep(0.05)

    def point_at(self, selector: str) -> None:
        """Move the mouse to the middle of an element, like a user."""
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
        self._out.close()  # the browser ends with the pipe
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
