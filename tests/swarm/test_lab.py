"""The lab itself: what it says of its cables is so, and nothing is left of it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from fixtures.lab import GOODPUT, MBIT, Lab, sweep
from fixtures.lab_machine import Machine

pytestmark = pytest.mark.loopback
_SIZE = 5_000_000


def download(machine: Machine, url: str) -> float:
    started_at = time.monotonic()
    assert machine.spawn(["curl", "-sf", "-o", "/dev/null", url]).wait() == 0
    return _SIZE / (time.monotonic() - started_at)


def test_a_cable_carries_at_its_rate_and_is_counted() -> None:
    with Lab({"origin": 50 * MBIT, "node": 50 * MBIT}, 16 << 20) as bed:
        (bed["origin"].folder / "f").write_bytes(bytes(_SIZE))
        bed["origin"].nginx(bed["origin"].folder)
        before = bed.traffic()
        bps = download(bed["node"], f"http://{bed['origin'].host}/f") * 8
        after = bed.traffic()
    assert 0.5 * 50 * MBIT * GOODPUT < bps < 1.1 * 50 * MBIT * GOODPUT  # the first burst passes at once
    for sent, received in (("origin", "node"), ("node", "origin")):
        grown = after[sent].sent - before[sent].sent
        assert grown == pytest.approx(after[received].received - before[received].received, abs=20_000)
    assert _SIZE < after["origin"].sent - before["origin"].sent < 1.05 * _SIZE


def test_multicast_passes_until_it_is_blocked() -> None:
    group = "224.0.0.251"

    def listener(host: str) -> socket.socket:
        heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        heard.bind((group, 5353))
        joined = socket.inet_aton(group) + socket.inet_aton(host)
        heard.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
        heard.settimeout(0.5)
        return heard

    def call() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as calling:
            calling.sendto(b"?", (group, 5353))

    with Lab({"a": None, "b": None}, 1 << 20) as bed, bed["b"].run(partial(listener, bed["b"].host)) as heard:
        # Whether it passes is asked, not how soon: on a busy machine a bridge may take a while to learn of a group.
        assert any(_passes(bed["a"], call, heard) for _ in range(20))
        bed.block_multicast()
        with contextlib.suppress(TimeoutError):  # what was under way
            while heard.recv(16):
                pass
        assert not any(_passes(bed["a"], call, heard) for _ in range(3))


def _passes(sender: Machine, call: Callable[[], None], heard: socket.socket) -> bool:
    sender.run(call)
    try:
        return heard.recv(16) == b"?"
    except TimeoutError:
        return False


_KILLED = """
import os, signal
from fixtures.lab import Lab
bed = Lab({"a": None}, 1 << 20)
bed["a"].spawn(["sleep", "1000"])
print(bed.folder, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_left_is_swept() -> None:
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=60,
    )
    folder = Path(killed.stdout.strip())
    assert folder.name.startswith("diachunk-lab-"), killed.stderr
    sweep()
    assert not folder.exists()
    assert list(Path("/run/netns").glob(f"{folder.name}-*")) == []


def test_nothing_is_left_of_a_lab_that_ended_or_failed_to_start() -> None:
    with Lab({"a": None}, 1 << 20) as bed:
        process = bed["a"].spawn(["sleep", "1000"])
    assert process.returncode == -9
    folder = bed.folder
    assert not folder.exists()
    with pytest.raises(subprocess.CalledProcessError), Lab({"a": 0.0}, 1 << 20):
        pass
    left = [*Path("/run").glob("diachunk-lab-*"), *Path("/run/netns").glob("diachunk-lab-*")]
    assert [each for each in left if f"-{os.getpid()}-" in each.name] == []
