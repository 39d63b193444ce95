"""The machine: descriptors, temporary directories, ports."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.doctored import call, cured, diagnose, read


def test_too_few_files_may_be_open() -> None:
    done = call("sh", "-c", "ulimit -Sn 64 && diachunk doctor --json --offline")
    finding = read(done).the("only 64 files may be open", "warning")
    again = call("sh", "-c", f"ulimit -Sn 64; {finding['cure']}; diachunk doctor --json --offline")
    assert not read(again).about("files may be open")


@pytest.mark.parametrize("kind", ["gone", "a file"])
def test_a_temporary_directory_that_cannot_be_used(tmp_path: Path, kind: str) -> None:
    where = tmp_path / "scratch"
    if kind == "a file":
        where.touch()
    finding = diagnose("--offline", TMPDIR=str(where)).the("TMPDIR is", "warning")
    assert not cured(finding, "--offline", TMPDIR=str(where)).about("TMPDIR")


def test_versions_are_told() -> None:
    told = [each["what"] for each in diagnose("--offline").findings if each["area"] == "machine"]
    assert any("Python 3" in each and "SSL" in each for each in told)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody says who listens")
def test_ports_for_sharing_that_others_have_are_named_with_their_process() -> None:
    script = "import socket, sys, time\nkept = []\nfor port in range(8420, 8430):\n    kept.append(socket.socket())\n"
    script += "    kept[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
    script += "    try: kept[-1].bind(('127.0.0.1', port)); kept[-1].listen()\n    except OSError: pass\n"
    script += "print(flush=True)\ntime.sleep(60)\n"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as hog:
        assert hog.stdout is not None
        hog.stdout.readline()
        try:
            finding = diagnose("--offline").the("are all taken", "warning")
            assert f"process {hog.pid} " in finding["what"]
            assert finding["cure"].startswith(f"kill {hog.pid} ")
            assert not cured(finding, "--offline").about("all taken")
            assert hog.wait(10) == -signal.SIGTERM
        finally:
            hog.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody says who listens")
def test_one_port_that_is_taken_is_a_note() -> None:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", 8423))
        one.listen()
        note = diagnose("--offline").the("8423 by", "note")
        assert f"process {os.getpid()} " in note["what"]
