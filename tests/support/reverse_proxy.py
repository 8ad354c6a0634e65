"""A reverse proxy as JupyterHub has one: the page at ``/proxy/PORT/`` is that of a server on this machine."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator

LOOPBACK = "127.0.0.1"
_HEAD_END = b"\r\n\r\n"


class ReverseProxy:
    """Passes requests below ``/proxy/PORT`` on, without that prefix; one request per connection, or a web socket."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._prefix = f"/proxy/{port}".encode()
        self._sockets: list[socket.socket] = []  # of web sockets
        self._listener = socket.create_server((LOOPBACK, 0))
        self.requests: list[str] = []  # paths that were asked for, as the browser asked
        self.address = f"http://{LOOPBACK}:{self._listener.getsockname()[1]}/proxy/{port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def drop_web_sockets(self) -> int:
        """Cuts them, as a proxy does whose time is out; how many there were."""
        dropped, self._sockets = self._sockets, []
        for side in dropped:
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
        return len(dropped) // 2

    def close(self) -> None:
        """Ends it."""
        self._listener.close()
        self.drop_web_sockets()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                browser, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(browser,), daemon=True).start()

    def _serve(self, browser: socket.socket) -> None:
        with browser, contextlib.suppress(OSError):
            head = b""
            while _HEAD_END not in head:
                more = browser.recv(65536)
                if not more:
                    return
                head += more
            path = head.split(b" ", 2)[1]
            self.requests.append(path.decode())
            if not path.startswith(self._prefix + b"/"):
                browser.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            is_socket = re.search(rb"\r\nUpgrade: *websocket", head, re.IGNORECASE) is not None
            head = head.replace(b" " + path, b" " + path[len(self._prefix) :], 1)
            if not is_socket:
                head = re.sub(rb"\r\nConnection: [^\r]*", b"\r\nConnection: close", head, flags=re.IGNORECASE)
            with socket.create_connection((LOOPBACK, self._port)) as server:
                if is_socket:
                    self._sockets += [browser, server]
                server.sendall(head)
                threading.Thread(target=_pass_on, args=(browser, server), daemon=True).start()
                _pass_on(server, browser)


def _pass_on(source: socket.socket, to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            to.sendall(data)
    with contextlib.suppress(OSError):
        to.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def proxied(port: int) -> Iterator[ReverseProxy]:
    """A proxy for the server on ``port``."""
    proxy = ReverseProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
