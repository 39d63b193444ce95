"""The command line as a process: help, start-up, completion, and what becomes of errors. No network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diachunk.cli.main import GROUPS
from diachunk.cli.pace import recall, remember
from diachunk.version import __version__
from fixtures.settings import clean_environment

HEAVY = ("urllib3", "rich", "diachunk.api", "diachunk.transfer", "blake3", "asyncio", "concurrent.futures")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "diachunk", *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, env={**os.environ, **environment}
    )


def complete(line: str) -> list[str]:
    words = line.split(" ")
    position = str(len(words) - 1)
    done = run(_DIACHUNK_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=position)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("diachunk load dia-1.6b -c ", ["model", "vocoder"]),
        ("diachunk load dia-1.6b --device ", ["auto", "cpu", "cuda", "mps"]),
        ("diachunk load dia-1.6b --dtype b", ["bf16"]),
        ("diachunk place dia-1.6b --into ", ["hub", "descript", "dia"]),
        ("diachunk place dia-1.6b --link-mode h", ["hardlink"]),
    ],
)
def test_what_an_option_takes_is_offered_also_before_anything_is_here(
    line: str, offered: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIACHUNK_HOME", str(tmp_path / "none"))
    assert complete(line) == offered


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_shows_the_whole_tool_on_one_screen(flag: str) -> None:
    done = run(flag)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert len(lines) <= 23  # and the prompt after it
    assert max(map(len, lines)) < 80
    table = [line.split()[:2] for line in lines[lines.index("Commands:") + 1 :]]
    shown: dict[str, list[str]] = {}
    for first, second in table:
        if first in GROUPS:
            shown[first] = [second]
        else:
            shown[list(shown)[-1]].append(first)
    assert {group: tuple(verbs) for group, verbs in shown.items()} == GROUPS


def test_help_imports_nothing_heavy_and_is_instant() -> None:
    probe = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from diachunk.cli.main import run\n"
        "try: run()\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    best_s = 9.0
    for _ in range(4):
        before = os.times()
        done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
        after = os.times()  # CPU seconds: other tests run at the same time
        spent_s = after.children_user + after.children_system - before.children_user - before.children_system
        best_s = min(best_s, spent_s)
    assert done.stderr.strip() == "[]"
    assert best_s < 0.3


@pytest.mark.parametrize("verb", [verb for verbs in GROUPS.values() for verb in verbs])
def test_every_verb_explains_itself_without_pythons_names_for_types(verb: str) -> None:
    done = run(verb, "-h")
    assert done.returncode == 0
    assert ("--json" in done.stdout) is (verb != "run"), "what `run` starts has stdout to itself"
    assert "<str>" not in done.stdout
    assert "Arguments:" not in done.stdout


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("fetch", "[TARGET]"),
        ("place", "TARGET"),
        ("publish", "SOURCE..."),
        ("diff", "A B"),
        ("verify", "[TARGET]..."),
        ("run", "PROGRAM [ARGS]..."),
    ],
)
def test_the_usage_line_reads_as_in_a_man_page(verb: str, arguments: str) -> None:
    assert run(verb, "-h").stdout.splitlines()[0] == f"Usage: diachunk {verb} [OPTIONS] {arguments}"


def test_what_is_for_other_machines_is_shown_and_checked() -> None:
    shown = run("fetch", "-h").stdout
    assert all(word in shown for word in ("--peer", "--max-up", "--linger", "--no-share", "--no-discover"))
    done = run("fetch", "./none.json", "--max-up", "1M", "--linger", "1m", "--no-share", "--no-discover")
    assert "none.json: no such manifest file" in done.stderr
    assert run("fetch", "./none.json", "--peer", "not a host").returncode == 2
    assert "is not HOST[:PORT]" in run("fetch", "./none.json", "--peer", "lab:99999").stderr


def test_version() -> None:
    assert run("--version").stdout == f"diachunk {__version__}\n"


def test_nothing_asked_shows_the_help_and_is_a_usage_error() -> None:
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert "Commands:" in done.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("frobnicate", "no such command 'frobnicate'"),
        ("download", "no such command 'download'. Did you mean 'fetch'?"),
        ("version", "no such command 'version'. Did you mean '--version'?"),
        ("help fetch", "no such command 'help'. Did you mean '--help'?"),
        ("fech", "no such command 'fech'. Did you mean 'fetch'?"),
        ("ls --nope", "no such option: --nope"),
        ("diff a", "missing argument 'B'"),
        ("verify --subset 3/2", "--subset '3/2': K/N is wanted, with 1 <= K <= N"),
        ("fetch x --max-down fast", "'fast' is not a size or rate"),
        ("fetch x --max-up fast", "'fast' is not a size or rate"),
        ("fetch x --linger long", "'long' is not a duration"),
        ("gc --older-than never", "'never' is not a duration"),
        ("fetch", "name a checkpoint to fetch"),
        ("run", "name the program to run"),
        ("run --locked --", "name the program to run"),
        ("fetch --include *.json", "--include needs a TARGET"),
        ("fetch lab/x --exclude *.json", "lab/x: files can be picked of hub:ORG/REPO alone"),
        ("fetch nobody/knows", "nothing here is called nobody/knows"),
        ("fetch ./none.json", "none.json: no such manifest file"),
        ("verify --in /nowhere", "to verify a directory, name the one checkpoint that it should hold"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(line: str, message: str) -> None:
    done = run(*line.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0].startswith(f"diachunk: {message}")
    assert all(rest.startswith("  ") for rest in done.stderr.splitlines()[1:])
    assert "Traceback" not in done.stderr


def test_errors_as_json() -> None:
    for words in (["fetch", "nobody/knows"], ["fetch", "x", "--nope"]):
        done = run(*words, "--json")
        error = json.loads(done.stdout)
        assert (done.returncode, done.stderr) == (2, "")
        assert (error["v"], error["event"], error["exit_code"]) == (1, "error", 2)
        assert error["message"]
        assert "hint" in error


def test_debug_shows_the_traceback_wherever_it_stands() -> None:
    for done in (
        run("--debug", "fetch", "x"),
        run("fetch", "x", "--debug"),
        run("fetch", "x", DIACHUNK_DEBUG="1"),
    ):
        assert done.returncode == 2
        assert "Traceback" in done.stderr


def test_a_bug_is_one_line_and_exits_1(tmp_path: Path) -> None:
    probe = (
        "import sys, diachunk.config as c; sys.argv[1:] = ['config']\n"
        "c.load_config = lambda *_, **__: {}['no\\x1bkey']\n"
        "from diachunk.cli.main import run; run()"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("diachunk: unexpected: KeyError: ")
    assert done.stderr.endswith("; run with --debug for the traceback\n")
    assert "\x1b" not in done.stderr


def test_a_store_from_a_newer_version_exits_6(tmp_path: Path) -> None:
    (tmp_path / "future").mkdir()
    (tmp_path / "future" / "store.json").write_text('{"diachunk_store": 99, "store_id": "0"}')
    done = run("ls", DIACHUNK_HOME=str(tmp_path / "future"))
    assert done.returncode == 6
    assert done.stderr.startswith(f"diachunk: {tmp_path}/future")


def test_a_broken_manifest_exits_3(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"diachunk": 1, "diachunk": 1}')
    done = run("show", str(tmp_path / "x.json"))
    assert done.returncode == 3
    assert "x.json" in done.stderr


def test_a_reader_that_goes_away_is_met_with_silence() -> None:
    read, write = os.pipe()
    os.close(read)
    for words in (["ls"], ["config", "--json"], ["--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "diachunk", *words], stdout=write, stderr=subprocess.PIPE, text=True
        )
        assert (done.returncode, done.stderr) == (1, ""), words
    os.close(write)


def test_an_empty_store_lists_and_verifies_as_nothing() -> None:
    listed, checked = run("ls"), run("verify")
    assert listed.stdout.splitlines()[0] == "no checkpoints here yet"
    assert checked.returncode == 0
    assert checked.stderr == "nothing to check: the store holds no complete file\n"
    assert json.loads(run("ls", "--json").stdout)["checkpoints"] == []


def test_config_says_where_each_value_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "config" / "diachunk" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text('max_down = "10M"\norigins = ["https://h.org/x?token=secret"]\n[limits]\nlanes = 3\n')
    done = run("config")
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert rows["max_down"] == ["10.0", "MB/s", str(file)]
    assert rows["home"][-1] == "DIACHUNK_HOME"
    assert rows["limits.lanes"] == ["3", str(file)]
    assert "limits.stall_s" not in rows
    assert rows["max_up"][-1] == "default"
    assert "secret" not in done.stdout
    settings = json.loads(run("config", "--json").stdout)
    assert settings["settings"]["max_down"] == {"value": 10_000_000, "from": str(file)}
    assert "limits.stall_s" in run("config", "-v").stdout


def test_completion_offers_names_and_components(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"w" * 1000)
    files = [f"model={tmp_path / 'weights.bin'}", f"vocoder={tmp_path / 'weights.bin'}"]
    assert complete("diachunk fetch lab") == []
    assert not (tmp_path / "default-store").exists()
    for name in ("lab/dia", "lab/other", "zoo"):
        assert run("publish", *files, "--name", name, "-q").returncode == 0
    assert run("publish", *files, "--name", "lab/dia", "--revision", "v2", "-q").returncode == 0
    assert complete("diachunk fetch lab/d") == ["lab/dia", "lab/dia@v2"]
    assert complete("diachunk verify zoo l") == ["lab/dia", "lab/dia@v2", "lab/other"]
    assert complete("diachunk rm z") == ["zoo"]
    assert complete("diachunk fetch zoo --component ") == ["model", "vocoder"]
    assert complete("diachunk fetch --to x zoo -c v") == ["vocoder"]
    assert complete("diachunk fetch dia-1.6b -c v") == ["vocoder"], "though nobody fetched it yet"
    assert complete("diachunk fetch dia-1.6b@main.vocoder -c ") == ["vocoder"]
    recipe = tmp_path / "lab.toml"
    recipe.write_text('name = "lab/r"\n[[component]]\nname = "codec"\nhub = "lab/codec"\n')
    assert complete(f"diachunk fetch {recipe} -c ") == ["codec"]
    assert complete("diachunk fe") == ["fetch"]


def test_completion_never_says_an_error(tmp_path: Path) -> None:
    (tmp_path / "default-store").write_text("no directory")
    assert complete("diachunk fetch l") == []
    assert complete("diachunk fetch l -c ") == []


def test_the_last_rate_is_remembered_and_distrusted(tmp_path: Path) -> None:
    assert recall(tmp_path) is None
    remember(tmp_path, 52_000_000, 2.0)
    assert recall(tmp_path) == 26_000_000
    remember(tmp_path, 999, 0.001)  # too little to say anything
    assert recall(tmp_path) == 26_000_000
    for text in ("", "fast", "-5", "0", "9" * 30, "٣"):
        (tmp_path / ".last-rate").write_text(text)
        assert recall(tmp_path) is None
    remember(tmp_path / "nowhere", 52_000_000, 2.0)
