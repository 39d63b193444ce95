"""The command line against a real server: the main job as a person and as a script live through it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from diachunk.testing.bad_server import refused_port
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import Checkpoint, assert_same_files
from fixtures.command_line import COMMAND, dia, events_of, origin, run
from fixtures.settings import QUICK, write_config

__all__ = ["dia", "origin"]

pytestmark = pytest.mark.loopback


def damage(path: Path, offset: int) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0xFF]))


def test_the_main_job_from_publish_to_repair(dia: Checkpoint, origin: Nginx, tmp_path: Path) -> None:
    out = tmp_path / "dia.json"
    made = run(
        "publish",
        *(f"{part}={dia.root / part}" for part in ("model", "vocoder")),
        "--name",
        "nari-labs/dia-1.6b",
        "--out",
        out,
        "--origin",
        origin.url,
        DIACHUNK_HOME=str(tmp_path / "publisher"),
    )
    assert (made.returncode, made.stdout) == (0, f"{dia.manifest.hex_id}\n")
    assert "nothing left this machine: put the files on any server" in made.stderr

    # the manifest names the origin, but a private address only counts when the user names it
    fetched = run("fetch", out, "--origin", origin.url)
    assert fetched.returncode == 0
    (line,) = fetched.stdout.splitlines()
    directory = Path(line)
    assert_same_files(directory, dia)
    first, second, *_, last = fetched.stderr.splitlines()
    assert first == "nari-labs/dia-1.6b@main: 6.1 MB to fetch; not sharing"
    assert re.fullmatch(r"time unknown until it starts; takes 6\.1 MB of disk, .* free", second)
    assert re.fullmatch(r"fetched 6\.1 MB in .* s \(.*/s\), reused 0 B; 1 source", last)

    again = run("fetch", out)
    assert (again.returncode, again.stdout) == (0, fetched.stdout)
    assert again.stderr.splitlines()[-1] == "all here: 6.1 MB, verified before and untouched since"

    checked = run("verify", out)
    assert (checked.returncode, checked.stdout) == (0, "")
    assert re.fullmatch(r"ok: 4 files, 6\.1 MB, in .* s \(.*/s\)\n", checked.stderr)

    damage((directory / "model/model.safetensors").resolve(), 1_000_000)
    found = run("verify", out)
    assert found.returncode == 4
    file, chunk, verdict = found.stdout.splitlines()
    assert file == "nari-labs/dia-1.6b@main model/model.safetensors: damaged"
    assert re.fullmatch(r"  chunk \d+: 307\.2 kB at [\d,]+  layer\.\d+\.weight", chunk)
    assert verdict == f"1 of 4 files not right (1 damaged); run `diachunk verify {out} --repair`"
    as_json = run("verify", out, "--json")
    assert as_json.returncode == 4
    events = events_of(as_json.stdout)
    assert (events[-1]["ok"], events[-1]["wrong"], events[-1]["exit_code"]) == (False, 1, 4)
    (bad,) = [each for each in events if each["event"] == "file" and each["state"] != "ok"]
    assert [each["size_bytes"] for each in bad["damage"]] == [307_200]

    before = origin.bytes_sent()
    mended = run("verify", out, "--repair", "--origin", origin.url)
    assert mended.returncode == 0
    assert "repaired 1 of 4 files: fetched 307.2 kB" in mended.stderr
    assert origin.bytes_sent() - before == 307_200
    assert run("verify").returncode == 0

    listed = run("ls").stdout.splitlines()
    assert listed[1].split()[:3] == ["6.1", "MB", "100%"]
    assert run("rm", dia.manifest.hex_id[:12], "-q").returncode == 0
    assert not directory.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_in_the_middle_it_says_so_and_resumes(
    number: signal.Signals, dia: Checkpoint, origin: Nginx
) -> None:
    with Nginx(dia.root, rate_bps=700_000) as slow:
        fetching = subprocess.Popen(
            [*COMMAND, "fetch", dia.target, "--origin", slow.url, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert fetching.stdout is not None
        kept = 0
        for line in fetching.stdout:
            event = json.loads(line)
            kept = sum(each["verified_bytes"] for each in event.get("sources", []))
            if kept > 600_000:
                fetching.send_signal(number)
                break
        rest, errors = fetching.communicate(timeout=20)
    assert fetching.returncode == 130
    assert errors == ""
    error = json.loads(rest.splitlines()[-1])
    assert (error["event"], error["message"], error["exit_code"]) == ("error", "stopped", 130)

    resumed = run("fetch", dia.target, "--origin", origin.url, "--json")
    events = events_of(resumed.stdout)
    assert events[0]["present_bytes"] + events[0]["reuse_bytes"] >= kept
    assert events[-1]["present_bytes"] + events[-1]["reused_bytes"] >= kept
    assert events[-1]["fetched_bytes"] <= dia.total_bytes - kept
    assert_same_files(Path(events[-1]["directory"]), dia)


def test_a_person_who_stops_it_reads_that_nothing_is_lost(dia: Checkpoint) -> None:
    with Nginx(dia.root, rate_bps=500_000) as slow:
        command = [*COMMAND, "fetch", dia.target, "--origin", slow.url]
        fetching = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert fetching.stderr is not None
        assert "not sharing" in fetching.stderr.readline()
        fetching.send_signal(signal.SIGINT)
        directory, said = fetching.communicate(timeout=20)
    assert (fetching.returncode, directory) == (130, "")
    kept = "diachunk: stopped; what is verified is kept: run the same again to resume"
    assert said.splitlines()[-1] == kept


def test_what_nohup_ignores_stays_ignored(dia: Checkpoint) -> None:
    with Nginx(dia.root, rate_bps=3_000_000) as slow:
        command = [*COMMAND, "fetch", dia.target, "--origin", slow.url, "--json"]
        nohup = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command]
        fetching = subprocess.Popen(nohup, stdout=subprocess.PIPE, text=True)
        assert fetching.stdout is not None
        fetching.stdout.readline()
        fetching.send_signal(signal.SIGHUP)
        rest, _ = fetching.communicate(timeout=30)
    assert fetching.returncode == 0
    assert json.loads(rest.splitlines()[-1])["event"] == "done"


def test_json_tells_everything_and_adds_up(dia: Checkpoint, origin: Nginx) -> None:
    bad = f"http://127.0.0.1:{refused_port()}"
    done = run("fetch", dia.target, "--origin", origin.url, "--origin", bad, "--json", "-c", "model")
    assert (done.returncode, done.stderr) == (0, "")
    events = events_of(done.stdout)
    plan, end = events[0], events[-1]
    total = plan["total_bytes"]
    assert plan["event"] == "plan"
    assert plan["sharing"] is False
    assert [each["name"] for each in plan["components"]] == ["model"]
    assert total == plan["fetch_bytes"] == end["fetched_bytes"] == end["total_bytes"]
    (progress,) = [each for each in events if each["event"] == "progress"][-1:]
    assert (progress["done_bytes"], progress["total_bytes"]) == (total, total)
    assert {each["path"] for each in events if each["event"] == "file"} == {
        "config.json",
        "model.safetensors",
    }
    assert [each["detail"] for each in events if each["event"] == "source"][:1] == ["connection refused"]
    assert {"left_bytes", "rate_bps", "eta_s", "limited_by", "sources", "v", "event"} == set(
        next(each for each in events if each["event"] == "status")
    )
    assert sorted(os.listdir(end["directory"])) == ["model"]


def test_an_estimate_before_the_start(dia: Checkpoint, origin: Nginx) -> None:
    home = Path(os.environ["DIACHUNK_HOME"])
    capped = run("fetch", dia.target, "-n", "--max-down", "100k")
    assert "about 60 s at 100.0 kB/s (the cap)" in capped.stdout
    assert run("fetch", dia.target, "--origin", origin.url).returncode == 0
    assert int((home / ".last-rate").read_text()) > 1_000_000
    assert run("rm", dia.manifest.hex_id[:16]).returncode == 0
    (home / ".last-rate").write_text("50000\n")
    dry = run("fetch", dia.target, "-n", "--origin", f"{origin.url}/?token=secret")
    assert (dry.returncode, dry.stderr) == (0, "")
    assert "about 2 min at 50.0 kB/s (the last fetch's rate)" in dry.stdout
    assert "secret" not in dry.stdout
    assert not list((home / "blobs").glob("??/*"))


def test_each_family_of_errors_has_its_exit_code(dia: Checkpoint, origin: Nginx, base: Path) -> None:
    write_config(base, QUICK)
    refused = f"127.0.0.1:{refused_port()}"
    incomplete = run("fetch", dia.target, "--origin", f"http://{refused}")
    message, hint = incomplete.stderr.splitlines()[-2:]
    assert incomplete.returncode == 5
    assert incomplete.stdout == ""
    assert f"{refused}: connection refused" in message
    assert "run the same again to resume" in hint

    full = run("fetch", dia.target, "--to", "/proc/nowhere", "--origin", origin.url)
    assert full.returncode == 6

    source = str(dia.root / "vocoder")
    assert run("publish", source, "--name", "x").returncode == 0
    moved = run("publish", str(dia.root / "model"), "--name", "x")
    assert (moved.returncode, moved.stdout) == (7, "")
    assert "--force" in moved.stderr


def test_the_reader_of_the_json_goes_away(dia: Checkpoint) -> None:
    with Nginx(dia.root, rate_bps=1_000_000) as slow:
        command = [*COMMAND, "fetch", dia.target, "--origin", slow.url, "--json"]
        fetching = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert fetching.stdout is not None
        fetching.stdout.readline()
        fetching.stdout.close()
        assert fetching.stderr is not None
        assert fetching.stderr.read() == ""
        assert fetching.wait(20) == 1
        fetching.stderr.close()


def test_show_diff_and_publish_without_a_store(dia: Checkpoint, tmp_path: Path) -> None:
    vocoder = dia.root / "vocoder"
    bare = run("publish", f"vocoder={vocoder}", "--name", "zoo/voc", "--no-store")
    assert bare.returncode == 0
    assert not Path(os.environ["DIACHUNK_HOME"]).exists()
    file = tmp_path / "voc.json"
    file.write_text(bare.stdout)
    shown = run("show", file)
    assert shown.stdout.splitlines()[0] == "zoo/voc@main"
    assert "  1.2 MB  not here  model.safetensors" in shown.stdout
    assert run("show", file, "--manifest").stdout == bare.stdout
    events = events_of(run("publish", vocoder, "--name", "zoo/voc", "--no-store", "--json").stdout)
    total = sum(each.stat().st_size for each in vocoder.iterdir())
    assert [each["left_bytes"] for each in events if each["event"] == "status"] == [total]
    assert [each["total_bytes"] for each in events if each["event"] == "progress"] == [total] * (
        len(events) - 2
    )
    gained = run("diff", file, dia.target)
    assert gained.stdout.splitlines()[-1].startswith("to fetch: 4.9 MB of 6.1 MB (80.0%); 2 files with")
    details = json.loads(run("diff", file, dia.target, "--json").stdout)
    assert details["fetch_bytes"] == sum(each["new_bytes"] for each in details["files"])
