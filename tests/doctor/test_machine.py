"""The machine: descriptors, temporary directories, ports."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from diachunk.api.checkup import linux, ports
from diachunk.api.checkup.base import Finding, Level, Patient
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


HOLD = """
import socket, sys
one = socket.create_server(("127.0.0.1", 0))
print(one.getsockname()[1], flush=True)
sys.stdin.read()
"""


def found_beside(monkeypatch: pytest.MonkeyPatch, script: Path, *words: str) -> tuple[Finding, int]:
    """What is said of the one port that a program has; and its process. Not of those that sharing uses: tests that
    run side by side take them, too.
    """
    script.parent.mkdir()
    script.write_text(HOLD)
    command = [sys.executable, f"{script.parent.name}/{script.name}", *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=script.parent.parent) as program:
        assert program.stdout is not None
        port = int(program.stdout.readline())
        monkeypatch.setattr(ports, "PORTS", range(port, port + 2))
        try:
            (finding,) = ports.ports(Patient({}))
        finally:
            program.kill()
    return finding, program.pid


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody says who listens")
def test_one_port_that_is_taken_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by what lies in a directory of our name: a clone of the project, or a notebook about it."""
    finding, pid = found_beside(monkeypatch, tmp_path / "diachunk" / "notebook.py", "diachunk")
    assert finding.level is Level.NOTE
    assert f"by process {pid} (" in finding.what


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody says who listens")
def test_a_port_that_our_own_program_has_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding, _ = found_beside(monkeypatch, tmp_path / "programs" / "diachunk", "serve")
    assert finding.level is Level.OK


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        (["/usr/bin/python3.11", "/opt/bin/diachunk", "serve"], True),
        (["/opt/bin/diachunk", "serve"], True),
        (["python", "-X", "dev", "-m", "diachunk", "serve"], True),
        (["/home/me/diachunk/.venv/bin/python", "-c", "pass"], False),
        (["/home/me/diachunk/.venv/bin/python", "/home/me/diachunk/train.py"], False),
        (["code", "/home/me/diachunk"], False),
        (["python", "-m", "diachunk.simulate"], False),
        ([""], False),
    ],
)
def test_which_command_lines_are_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], ours: bool
) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cmdline").write_text("".join(f"{word}\0" for word in words))
    monkeypatch.setattr(linux, "_PROC", tmp_path)
    assert linux.process(7).is_diachunk == ours
