"""Where the viewer listens: on this machine alone, unless it is said that others are to reach it."""

from __future__ import annotations

import socket

import pytest

from specscope.tracer.errors import UsageError
from specscope.viewer.serve.listener import ANY_PORT, Listener


def test_a_default_port_that_is_taken_is_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr("specscope.viewer.serve.listener.DEFAULT_PORT", taken.getsockname()[1])
        assert Listener.of("127.0.0.1", (), None).free_port() == ANY_PORT


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "2001:db8::1"])
def test_other_machines_are_let_in_only_where_it_is_said(host: str) -> None:
    with pytest.raises(UsageError, match=r"could read the traces.*--expose NAME"):
        Listener.of(host, (), None)
    found = Listener.of(host, ("box.lan",), None)
    assert found.address_at(80) == "http://box.lan:80"
    assert set(found.names) >= {"box.lan", "127.0.0.1", "localhost", "::1"}
    assert "*" not in found.names


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("localhost", "http://localhost:80"),
        ("::1", "http://[::1]:80"),
        ("127.8.9.10", "http://127.8.9.10:80"),
    ],
)
def test_this_machine_needs_no_more(host: str, address: str) -> None:
    found = Listener.of(host, (), None)
    assert found.address_at(80) == address
    assert set(found.names) == {host, "127.0.0.1", "localhost", "::1"}


@pytest.mark.parametrize("name", ["*", "*.lan", "http://box", "box:80", "", "a b", "-box", "box."])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(UsageError, match="wanted the name or address of a host"):
        Listener.of("0.0.0.0", (name,), None)
    with pytest.raises(UsageError, match="wanted localhost or an IP address"):
        Listener.of("example.com", (), None)
