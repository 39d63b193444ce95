"""`diachunk serve` as a person and as a service manager live with it, and a fetch that takes from it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.checkpoints import Checkpoint, assert_same_files
from fixtures.command_line import COMMAND, dia, events_of, origin, run
from fixtures.settings import write_config

__all__ = ["dia", "origin"]

pytestmark = pytest.mark.loopback


class Daemon:
    """A `serve` in a process of its own."""

    def __init__(self, store: Path, log: Path, *words: str, **environment: str) -> None:
        self.log = log
        self._out = log.open("w")
        self.process = subprocess.Popen(
            [*COMMAND, "serve", "--no-discover", *words],
            stdout=subprocess.PIPE,
            stderr=self._out,
            text=True,
            env={**os.environ, "DIACHUNK_HOME": str(store), **environment},
        )

    @property
    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def until(self, pattern: str, at_most_s: float = 20.0) -> re.Match[str]:
        """Waits for a line of the log."""
        until = time.monotonic() + at_most_s
        while time.monotonic() < until:
            found = re.search(pattern, self.log.read_text(), re.MULTILINE)
            if found:
                return found
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} in: {self.log.read_text()}")

    @property
    def port(self) -> int:
        return int(self.until(r"on port (\d+)")[1])

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(15)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self._out.close()


@pytest.fixture
def store(dia: Checkpoint, tmp_path: Path) -> Path:
    root = tmp_path / "served"
    made = run(
        "publish", *(f"{part}={dia.root / part}" for part in ("model", "vocoder")),
        "--name", "lab/dia", DIACHUNK_HOME=str(root),
    )  # fmt: skip
    assert made.returncode == 0
    return root


@pytest.fixture
def daemon(store: Path, tmp_path: Path) -> Iterator[Daemon]:
    one = Daemon(store, tmp_path / "log", "--host", "127.0.0.1", "--port", "0")
    yield one
    one.close()


def test_it_says_what_it_shares_a_fetch_takes_it_and_it_stops_cleanly(
    dia: Checkpoint, daemon: Daemon, tmp_path: Path
) -> None:
    port = daemon.port
    daemon.until("^on this machine, for another store: ")
    first, second, third, fourth = daemon.lines[:4]
    assert re.fullmatch(r"sharing 1 checkpoint, 6\.1 MB, from .*/served", first)
    assert second == f"  on port {port} of 127.0.0.1"
    assert "; no secret; not looking for others" in third
    assert fourth == f"on this machine, for another store: `diachunk fetch lab/dia --peer 127.0.0.1:{port}`"
    done = run("fetch", "lab/dia", "--peer", f"127.0.0.1:{port}")
    assert done.returncode == 0, done.stderr
    assert_same_files(Path(done.stdout.strip()), dia)
    assert re.search(rf"^lab/dia@main is .*: 127\.0\.0\.1:{port} says so, named by you$", done.stderr, re.M)
    assert "6.1 MB from 1 peer" in done.stderr
    assert daemon.stop() == 0
    assert daemon.lines[-1].endswith(" stopped")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_success(daemon: Daemon, number: int) -> None:
    daemon.until("^on this machine, for another store")
    assert daemon.stop(number) == 0


def test_a_second_serve_of_the_store_and_a_taken_port_are_one_clear_line(
    store: Path, daemon: Daemon, tmp_path: Path
) -> None:
    port = daemon.port
    again = run("serve", "--port", "0", "--no-discover", DIACHUNK_HOME=str(store))
    assert again.returncode == 6
    assert f"is served already by process {daemon.process.pid} on port {port}" in again.stderr
    words = ("serve", "--host", "127.0.0.1", "--port", str(port), "--no-discover")
    taken = run(*words, DIACHUNK_HOME=str(tmp_path / "other"))
    assert taken.returncode == 2
    assert taken.stderr.startswith(f"diachunk: port {port} is taken by process {daemon.process.pid} (")
    daemon.process.kill()
    daemon.process.wait()
    alone = Daemon(store, tmp_path / "log2", "--host", "127.0.0.1", "--port", str(port))
    assert alone.port == port, "a killed one holds neither the port nor the store"
    assert alone.stop() == 0
    alone.close()


def test_a_fetch_beside_it_shares_through_it_and_it_tells_of_what_appears(
    dia: Checkpoint, daemon: Daemon, tmp_path: Path
) -> None:
    from_port = daemon.port
    beside = tmp_path / "beside"
    second = Daemon(beside, tmp_path / "log2", "--host", "127.0.0.1", "--port", "0")
    try:
        port = second.port
        assert "nothing is here yet" in second.until("nothing is here yet.*")[0]
        done = run(
            "fetch", "lab/dia", "--peer", f"127.0.0.1:{from_port}", "--linger", "0",
            DIACHUNK_HOME=str(beside), DIACHUNK_SHARE="true",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"; sharing through the `diachunk serve` on port {port}" in done.stderr
        second.until("lab/dia@main is (complete: 6.1 MB|new here: 100% of 6.1 MB)")
    finally:
        second.close()


def test_a_store_that_is_taken_away_is_told_as_that_and_shared_again_when_it_is_back(
    store: Path, daemon: Daemon, tmp_path: Path
) -> None:
    daemon.until("^on this machine, for another store")
    store.rename(tmp_path / "unmounted")
    daemon.until(f"warning: the store {store} is not there any more: nothing is shared until it is back")
    assert "was removed" not in daemon.log.read_text()
    (tmp_path / "unmounted").rename(store)
    daemon.until("the store is back")
    daemon.until("lab/dia@main is new here: 100%")
    assert daemon.stop() == 0


def test_sighup_reads_the_settings_again_and_wrong_ones_change_nothing(daemon: Daemon, base: Path) -> None:
    port = daemon.port
    daemon.until("^on this machine, for another store")
    write_config(base, {}, 'nonsense = "yes"')
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until("warning: SIGHUP: the settings stay as they were: .*nonsense")
    assert daemon.process.poll() is None
    write_config(base, {}, 'allow = ["198.51.100.0/24"]\nmax_up = "8Mbit"')
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(r"directly connected networks, and 198\.51\.100\.0/24; .*; gives 1\.0 MB/s at most")
    assert daemon.process.poll() is None
    assert port


def test_a_service_manager_hears_when_it_is_ready_and_that_it_lives(store: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        words = ("--host", "127.0.0.1", "--port", "0")
        settings = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"}
        one = Daemon(store, tmp_path / "log", *words, **settings)
        try:
            ready = manager.recv(4096).decode()
            assert ready.startswith("READY=1\nSTATUS=sharing 1 checkpoint, 6.1 MB on port ")
            assert f"MAINPID={one.process.pid}" in ready
            assert manager.recv(4096) == b"WATCHDOG=1"
            one.process.send_signal(signal.SIGTERM)
            heard = [manager.recv(4096)]
            while not heard[-1].startswith(b"STOPPING=1"):
                heard.append(manager.recv(4096))
            assert one.process.wait(15) == 0
        finally:
            one.close()


def test_everybody_without_a_secret_and_hidden_checkpoints_are_warned_of(
    store: Path, dia: Checkpoint, tmp_path: Path
) -> None:
    made = run("publish", dia.root / "vocoder", "--name", "lab/own", "--private", DIACHUNK_HOME=str(store))
    assert made.returncode == 0, made.stderr
    one = Daemon(store, tmp_path / "log", "--port", "0", "--allow", "0.0.0.0/0")
    try:
        one.until("warning: everybody who reaches this machine may take what it shares")
        one.until("warning: 1 private checkpoint is not shared")
    finally:
        one.close()


def test_peers_lists_who_is_there_what_they_hold_and_how_fast_they_were(daemon: Daemon) -> None:
    there = f"127.0.0.1:{daemon.port}"
    shown = run("peers", "--peer", there)
    assert shown.returncode == 0
    head, line, held = shown.stdout.splitlines()
    assert head.split() == ["machine", "known", "by", "diachunk", "gave", "last"]
    assert line.split()[:2] == [there, "named"]
    assert held == "    lab/dia@main: complete, 6.1 MB"
    assert run("fetch", "lab/dia", "--peer", there).returncode == 0
    listed: list[dict[str, Any]] = events_of(run("peers", "--peer", there, "--json").stdout)
    (peer,) = listed[0]["peers"]
    assert (peer["address"], peer["how"], peer["trouble"]) == (there, "named", "")
    assert peer["rate_bps"] > 0
    assert peer["checkpoints"][0]["name"] == "lab/dia"


def test_peers_says_what_to_do_when_nobody_is_there() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        shown = run("peers", "--peer", f"127.0.0.1:{closed.getsockname()[1]}")
    assert shown.returncode == 0
    assert "connection refused" in shown.stdout
    assert "no machine that shares was found" in shown.stderr
    assert "diachunk serve" in shown.stderr


def test_peers_does_not_say_that_nobody_is_there_of_machines_that_want_a_secret(
    store: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a secret that the lab shares\n")
    secret.chmod(0o600)
    words = ("--host", "127.0.0.1", "--port", "0")
    one = Daemon(store, tmp_path / "log", *words, DIACHUNK_TOKEN_FILE=str(secret))
    try:
        shown = run("peers", "--peer", f"127.0.0.1:{one.port}")
    finally:
        one.close()
    assert "wants the lab's secret; this machine has none" in shown.stdout
    assert "no machine" not in shown.stderr
    assert "token_file" in shown.stderr


def test_json_says_everything_that_lines_say(store: Path, tmp_path: Path) -> None:
    one = Daemon(store, tmp_path / "log", "--host", "127.0.0.1", "--port", "0", "--json")
    try:
        assert one.process.stdout is not None
        first = json.loads(one.process.stdout.readline())
        assert (first["v"], first["event"], first["addresses"]) == (1, "serving", ["127.0.0.1"])
        assert first["checkpoints"][0]["have_bytes"] == first["checkpoints"][0]["total_bytes"]
        assert one.stop() == 0
        last = one.process.stdout.read().splitlines()[-1]
        assert json.loads(last)["text"] == "stopped"
    finally:
        one.close()
