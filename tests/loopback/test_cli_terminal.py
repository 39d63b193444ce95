"""What a person sees: bars on a terminal, calm lines in a log."""

from __future__ import annotations

import os
import pty
import re
import select
import sys
import time
from pathlib import Path

import pytest

from diachunk.testing.bad_server import refused_port
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import Checkpoint
from fixtures.command_line import COMMAND, dia, origin, run

__all__ = ["dia", "origin"]

pytestmark = pytest.mark.loopback


def test_plain_lines_off_a_terminal_are_calm(dia: Checkpoint, origin: Nginx) -> None:
    bad = f"127.0.0.1:{refused_port()}"
    done = run("fetch", dia.target, "--origin", origin.url, "--origin", f"http://{bad}")
    lines = done.stderr.splitlines()
    assert done.returncode == 0
    assert lines[2] == f"{bad}: connection refused"
    assert lines[3].startswith("fetched 6.1 MB in ")
    assert lines[4].startswith(f"  {bad}: connection refused (")
    assert len(lines) == 5
    assert "\x1b" not in done.stderr

    quiet = run("fetch", dia.target, "-q")
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert len(quiet.stdout.splitlines()) == 1


def on_a_terminal(*words: str, seconds: float = 30.0, **environment: str) -> tuple[int, str]:
    """Runs with stdin, stdout and stderr on a terminal of 80 columns."""
    pid, terminal = pty.fork()
    if pid == 0:
        clean = {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24", **environment}
        os.execve(sys.executable, [*COMMAND, *words], {**os.environ, **clean})
    output = b""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not select.select([terminal], [], [], 1.0)[0]:
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the other side closed it
            break
        output += data
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), output.decode()


def test_a_terminal_shows_bars_and_what_limits(dia: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with Nginx(dia.root, rate_bps=1_200_000) as slow, Nginx(tmp_path / "empty") as empty:
        code, output = on_a_terminal("fetch", dia.target, "--origin", slow.url, "--origin", empty.url)
    assert code == 0
    assert "limited by: " in output
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    assert f"limited by: origin 127.0.0.1:{slow.port}" in text
    assert f"  127.0.0.1:{empty.port}  404 Not Found" in text
    assert re.search(r"model    ━+─+ +\d+% ", text)
    assert re.search(r"vocoder  ━+ +100% +0 B +1\.2 MB +0 B +done", text)
    assert max(len(line.rstrip()) for line in re.split(r"[\r\n]+", text) if "snapshots" not in line) < 80
    assert text.rstrip().splitlines()[-1].endswith(dia.manifest.hex_id)
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h")  # the cursor is back


def test_a_dumb_terminal_gets_plain_lines_and_no_color_is_honoured(dia: Checkpoint, origin: Nginx) -> None:
    words = ("fetch", dia.target, "--origin", origin.url)
    _, plain = on_a_terminal(*words, TERM="dumb")
    assert "fetched 6.1 MB in " in plain
    assert "\x1b" not in plain
    assert "━" not in plain
    _, output = on_a_terminal(*words, NO_COLOR="1", DIACHUNK_HOME=os.environ["DIACHUNK_HOME"] + "2")
    assert "━" in output
    assert not re.search(r"\x1b\[(3[0-7]|9[0-7]|38)", output)
