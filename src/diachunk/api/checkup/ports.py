"""The ports for sharing."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

from diachunk.api.checkup.base import Area, Finding, Level, Patient
from diachunk.api.checkup.linux import listeners, process

PORTS = range(8420, 8430)
_CONNECT_S = 0.2


def ports(patient: Patient) -> Iterator[Finding]:
    """Which of the ports that sharing uses are taken, and by whom."""
    taken = listeners(PORTS) if sys.platform == "linux" else dict.fromkeys(_answering())
    names = {port: _who(pid) for port, pid in taken.items()}
    others = {port: names[port] for port, pid in taken.items() if not (pid and process(pid).is_diachunk)}
    if len(taken) == len(PORTS):
        first, pid = next(iter(taken.items()))
        what = (
            f"ports {PORTS[0]}-{PORTS[-1]} are all taken ({first} by {names[first]}): nothing can be shared"
        )
        cure = f"kill {pid}" if pid else f"ss -ltnp 'sport = :{first}'"
        yield Finding(
            Level.WARNING, Area.NETWORK, what, f"{cure}  # or leave it: fetching works all the same"
        )
    elif others:
        what = ", ".join(f"{port} by {name}" for port, name in others.items())
        yield Finding(Level.NOTE, Area.NETWORK, f"ports for sharing in use: {what}; another is taken instead")
    else:
        yield Finding(
            Level.OK, Area.NETWORK, f"ports {PORTS[0]}-{PORTS[-1]} are free for sharing, or diachunk's"
        )


def _who(pid: int | None) -> str:
    if pid is None:
        return "another process"
    return f"process {pid} ({process(pid).command or 'unknown'})"


def _answering() -> Iterator[int]:
    for port in PORTS:
        with socket.socket() as one:
            one.settimeout(_CONNECT_S)
            if one.connect_ex(("127.0.0.1", port)) == 0:
                yield port
