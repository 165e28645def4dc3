from __future__ import annotations

import contextlib
import socket

import pytest

from worker.local.ports import LOOPBACK, ReservedPort


def listen(port: int) -> socket.socket:
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((LOOPBACK, port))
    server.listen()
    return server


def test_a_server_binds_beside_the_reservation_again_and_again() -> None:
    port = ReservedPort()
    for _ in range(2):
        with listen(port.number):
            socket.create_connection((LOOPBACK, port.number)).close()
    port.close()


def test_nobody_else_is_given_the_port_while_it_is_held() -> None:
    port = ReservedPort()
    taken = pytest.raises(OSError) if port.is_held else contextlib.nullcontext()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other, taken:
        other.bind((LOOPBACK, port.number))
    port.close()
    assert not port.is_held
    listen(port.number).close()
