"""Headless Chromium over its own protocol: open a page at a size, ask it, take a picture.

The protocol comes through a pair of pipes (``--remote-debugging-pipe``: messages of JSON that end
with a NUL byte, read from descriptor 3 and written to 4), so nothing has to be installed for it and
no port is open.
"""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe"),
)
_TIMEOUT = 60.0
#: Becomes the browser, which reads from 3 and writes to 4; both may be something else before.
_PLACES = """
import os, sys
read, write = (os.dup(int(number)) for number in sys.argv[1:3])
for number, place in ((read, 3), (write, 4)):
    os.dup2(number, place)
    os.set_inheritable(place, True)  # which dup2 leaves as it is where both are the same
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_browser() -> str | None:
    """The program, or None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """A running browser with one page."""

    def __init__(self, sending: int, receiving: int) -> None:
        self._sending, self._receiving = sending, receiving
        self._numbers = itertools.count(1)
        self._buffer = b""
        self.requests: list[str] = []
        self.messages: list[str] = []
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command to the page."""
        return self._ask(method, self._session, **parameters)

    def open(
        self, page: Path | str, width: int, height: int, *, phone: bool, dark: bool = False
    ) -> None:
        """Show a file, or an address, at a window size in CSS pixels.

        ``requests`` and ``messages`` begin anew.
        """
        self.requests, self.messages = [], []
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        address = page if isinstance(page, str) else page.resolve().as_uri()
        # From nowhere, so that a page that is there already does not pass for the next.
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        self.until(f"document.readyState === 'complete' && location.href === {json.dumps(address)}")

    def ask(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true in the page."""
        end = time.monotonic() + _TIMEOUT
        while not self.ask(condition):
            assert time.monotonic() < end, f"not true within {_TIMEOUT:g} s: {condition}"
            time.sleep(0.02)

    def choose(self, selector: str, file: Path) -> None:
        """Put a file into an input of the page, as its user does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        found = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=found, files=[str(file.resolve())])

    def picture(self) -> PIL.Image.Image:
        """The whole page, also what lies below the window."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return PIL.Image.open(io.BytesIO(base64.b64decode(answer["data"]))).convert("RGB")

    def _ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._sending, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        values = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif event.get("method") == "Log.entryAdded":
            self.messages.append(values["entry"]["text"])

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._receiving], [], [], _TIMEOUT)
            assert ready, "the browser does not answer"
            chunk = os.read(self._receiving, 1 << 20)
            assert chunk, "the browser ended"
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        value: dict[str, Any] = json.loads(message)
        return value


@contextlib.contextmanager
def browser(program: str) -> Iterator[Browser]:
    """Start ``program`` with an empty profile; it ends with the block."""
    to_read, sending = os.pipe()
    receiving, to_write = os.pipe()

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", _PLACES, str(to_read), str(to_write)),
                *(program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"),
            ],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        try:
            yield Browser(sending, receiving)
        finally:
            os.close(sending)
            os.close(receiving)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
