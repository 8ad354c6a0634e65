"""Runs the Streamlit server as a child process that ends with this one. Knows nothing of traces.

Sends no statistics, watches no files, and uses no configuration but what is set here. Only the errors that the child
prints reach the terminal, with every control character made visible.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from specscope.tracer.errors import SpecScopeError
from specscope.tracer.naming.text import printable
from specscope.viewer.drawing.style import palette
from specscope.viewer.serve.listener import ANY_PORT, Listener

START_SECONDS = 60.0
STOP_SECONDS = 3.0
APP = Path(__file__).parents[1] / "app.py"
#: What Streamlit prints once it listens; the name before the port is one of ours.
_ADDRESS = re.compile(r"https?://\S+:(\d+)\s*$")


def _theme(name: str, colours: palette.Palette) -> tuple[str, ...]:
    """Streamlit's own parts in our colours; it chooses light or dark as the reader's system does."""
    return (
        f"--theme.{name}.primaryColor={colours.accepted}",
        f"--theme.{name}.backgroundColor={colours.paper}",
        f"--theme.{name}.secondaryBackgroundColor={colours.surface}",
        f"--theme.{name}.textColor={colours.ink}",
        f"--theme.{name}.borderColor={colours.line}",
    )


OPTIONS = (
    "--server.headless=true",
    "--server.enableCORS=true",
    "--server.enableXsrfProtection=true",
    "--server.fileWatcherType=none",
    "--server.showEmailPrompt=false",
    "--browser.gatherUsageStats=false",
    "--logger.level=error",
    "--client.toolbarMode=minimal",
    "--client.showErrorDetails=full",
    "--client.showErrorLinks=false",
    "--theme.baseRadius=8px",
    *_theme("light", palette.LIGHT),
    *_theme("dark", palette.DARK),
)


class Terminated(BaseException):
    """A signal asked us to end; carries its number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _NotStartedError(SpecScopeError):
    """The child ended before it listened."""


def serve(
    arguments: Sequence[str],
    listener: Listener,
    ready: Callable[[str], None],
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Runs the viewer until it is asked to end; the child never outlives this call.

    Args:
        arguments: for the script: files and options.
        listener: where to listen.
        ready: called with the address once the server listens.
        meanwhile: called while the server starts, before ``ready``. What it raises ends the server.

    Raises:
        KeyboardInterrupt: on SIGINT.
        SystemExit: on SIGTERM or SIGHUP, with 128 + the signal's number.
        SpecScopeError: where the server does not start, or ends by itself.
    """
    run = _Serving(arguments, listener, ready, meanwhile)
    with _signals_raise():
        try:
            port = listener.free_port()
            try:
                run.at(port)
            except _NotStartedError:
                if listener.port is not None or port == ANY_PORT:
                    raise
                run.at(ANY_PORT)  # another program took the default port meanwhile
        except Terminated as signalled:
            if signalled.number == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise SystemExit(128 + signalled.number) from None


@dataclass(frozen=True)
class _Serving:
    """What ``serve`` was asked for."""

    arguments: Sequence[str]
    listener: Listener
    ready: Callable[[str], None]
    meanwhile: Callable[[], None]

    def at(self, port: int) -> None:
        """Runs the child until it ends by itself, which it should not."""
        child = _Child(self.arguments, self.listener, port)
        try:
            self.meanwhile()
            self.ready(self.listener.address_at(child.wait_until_ready()))
            raise SpecScopeError(f"the viewer's server ended by itself with exit status {child.process.wait()}")
        finally:
            child.stop()


class _Child:
    """The server's process, and the threads that read what it prints."""

    def __init__(self, arguments: Sequence[str], listener: Listener, port: int) -> None:
        # -P: files in the user's folder must not be imported in place of a library.
        command = [sys.executable, "-P", "-m", "specscope.viewer.serve.server_child", "run", str(APP)]
        options = [f"--server.port={port}", *_listening(listener), *OPTIONS]
        self.process = subprocess.Popen(  # noqa: S603  (our own interpreter and script)
            [*command, *options, "--", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            encoding="utf-8",
            errors="backslashreplace",
        )
        self._port: int | None = None
        self._errors: deque[str] = deque(maxlen=100)  # printed before it was ready
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._hear, self._pass_on)]
        for thread in self._threads:
            thread.start()

    def wait_until_ready(self) -> int:
        """The port, once the child listens. Another program's server on that port is not mistaken for it."""
        deadline = time.monotonic() + START_SECONDS
        while self._port is None:
            code = self.process.poll()
            if code is not None:
                self._threads[1].join(STOP_SECONDS)
                errors = "".join(f"\n{line}" for line in self._errors)
                raise _NotStartedError(f"the viewer's server did not start (exit status {code}){errors}")
            if time.monotonic() > deadline:
                raise SpecScopeError(f"the viewer's server did not start within {START_SECONDS:.0f} s")
            time.sleep(0.02)
        return self._port

    def stop(self) -> None:
        """Terminates the child, then kills it. A further signal meanwhile does not keep it alive."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except (subprocess.TimeoutExpired, Terminated):
            self.process.kill()
            self.process.wait()
        finally:
            for thread in self._threads:
                thread.join(STOP_SECONDS)
            for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
                if pipe is not None:
                    pipe.close()

    def _hear(self) -> None:
        """Waits for the line that names the port; then reads on, so that the pipe never fills."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            match = _ADDRESS.search(line)
            if match and self._port is None:
                self._port = int(match[1])

    def _pass_on(self) -> None:
        """Passes errors on to our standard error; until the child is ready they are kept, since it may be restarted."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._errors.append(printable(line.rstrip("\n")))
            while self._port is not None and self._errors:
                print(self._errors.popleft(), file=sys.stderr, flush=True)


def _listening(listener: Listener) -> list[str]:
    """Where to listen, and a guard against pages of other sites that rebind their name to this machine."""
    return [
        f"--server.address={listener.host}",
        f"--browser.serverAddress={listener.host}",
        *(f"--server.allowedHosts={name}" for name in listener.names),
    ]


def _environment() -> dict[str, str]:
    """Ours, without what would change Streamlit's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STREAMLIT_")}
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"}


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Within it, the signals that end a program raise ``Terminated``; the old handlers are restored after it."""

    def raised(number: int, _: FrameType | None) -> None:
        raise Terminated(number)

    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    old = {number: signal.signal(number, raised) for number in numbers}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
