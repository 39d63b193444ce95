"""sd_notify(3), against a socket that stands for the service manager's."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from diachunk.node.manager import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    if request.param == "abstract" and sys.platform != "linux":
        pytest.skip("abstract names are Linux's")
    name = str(tmp_path / "notify") if request.param == "path" else f"@diachunk-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        one.settimeout(5)
        yield one, name


def test_it_hears_of_the_start_of_life_and_of_the_end(manager: tuple[socket.socket, str]) -> None:
    heard, name = manager
    service = ServiceManager({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000"})
    assert service.watchdog_s == 15.0
    service.ready("sharing 3\ncheckpoints")
    service.alive()
    service.stopping()
    # a line break would begin another assignment
    assert heard.recv(999) == f"READY=1\nSTATUS=sharing 3 checkpoints\nMAINPID={os.getpid()}".encode()
    assert heard.recv(999) == b"WATCHDOG=1"
    assert heard.recv(999).startswith(b"STOPPING=1\n")


@pytest.mark.parametrize("name", ["", "relative", "/not/there", "/\0"])
def test_nobody_to_tell_is_no_trouble(name: str) -> None:
    service = ServiceManager({"NOTIFY_SOCKET": name})
    assert service.watchdog_s is None
    service.ready("here")


@pytest.mark.parametrize(
    "environment",
    [
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "9" * 99},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
    ],
)
def test_a_watchdog_of_another_process_or_of_nonsense_is_none(environment: dict[str, str]) -> None:
    assert ServiceManager(environment).watchdog_s is None
