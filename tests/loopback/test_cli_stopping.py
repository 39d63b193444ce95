"""Ctrl-C, and Ctrl-C again while the first one's orderly end takes its time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_SAID = "diachunk: stopped at once, without waiting for what was under way; what is verified is kept"
_SLOW = """
import sys, threading, time
from diachunk.cli import main
from diachunk.cli.options import Json

def slow(as_json: Json = False) -> None:
    try:
        print("working", file=sys.stderr, flush=True)
        time.sleep(100)
    finally:
        print("ending", file=sys.stderr, flush=True)
        time.sleep(100)

def thread(as_json: Json = False) -> None:
    threading.Thread(target=time.sleep, args=(100,)).start()
    print("working", file=sys.stderr, flush=True)
    time.sleep(100)

main.app.command("slow")(slow)
main.app.command("thread")(thread)
main.run()
"""


@pytest.fixture
def slow(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A verb at work whose end takes longer than anybody waits."""
    command = [sys.executable, "-c", _SLOW, *request.param]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "working\n"
    yield process
    process.kill()
    process.communicate()


def stopped_again(process: subprocess.Popen[str], number: signal.Signals) -> tuple[str, str]:
    """Signals until it ends, as a person does who becomes impatient; what it said from the first on."""
    assert process.stderr is not None
    process.send_signal(signal.SIGINT)
    first = process.stderr.readline()
    for _ in range(100):
        try:
            said, errors = process.communicate(timeout=0.2)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        else:
            return said, first + errors
    raise AssertionError("does not end")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("slow", [["slow"]], indirect=True)
def test_a_second_stop_ends_it_at_once_and_says_so_in_a_line(
    slow: subprocess.Popen[str], number: signal.Signals
) -> None:
    said, errors = stopped_again(slow, number)
    assert (slow.returncode, said) == (130, "")
    assert errors.splitlines() == ["ending", _SAID]


@pytest.mark.parametrize("slow", [["thread"]], indirect=True)
def test_also_where_only_a_thread_is_waited_for_after_the_last_word(slow: subprocess.Popen[str]) -> None:
    _, errors = stopped_again(slow, signal.SIGINT)
    assert slow.returncode == 130
    assert errors.splitlines() == ["diachunk: stopped", _SAID]


@pytest.mark.parametrize("slow", [["slow", "--json"]], indirect=True)
def test_programs_are_told_by_an_event(slow: subprocess.Popen[str]) -> None:
    said, errors = stopped_again(slow, signal.SIGINT)
    assert (slow.returncode, errors) == (130, "ending\n")
    told = json.loads(said)
    assert (told["v"], told["event"], told["exit_code"]) == (1, "error", 130)
    assert told["message"] == "stopped at once, without waiting for what was under way"
    assert told["hint"] == "what is verified is kept"


def test_a_stop_that_is_sent_twice_is_one(tmp_path: Path) -> None:
    """A terminal sends it to the whole group; starters (npx, uv run, make) pass it on as well."""
    script = """
import signal
from diachunk.cli.stopping import Stopping

now = 0.0
stopping = Stopping(as_json=False, clock=lambda: now)
stops = 0
for now in (10.0, 10.1, 10.4):
    try:
        stopping(signal.SIGINT, None)
    except KeyboardInterrupt:
        stops += 1
print(stops, flush=True)
now = 10.6
stopping(signal.SIGINT, None)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (130, "1\n")
    assert done.stderr.splitlines() == [_SAID]


@pytest.mark.parametrize("slow", [["slow"]], indirect=True)
def test_one_stop_alone_waits(slow: subprocess.Popen[str]) -> None:
    assert slow.stderr is not None
    slow.send_signal(signal.SIGINT)
    assert slow.stderr.readline() == "ending\n"
    with pytest.raises(subprocess.TimeoutExpired):
        slow.wait(timeout=1)
