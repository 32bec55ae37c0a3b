"""A browser for tests of pages."""

import contextlib
import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any


class Browser:
    """A headless Chromium, driven through a pipe in its DevTools protocol; no name resolves to an address."""

    def __init__(self, program: str, profile: Path) -> None:
        orders, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        flags = "headless no-sandbox disable-gpu disable-background-networking disable-component-update disable-sync"
        flags += " no-first-run disable-dev-shm-usage remote-debugging-pipe"
        command = [program, *(f"--{flag}" for flag in flags.split()), f"--user-data-dir={profile}"]
        command += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "about:blank"]
        # The protocol speaks on descriptors 3 and 4, whatever numbers the pipes have here.
        places = f'exec 3<&{orders} 4>&{answers}; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", places, "bash", *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(orders, answers),
        )
        os.close(orders)
        os.close(answers)
        self._buffer, self._number, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._orders, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, (method, answer)
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._answers], [], [], 60)[0], "the browser does not answer"
            part = os.read(self._answers, 1 << 20)
            assert part, "the browser has ended"
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        return found

    def value(self, expression: str) -> Any:
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, page: Path | str, width: int = 1200, dark: bool = False, scripts: bool = True) -> None:
        """Load a file, or a page of a server on this machine, and wait until its charts are drawn."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri() if isinstance(page, Path) else page)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        deadline = time.monotonic() + 600
        while scripts and self.value("document.querySelector('.chart:not([data-drawn])') !== null"):
            assert time.monotonic() < deadline, self.complaints()
            time.sleep(0.05)

    def violations(self, axe: str) -> list[str]:
        """Return what axe-core finds against the rules of accessibility, with all parts open; `axe` is its script."""
        self.value("document.querySelectorAll('details').forEach(one => (one.open = true)), null")
        self.value(f"{axe}; null")
        found = (
            "axe.run().then(found => found.violations.map(v => v.id + ': ' + v.nodes.map(n => n.html.slice(0, 200))))"
        )
        answer = self.call("Runtime.evaluate", expression=found, awaitPromise=True, returnByValue=True)
        return list(answer["result"]["value"])

    def complaints(self) -> list[str]:
        """What the console says, what was thrown, what a dialog asks: all that a good page keeps from doing."""
        bad = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening")
        return [json.dumps(event["params"])[:500] for event in self.events if event.get("method") in bad]

    def requests(self) -> list[str]:
        return [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._orders, b'{"id": 0, "method": "Browser.close"}\0')
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._orders)
        os.close(self._answers)
