"""Runs the Streamlit server as a child process that ends with this one. Knows nothing of traces.

Listens on the loopback address alone, sends no statistics, and watches no files.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from specscope.tracer.errors import SpecScopeError, UsageError
from specscope.viewer.drawing import palette

HOST = "127.0.0.1"
DEFAULT_PORT = 8501
START_SECONDS = 60.0
STOP_SECONDS = 3.0
APP = Path(__file__).with_name("app.py")


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
    f"--server.address={HOST}",
    "--server.headless=true",
    "--server.fileWatcherType=none",
    "--server.showEmailPrompt=false",
    "--browser.gatherUsageStats=false",
    f"--browser.serverAddress={HOST}",
    "--client.toolbarMode=minimal",
    "--client.showErrorDetails=full",
    "--theme.baseRadius=8px",
    *_theme("light", palette.LIGHT),
    *_theme("dark", palette.DARK),
)


class Terminated(BaseException):
    """A signal asked us to end; carries its number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def choose_port(wanted: int | None) -> int:
    """``wanted``, else the default port, else any free one.

    Raises:
        UsageError: where ``wanted`` is taken.
    """
    if wanted is not None:
        if not _is_free(wanted):
            raise UsageError(f"port {wanted} is taken: choose another --port, or leave it out")
        return wanted
    if _is_free(DEFAULT_PORT):
        return DEFAULT_PORT
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def serve(arguments: Sequence[str], port: int, ready: Callable[[str], None]) -> None:
    """Runs the viewer until it is asked to end; the child never outlives this call.

    Args:
        arguments: for the script: files and options.
        port: free on the loopback address.
        ready: told the address once the server answers.

    Raises:
        KeyboardInterrupt: on SIGINT.
        SystemExit: on SIGTERM or SIGHUP, with 128 + the signal's number.
        SpecScopeError: where the server does not start, or ends by itself.
    """
    # -P: what lies in the user's folder must not be imported in place of a library.
    command = [sys.executable, "-P", "-m", "specscope.viewer.server_child", "run", str(APP), f"--server.port={port}"]
    with _signals_raise():
        child = subprocess.Popen(  # noqa: S603  (our own interpreter and script)
            [*command, *OPTIONS, "--", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=_environment(),
        )
        try:
            _wait_until_ready(child, port)
            ready(f"http://{HOST}:{port}")
            code = child.wait()
            raise SpecScopeError(f"the viewer's server ended by itself with exit status {code}")
        except Terminated as signalled:
            if signalled.number == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise SystemExit(128 + signalled.number) from None
        finally:
            _stop(child)


def _environment() -> dict[str, str]:
    """Ours, and a guard against pages of other sites that rebind their name to this machine."""
    return {**os.environ, "STREAMLIT_SERVER_ALLOWED_HOSTS": HOST, "PYTHONUNBUFFERED": "1"}


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Within it, the signals that end a program raise ``Terminated``; the old handlers come back behind it."""

    def raised(number: int, _: FrameType | None) -> None:
        raise Terminated(number)

    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    old = {number: signal.signal(number, raised) for number in numbers}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _wait_until_ready(child: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise SpecScopeError(f"the viewer's server did not start (exit status {child.returncode})")
        if _answers(port):
            return
        time.sleep(0.1)
    raise SpecScopeError(f"the viewer's server did not answer on port {port} within {START_SECONDS:.0f} s")


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/_stcore/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Asks, then insists. A further signal meanwhile does not keep the child alive."""
    child.terminate()
    try:
        child.wait(STOP_SECONDS)
    except (subprocess.TimeoutExpired, Terminated):
        child.kill()
        child.wait()
    finally:
        if child.stdin is not None:
            child.stdin.close()
