"""`diachunk run` with everything here: no network, no data read, no time lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from diachunk.testing.servers import Nginx
from fixtures.command_line import COMMAND
from fixtures.preload import Project

PYTHON = sys.executable

_NO_NETWORK = """
import socket
def refuse(*arguments, **more):
    raise SystemExit("asked the network")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from diachunk.cli.main import run
run()
"""


def blobs() -> list[Path]:
    found = (Path(os.environ["DIACHUNK_HOME"]) / "blobs").glob("??/*")
    return [each for each in found if len(each.name) == 64]


def flip_unseen(path: Path) -> None:
    """Changes a byte as only a failing disk could: whoever reads the file would notice, nobody else."""
    before = path.stat()
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[0] ^= 0xFF
    with path.open("r+b") as file:
        file.write(data)
    path.chmod(before.st_mode & 0o7777)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_with_everything_here_it_needs_no_network_and_reads_no_data(project: Project) -> None:
    with Nginx(project.directory) as web:
        target = f"{web.url}/two.json"
        project.write(["./one.json", target])
        assert project.run("fetch", "-q").returncode == 0
    assert target in project.lock.read_text()
    for blob in blobs():
        flip_unseen(blob)
    command = [PYTHON, "-c", _NO_NETWORK, "run", "--", "echo", "started"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=project.directory)
    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr
    for stamp in (Path(os.environ["DIACHUNK_HOME"]) / "blobs").glob("??/*.stamp"):
        stamp.unlink()
    unproven = subprocess.run(command, capture_output=True, text=True, cwd=project.directory)
    assert unproven.stdout == "started\n"
    assert "fetched" in unproven.stderr, (
        "without proof it is read, found damaged, and mended from the directories"
    )


def test_its_own_time_is_under_half_a_second(project: Project) -> None:
    assert project.run("fetch", "-q").returncode == 0
    script = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime)"
    )
    seconds = []
    for _ in range(3):
        words = [PYTHON, "-c", script, *COMMAND, "run", "-q", "--", "true"]
        done = subprocess.run(words, capture_output=True, text=True, cwd=project.directory, check=True)
        seconds.append(float(done.stdout))
    assert min(seconds) < 1.0, "CPU seconds, of 0.3 on an idle machine; others may be at work on this one"
