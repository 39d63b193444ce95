"""`diachunk run`: all is here and in its place, then the program is this process: codes, signals, environment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diachunk.cli.run import NOT_EXECUTABLE, NOT_FOUND, CannotStart, find_program
from diachunk.testing.bad_server import refused_port
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import assert_same_files
from fixtures.command_line import COMMAND
from fixtures.preload import Project
from fixtures.settings import QUICK, write_config

PYTHON = sys.executable
TELL = (
    "import json, os, signal, sys; "
    "print(json.dumps([sys.argv[1:], {k: v for k, v in os.environ.items() if 'OFFLINE' in k}, os.getcwd()]))"
)


def test_it_fetches_then_becomes_the_program_offline(project: Project) -> None:
    done = project.run("run", "--", PYTHON, "-c", TELL, "--debug", "--json", "-h", "--", "a b")
    assert done.returncode == 0
    (line,) = done.stdout.splitlines()
    arguments, offline, directory = json.loads(line)
    assert arguments == ["--debug", "--json", "-h", "--", "a b"]
    assert offline == {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    assert directory == str(project.directory)
    assert "300.0 kB to fetch" in done.stderr
    assert project.lock.exists()


def test_with_everything_here_it_says_one_line(project: Project) -> None:
    assert project.run("fetch", "-q").returncode == 0
    done = project.run("run", "true")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "2 checkpoints, 500.0 kB: all here\n"
    assert project.run("run", "-q", "true").stderr == ""


def test_what_the_set_places_is_placed_before_it_starts(project: Project) -> None:
    project.write([{"target": "./one.json", "places": ["./shown"]}, "./two.json"])
    done = project.run("run", "--", "ls", "shown/model")
    assert (done.returncode, done.stdout) == (0, "weights.bin\n")
    assert_same_files(project.directory / "shown", project.one)


def test_places_for_all_hold_where_they_fit(project: Project) -> None:
    project.write(extra='places = ["hub", "./shown"]')
    done = project.run("run", "--", "ls", "shown")
    assert (done.returncode, done.stdout) == (2, "")
    assert "model of lab/one@main and of lab/two@main cannot both go there" in done.stderr
    assert_same_files(project.directory / "shown", project.one)
    project.write(["./one.json"], 'places = ["hub", "./shown"]')
    done = project.run("run", "--", "ls", "shown")
    assert (done.returncode, done.stdout) == (0, "model\nvocoder\n")


@pytest.mark.parametrize("code", [0, 1, 5, 42, 255])
def test_the_exit_code_is_the_programs(project: Project, code: int) -> None:
    assert project.run("run", "-q", "--", "sh", "-c", f"exit {code}").returncode == code


def test_signals_are_the_programs(project: Project) -> None:
    assert project.run("fetch", "-q").returncode == 0
    script = "import os, signal, sys; print(os.getpid(), flush=True); signal.sigwait({signal.SIGUSR1}); sys.exit(9)"
    block = f"import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGUSR1}}); {script}"
    running = project.start("run", "-q", "--", PYTHON, "-c", block)
    assert running.stdout is not None
    assert int(running.stdout.readline()) == running.pid, "one process: whoever started it can stop it"
    running.send_signal(signal.SIGUSR1)
    assert running.wait(20) == 9
    killed = project.start(
        "run", "-q", "--", PYTHON, "-c", "import time; print(1, flush=True); time.sleep(60)"
    )
    assert killed.stdout is not None
    killed.stdout.readline()
    killed.send_signal(signal.SIGTERM)
    assert killed.wait(20) == -signal.SIGTERM
    for each in (running, killed):
        each.communicate()


def test_no_signal_comes_ignored_or_blocked_to_the_program(project: Project) -> None:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("no /proc here")
    done = project.run("run", "-q", "--", "grep", "-E", "^Sig(Ign|Blk)", str(status))
    plain = subprocess.run(["grep", "-E", "^Sig(Ign|Blk)", str(status)], capture_output=True, text=True)
    assert done.stdout == plain.stdout


def test_what_nohup_ignores_stays_ignored(project: Project) -> None:
    words = [
        "run",
        "-q",
        "--",
        PYTHON,
        "-c",
        "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)",
    ]
    nohup = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *COMMAND, *words]
    done = subprocess.run(nohup, capture_output=True, text=True, cwd=project.directory)
    assert done.stdout == "True\n"


def test_standard_streams_go_through(project: Project) -> None:
    assert project.run("fetch", "-q").returncode == 0
    done = subprocess.run(
        [*COMMAND, "run", "--", "sh", "-c", "cat; echo oops >&2"],
        input=b"\x00\xffbytes",
        capture_output=True,
        cwd=project.directory,
    )
    assert done.stdout == b"\x00\xffbytes"
    assert done.stderr.endswith(b"all here\noops\n")


# --- programs that cannot be started -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("no-such-program", 127, "no-such-program: no such program"),
        ("./no-such-program", 127, "./no-such-program: no such program"),
        ("./two.json", 126, "./two.json: is not executable"),
        (".", 127, ".: no such program"),
        ("./", 126, "./: is a directory"),
        ("/", 126, "/: is a directory"),
    ],
)
def test_what_cannot_be_started_is_said_before_anything_is_fetched(
    project: Project, name: str, code: int, said: str
) -> None:
    done = project.run("run", "--", name, "x")
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == f"diachunk: {said}\n"
    assert not Path(os.environ["DIACHUNK_HOME"]).exists()


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_programs_are_found_as_execvp_finds_them(tmp_path: Path) -> None:
    good = executable(tmp_path / "b" / "tool", "#!/bin/sh\n")
    plain = tmp_path / "a" / "tool"
    plain.parent.mkdir()
    plain.write_text("")
    (tmp_path / "c" / "tool").mkdir(parents=True)
    path = {"PATH": f"{tmp_path}/a:{tmp_path}/none:{tmp_path}/b"}
    assert find_program("tool", path) == str(good)
    with pytest.raises(CannotStart) as caught:
        find_program("tool", {"PATH": f"{tmp_path}/c:{tmp_path}/a"})
    assert (caught.value.exit_code, str(plain) in caught.value.message) == (NOT_EXECUTABLE, True)
    with pytest.raises(CannotStart) as caught:
        find_program("tool", {"PATH": f"{tmp_path}/c"})
    assert caught.value.exit_code == NOT_FOUND
    assert find_program("sh", {}) in ("/bin/sh", "/usr/bin/sh")
    for name in ("", "a\0b"):
        with pytest.raises(CannotStart) as caught:
            find_program(name, path)
        assert caught.value.exit_code == NOT_FOUND


def test_a_script_without_its_first_line_goes_to_the_shell(project: Project) -> None:
    executable(project.directory / "start", 'echo "got $1"\n')
    done = project.run("run", "-q", "--", "./start", "it")
    assert (done.returncode, done.stdout) == (0, "got it\n")


def test_an_interpreter_that_is_not_there_is_told(project: Project) -> None:
    executable(project.directory / "start", "#!/no/such/interpreter\n")
    done = project.run("run", "-q", "--", "./start")
    assert done.returncode == 127
    assert "cannot start ./start" in done.stderr


# --- when the fetch fails ----------------------------------------------------------------------------------


def test_an_incomplete_set_starts_nothing_and_no_fetch_starts_it_all_the_same(
    project: Project, base: Path
) -> None:
    write_config(base, QUICK)
    nowhere = f"http://127.0.0.1:{refused_port()}"
    project.file.write_text(
        f'checkpoints = [{{target = "./one.json", origins = ["{project.one.root}"]}},'
        f' {{target = "./two.json", origins = ["{nowhere}"]}}]\n'
    )
    done = project.run("run", "--", "echo", "started")
    assert (done.returncode, done.stdout) == (5, "")
    assert "./two.json: " in done.stderr
    before = time.monotonic()
    started = project.run("run", "--no-fetch", "--", "echo", "started")
    assert (started.returncode, started.stdout) == (0, "started\n")
    assert started.stderr == "./two.json: not complete here\n"
    assert time.monotonic() - before < 10


def test_no_fetch_fetches_nothing_and_places_what_is_here(project: Project) -> None:
    project.write(["./one.json"])
    assert project.run("fetch", "-q").returncode == 0
    project.write(["./one.json", "./two.json"], 'places = ["./shown"]')
    done = project.run("run", "--no-fetch", "-q", "--", "ls", "shown")
    assert (done.returncode, done.stdout) == (0, "model\nvocoder\n")
    assert_same_files(project.directory / "shown", project.one)


def test_with_nothing_named_there_is_nothing_to_run_with(project: Project) -> None:
    project.file.unlink()
    done = project.run("run", "--", "echo", "started")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no checkpoints are named" in done.stderr
    assert project.run("run", "--no-fetch", "--", "echo", "started").stdout == "started\n"


def test_locked_starts_only_with_exactly_that(project: Project) -> None:
    missing = project.run("run", "--locked", "--", "echo", "started")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert project.run("fetch", "-q").returncode == 0
    assert project.run("run", "--locked", "--", "echo", "started").stdout == "started\n"
    one, two = project.one.manifest.hex_id, project.two.manifest.hex_id
    project.lock.write_text(project.lock.read_text().replace(one, two))
    tampered = project.run("run", "--locked", "--", "echo", "started")
    assert (tampered.returncode, tampered.stdout) == (7, "")


@pytest.mark.loopback
def test_stopped_while_it_fetches_nothing_is_started(project: Project) -> None:
    with Nginx(project.two.root, rate_bps=100_000) as slow:
        project.file.write_text(f'checkpoints = ["./two.json"]\norigins = ["{slow.url}"]\n')
        running = project.start("run", "--", "echo", "started")
        assert running.stderr is not None
        while "to fetch; not sharing" not in running.stderr.readline():
            pass
        running.send_signal(signal.SIGINT)
        out, said = running.communicate(timeout=30)
    assert (running.returncode, out) == (130, "")
    assert "the program was not started; what is verified is kept" in said
