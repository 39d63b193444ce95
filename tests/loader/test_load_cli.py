"""diachunk load: the verb."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.text import Text

from diachunk.cli.load_view import LoadTally, picture, show_load
from diachunk.cli.talk import Talk
from diachunk.loader.events import LoadPlan, LoadProgress, LoadStatus
from diachunk.transfer.progress import SourceStatus, Status
from fixtures import damage
from fixtures.checkpoints import Checkpoint
from fixtures.command_line import events_of
from fixtures.tensors import blob_of, made, pth, safetensors, stored, weights

FILES = {"model": "model/model.safetensors", "vocoder": "vocoder/w.pth"}
SCRIPT = """
from diachunk.cli import load, main
if "load" not in main.GROUPS["daily"]:
    main.app.command("load")(load.load)
main.run()
"""


def run(*words: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DIACHUNK_HOME": str(home), "PYTHONWARNINGS": "default"}
    command = [sys.executable, "-c", SCRIPT, "load", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)


@pytest.fixture
def held(tmp_path: Path, home: Path) -> Checkpoint:
    files = {FILES["model"]: safetensors(weights()), FILES["vocoder"]: pth(weights(seed=1))}
    return stored(tmp_path / "files", home, files)


def test_load_says_what_it_does_and_how_long_it_took(held: Checkpoint, home: Path) -> None:
    done = run(held.target, "-c", "model", "--device", "cpu", "--dtype", "bf16", "--always", home=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"loaded {len(weights())} tensors, ")
    assert " on cpu as bfloat16, in " in done.stdout
    assert "model: 14 tensors, 6.5 MB to read, 6.5 MB to hash; onto cpu as bfloat16" in done.stderr
    assert "hashed" in done.stderr
    assert "memory: this process at most" in done.stderr


def test_json_has_plan_progress_and_books(held: Checkpoint, home: Path) -> None:
    done = run(held.target, "-c", "vocoder", "--device", "cpu", "--json", "--always", home=home)
    assert done.returncode == 0, done.stderr
    events = events_of(done.stdout)
    kinds = [event["event"] for event in events]
    assert kinds[0] == "plan"
    assert kinds[-1] == "done"
    assert "progress" in kinds
    plan, books = events[0], events[-1]
    assert plan["total_bytes"] == books["total_bytes"]
    assert plan["hashed_bytes"] == books["verified_bytes"]
    assert events[-2]["done_bytes"] == plan["total_bytes"]
    assert set(books["stages_s"]) == {"reading", "hashing", "casting", "copying", "the network"}


def test_several_components_exit_2_and_damage_4(held: Checkpoint, home: Path) -> None:
    asked = run(held.target, home=home)
    assert (asked.returncode, asked.stdout) == (2, "")
    assert "model, vocoder" in asked.stderr
    damage.flip(blob_of(held, home, FILES["model"]))
    damaged = run(held.target, "-c", "model", "--device", "cpu", home=home)
    assert (damaged.returncode, damaged.stdout) == (4, "")
    assert f"diachunk verify {held.target} --repair" in damaged.stderr
    mended = run(held.target, "-c", "model", "--repair", "--origin", held.root, home=home)
    assert mended.returncode == 0, mended.stderr
    assert "mended: model/model.safetensors" in mended.stderr


def test_what_is_not_loadable_exits_8(held: Checkpoint, home: Path, tmp_path: Path) -> None:
    elsewhere = run(held.target, "-c", "model", home=tmp_path / "other")
    assert elsewhere.returncode == 8
    assert f"diachunk fetch {held.target}" in elsewhere.stderr


def test_fetch_brings_what_is_not_here(tmp_path: Path, home: Path) -> None:
    there = made(tmp_path / "files", {FILES["model"]: safetensors(weights())})
    done = run(there.target, "--fetch", "--origin", there.root, "--device", "cpu", "-q", home=home)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("loaded 14 tensors")


# --- the picture -----------------------------------------------------------------------------------------------


def tally(clock: float = 0.0) -> LoadTally:
    return LoadTally(lambda: clock)


def lines_of(shown: LoadTally, width: int = 80) -> list[str]:
    lines = list(picture(shown, width))
    assert all(isinstance(line, Text) and len(line.plain) < width for line in lines)
    return [line.plain for line in lines]


def test_the_picture_shows_stages_limits_and_memory() -> None:
    shown = tally()
    assert lines_of(shown) == ["starting"]
    shown.take(LoadPlan("model", "cuda:0", "bfloat16", 3, 1000, 1000, 500, 0, 500, 0, None))
    shown.take(LoadProgress(250, "model", read_bytes=1000, verified_bytes=500))
    shown.take(LoadStatus("model", 750, 100.0, "hashing", 7_000_000, 9_000_000))
    read, verified, device, last = lines_of(shown)
    assert "100%" in read
    assert "100%" in verified
    assert device.startswith("on cuda:0")
    assert "25%" in device
    assert last == "limited by: hashing 100 B/s; memory: 7.0 MB; cuda:0: 9.0 MB"
    assert "read 100%" in shown.line()


def test_the_picture_says_that_it_waits_for_the_fetch() -> None:
    shown = tally()
    shown.take(Status(600, 50.0, 12.0, "origin example.org", ()))
    shown.take(LoadProgress(0, "model", fetched_bytes=400))
    fetched, last = lines_of(shown)
    assert fetched.startswith("fetched")
    assert "40%" in fetched
    assert last == "fetch: about 10 s left; limited by: origin example.org 50 B/s"


def test_a_load_where_nothing_comes_says_for_how_long() -> None:
    now = 0.0
    shown = LoadTally(lambda: now)
    now = 9.0
    assert lines_of(shown) == ["nothing for 9 s: starting PyTorch"]
    shown.take(Status(600, 0.0, None, "", ()))
    assert "waiting for the header" in lines_of(shown)[-1]


def test_a_fetch_that_gives_nothing_is_told_with_whom_it_waits_for_and_what_they_did() -> None:
    now = 0.0
    tally = LoadTally(clock=lambda: now)
    tally.take(Status(100, 0.0, None, "", (SourceStatus("files.example.org", 0.0, 2, 0, ""),)))
    now = 4.0
    assert tally.explanation() == "nothing for 4 s: waiting for an answer from files.example.org"
    tally.take(Status(100, 0.0, None, "", (SourceStatus("files.example.org", 0.0, 1, 0, "403 Forbidden"),)))
    assert tally.explanation() == "nothing for 4 s: files.example.org: 403 Forbidden"


def test_a_load_that_fetches_says_how_long_the_fetch_will_take() -> None:
    now = 0.0
    tally = LoadTally(clock=lambda: now)
    tally.take(Status(600_000_000, 2_000_000.0, 300.0, "the network", ()))
    limits = "limited by: the network 2.0 MB/s"
    assert tally.explanation() == f"fetch: about 5 min left; {limits}"
    assert tally.line() == f"fetched 0%; fetch: about 5 min left; {limits}"
    assert "fetch: about 5 min left" in lines_of(tally)[-1]
    tally.take(Status(600_000_000, 2_000_000.0, None, "the network", ()))
    assert tally.explanation() == limits  # nobody can tell yet
    tally.take(Status(600_000_000, 2_000_000.0, 300.0, "the network", ()))
    now = 9.0
    assert "left" not in tally.explanation()  # nothing comes: an estimate of before is no more one
    tally.take(LoadProgress(0, "model", fetched_bytes=600_000_000))
    tally.take(Status(0, 2_000_000.0, 0.0, "the network", ()))
    assert "left" not in tally.explanation()


def test_json_of_a_load_that_fetches_says_how_long_the_fetch_will_take(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with show_load(Talk(as_json=True), lambda talk, plan: None) as listen:
        listen(Status(600, 2.0, 300.04, "the network", ()))
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["fetch_eta_s"] == 300.0


@pytest.mark.parametrize("width", [20, 40, 200])
def test_the_picture_fits_any_window(width: int) -> None:
    shown = tally()
    shown.take(LoadPlan("model", "cpu", "", 3, 10**12, 10**12, 10**12, 0, 10**12, 0, None))
    shown.take(LoadStatus("model", 10**12, 1e9, "reading the files", 10**12, 0))
    lines_of(shown, width)
