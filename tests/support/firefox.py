"""Firefox for tests, driven by WebDriver BiDi, its own remote protocol: JSON over a WebSocket, without another program.

Only what the tests need: open a page, ask it, press keys, click. The protocol: https://www.w3.org/TR/webdriver-bidi/.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.sync.client import ClientConnection, connect

FIREFOX = next((path for name in ("firefox-esr", "firefox") if (path := shutil.which(name))), "")
WAIT = 60.0  # seconds
#: What the profile is told: nothing is fetched from anywhere, and nothing is asked.
PREFERENCES = {
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
    "toolkit.telemetry.enabled": False,
}
#: Keys that are no characters, as the protocol writes them.
KEYS = {"ArrowLeft": "\ue012", "ArrowUp": "\ue013", "ArrowRight": "\ue014", "ArrowDown": "\ue015", "Enter": "\ue007"}
KEYS |= {"Escape": "\ue00c", "Tab": "\ue004", "Home": "\ue011", "End": "\ue010"}


class FirefoxPage:
    """One tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0
        self.errors: list[str] = []  # that scripts of the page did not catch, or wrote to the console
        self.requests: list[str] = []  # addresses that pages asked for
        self._ask("session.new", capabilities={})
        self._ask("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])
        contexts = self._ask("browsingContext.getTree", maxDepth=0)["contexts"]
        self._context: str = contexts[0]["context"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command, and waits for its answer.

        Raises:
            RuntimeError: where the browser refuses it.
        """
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._connection.recv(timeout=WAIT))
            if answer.get("method") == "log.entryAdded" and answer["params"]["level"] == "error":
                self.errors.append(answer["params"]["text"] or "")
            elif answer.get("method") == "network.beforeRequestSent":
                self.requests.append(answer["params"]["request"]["url"])
            elif answer.get("id") == self._number:
                if answer["type"] == "error":
                    raise RuntimeError(f"{method}: {answer['error']}: {answer['message']}")
                result: dict[str, Any] = answer["result"]
                return result

    def resize(self, width: int, height: int) -> None:
        """The size of what is seen, in CSS pixels."""
        self._ask("browsingContext.setViewport", context=self._context, viewport={"width": width, "height": height})

    def go(self, address: str) -> None:
        """Opens a page, and waits until it is loaded."""
        self._ask("browsingContext.navigate", context=self._context, url=address, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page, as JSON carries it.

        Raises:
            RuntimeError: where it throws.
        """
        result = self._ask(
            "script.evaluate",
            expression=f"JSON.stringify({expression})",
            target={"context": self._context},
            awaitPromise=True,
        )
        if result["type"] == "exception":
            raise RuntimeError(result["exceptionDetails"]["text"])
        return json.loads(result["result"].get("value", "null"))

    def wait_for(self, expression: str, wanted: Any = True) -> None:
        """Until the expression has that value.

        Raises:
            AssertionError: where it does not come to have it.
        """
        end = time.monotonic() + WAIT
        while (value := self.evaluate(expression)) != wanted:
            assert time.monotonic() < end, f"{expression}: got {value!r}, wanted {wanted!r}"
            time.sleep(0.1)

    def press(self, *keys: str) -> None:
        """Keys, one after another: characters, or the names in ``KEYS``."""
        actions = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        source = {"type": "key", "id": "keyboard", "actions": actions}
        self._ask("input.performActions", context=self._context, actions=[source])

    def drag(self, *places: tuple[float, float]) -> None:
        """Presses the pointer at the first place, moves it over the others, and lets go at the last."""
        moves = [{"type": "pointerMove", "x": round(x), "y": round(y), "duration": 50} for x, y in places]
        actions = [moves[0], {"type": "pointerDown", "button": 0}, *moves[1:], {"type": "pointerUp", "button": 0}]
        source = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}
        self._ask("input.performActions", context=self._context, actions=[source])


@contextmanager
def firefox() -> Iterator[FirefoxPage]:
    """Starts Firefox without a window and with a profile of its own, and ends it whatever happens."""
    with tempfile.TemporaryDirectory(prefix="firefox-") as folder:
        lines = (f'user_pref("{name}", {json.dumps(value)});\n' for name, value in PREFERENCES.items())
        Path(folder, "user.js").write_text("".join(lines), encoding="utf-8")
        command = [FIREFOX, "--headless", "--no-remote", "--profile", folder, "--remote-debugging-port", "0"]
        with Path(folder, "output").open("w+", encoding="utf-8") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            try:
                with connect(f"{_address(process, Path(folder, 'output'))}/session", max_size=None) as connection:
                    yield FirefoxPage(connection)
            finally:
                process.terminate()
                process.wait(timeout=30)


def _address(process: subprocess.Popen[bytes], output: Path) -> str:
    """Where it listens, once it says so."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end and process.poll() is None:
        listens = re.search(r"WebDriver BiDi listening on (ws://\S+)", output.read_text(encoding="utf-8"))
        if listens is not None:
            return listens[1]
        time.sleep(0.1)
    raise AssertionError(f"firefox does not listen: {output.read_text(encoding='utf-8')}")
