"""A headless Chromium, driven through its DevTools protocol; what the tests need of it."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# It must ask for nothing by itself: no updates, no lists, no synchronisation.
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--remote-debugging-port=0", "--remote-allow-origins=*"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
)
PATIENCE = 120  # seconds


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class JavaScriptError(RuntimeError):
    """What an expression raised in the page."""


class Browser:
    """One page. `requests` has the address of everything that it asked for, `problems` what it
    complained of."""

    def __init__(self, program: str):
        self.requests: list[str] = []
        self.problems: list[str] = []
        self._profile = tempfile.mkdtemp()
        command = [program, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._socket = websocket.create_connection(self._page(), timeout=PATIENCE)
        self._calls = 0
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    def call(self, method: str, **arguments: object) -> dict[str, Any]:
        self._calls += 1
        self._socket.send(json.dumps({"id": self._calls, "method": method, "params": arguments}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._calls:
                assert "error" not in message, message["error"]
                return message["result"]
            self._note(message["method"], message["params"])

    def run(self, body: str, **values: object) -> Any:
        """What the body of an asynchronous function returns; `values` are its variables."""
        names, given = ", ".join(values), ", ".join(json.dumps(value) for value in values.values())
        result = self.call(
            "Runtime.evaluate",
            expression=f"(async ({names}) => {{ {body} }})({given})",
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in result:
            raise JavaScriptError(result["exceptionDetails"]["exception"].get("description"))
        return result["result"].get("value")

    def wait_for(self, condition: str, patience: float = PATIENCE) -> None:
        """Until the expression `condition` is true in the page; AssertionError after `patience`."""
        end = time.monotonic() + patience
        while not self.run(f"return Boolean({condition})"):
            assert time.monotonic() < end, f"still not true: {condition}. {self.problems}"
            time.sleep(0.05)

    def press(self, key: str, times: int = 1) -> None:
        """Press and release a key, as a person does."""
        text = {"Space": " ", "Enter": "\r"}.get(key)
        codes = {"Space": 32, "Enter": 13, "Tab": 9, "ArrowLeft": 37, "ArrowUp": 38}
        codes |= {"ArrowRight": 39, "ArrowDown": 40}
        event = {"key": " " if key == "Space" else key, "windowsVirtualKeyCode": codes[key]}
        for _ in range(times):
            down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
            self.call("Input.dispatchKeyEvent", **event, **down)
            self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def picture(self) -> bytes:
        """What the page looks like, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def _page(self) -> str:
        file, end = Path(self._profile) / "DevToolsActivePort", time.monotonic() + PATIENCE
        while not (file.exists() and "\n" in file.read_text()):
            assert self._process.poll() is None, "the browser ended at once"
            assert time.monotonic() < end, "the browser does not answer"
            time.sleep(0.05)
        port = file.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            pages = [target for target in json.load(answer) if target["type"] == "page"]
        return pages[0]["webSocketDebuggerUrl"]

    def _note(self, method: str, event: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(event["exceptionDetails"]))
        elif method == "Log.entryAdded" and event["entry"]["level"] == "error":
            self.problems.append(event["entry"]["text"])
