"""Where the viewer listens, and under which names a browser may call it. Knows nothing of the server itself.

Only on the loopback address, unless the user explicitly asks for more: a trace may hold the text of people's prompts.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from specscope.tracer.errors import UsageError

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 8501
ANY_PORT = 0  # the system chooses
_OWN_NAMES = (LOOPBACK, "localhost", "::1")
_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*", re.ASCII)


@dataclass(frozen=True)
class Listener:
    """An address to listen on."""

    host: str  # an IP address
    port: int | None  # None: the default one, or one that is free
    names: tuple[str, ...]  # by which a browser may call it; the first is shown to the user

    @classmethod
    def of(cls, host: str, exposed_as: Sequence[str], port: int | None) -> Listener:
        """What ``--host``, ``--expose`` and ``--port`` ask for.

        Raises:
            UsageError: where ``host`` is not an address, or is not loopback and ``exposed_as`` is empty.
        """
        address = LOOPBACK if host == "localhost" else host
        try:
            parsed = ip_address(address)
        except ValueError:
            raise UsageError(f"got --host {host!r}, wanted localhost or an IP address such as {LOOPBACK}") from None
        for name in exposed_as:
            if not _is_name(name):
                raise UsageError(f"got --expose {name!r}, wanted the name or address of a host, without port or scheme")
        if not parsed.is_loopback and not exposed_as:
            raise UsageError(
                f"got --host {host}: anyone who can reach that address could read the traces. Leave it out and use a "
                f"tunnel (ssh -L {DEFAULT_PORT}:{LOOPBACK}:{DEFAULT_PORT}), or, if that is intended, give the name by "
                "which others reach this machine: --expose NAME"
            )
        shown = (*exposed_as, *(() if parsed.is_unspecified else (host,)))
        return cls(str(parsed), port, tuple(dict.fromkeys((*shown, *_OWN_NAMES))))

    def free_port(self) -> int:
        """The port asked for, else the default one, else ``ANY_PORT``.

        Raises:
            UsageError: where the port asked for is taken, or the address does not belong to this machine.
        """
        if self.port is not None:
            problem = self._problem_at(self.port)
            if problem is not None:
                raise UsageError(f"{problem}: choose another --port, or leave it out")
            return self.port
        if self._problem_at(DEFAULT_PORT) is None:
            return DEFAULT_PORT
        problem = self._problem_at(ANY_PORT)
        if problem is not None:
            raise UsageError(f"{problem}: choose another --host")
        return ANY_PORT

    def address_at(self, port: int) -> str:
        """The address for a browser."""
        name = f"[{self.names[0]}]" if ":" in self.names[0] else self.names[0]
        return f"http://{name}:{port}"

    def _problem_at(self, port: int) -> str | None:
        family = socket.AF_INET6 if isinstance(ip_address(self.host), IPv6Address) else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
            try:
                probe.bind((self.host, port))
            except PermissionError:
                return f"port {port} is not allowed"
            except OSError as error:
                return (
                    f"port {port} is taken" if port != ANY_PORT else f"cannot listen on {self.host}: {error.strerror}"
                )
            return None


def _is_name(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return _NAME.fullmatch(name) is not None
    return True
