"""`diachunk fetch` without TARGET, as a person and as a script live through it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from diachunk.testing.bad_server import refused_port
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import assert_same_files, assert_store_is_right
from fixtures.command_line import COMMAND, events_of
from fixtures.preload import Project
from fixtures.settings import QUICK, write_config
from fixtures.users import User, need_users, shared_directory


def store() -> Path:
    return Path(os.environ["DIACHUNK_HOME"])


def test_it_says_what_comes_then_brings_it_and_prints_the_directories(project: Project) -> None:
    done = project.run("fetch")
    assert done.returncode == 0
    one, two = map(Path, done.stdout.splitlines())
    assert_same_files(one, project.one)
    assert_same_files(two, project.two)
    head, columns, first, second, together, outlook, *rest = done.stderr.splitlines()
    assert head == f"2 checkpoints of {project.file}"
    assert columns.split() == ["checkpoint", "in", "all", "here", "reused", "to", "fetch"]
    assert first.split("  ")[0] == "lab/one@main"
    assert first.endswith("300.0 kB")
    assert second.endswith("250.0 kB")
    assert re.fullmatch(r"together, what they share once +500\.0 kB +0 B +0 B +500\.0 kB", together)
    assert re.fullmatch(r"time unknown until it starts; takes 500\.0 kB of disk, .* free", outlook)
    assert rest[0] == "lab/one@main: 300.0 kB to fetch; not sharing"
    assert any("reused 50.0 kB" in line for line in rest)
    assert project.lock.exists()

    again = project.run("fetch", "-q")
    assert (again.returncode, again.stdout, again.stderr) == (0, done.stdout, "")


def test_a_dry_run_fetches_and_locks_nothing(project: Project) -> None:
    done = project.run("fetch", "-n")
    assert (done.returncode, done.stderr) == (0, "")
    assert "together, what they share once" in done.stdout
    assert not project.lock.exists()
    assert not list((store() / "blobs").glob("??/*"))
    (project.directory / "two.json").unlink()
    failed = project.run("fetch", "-n")
    assert failed.returncode == 2
    assert "./two.json: " in failed.stdout
    assert "1 of 2 checkpoints not complete: ./two.json: " in failed.stderr


def test_json_tells_the_set_each_checkpoint_and_the_end(project: Project) -> None:
    project.write(["./one.json", {"target": "./two.json", "places": ["./shown"]}])
    done = project.run("fetch", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    events = events_of(done.stdout)
    first, last = events[0], events[-1]
    assert (first["event"], first["named_by"], first["lock"]) == ("set", str(project.file), str(project.lock))
    assert [each["target"] for each in first["checkpoints"]] == ["./one.json", "./two.json"]
    assert (first["fetch_bytes"], first["total_bytes"]) == (500_000, 500_000)
    ends = [each for each in events if each["event"] == "checkpoint"]
    assert [each["id"] for each in ends] == [project.one.manifest.hex_id, project.two.manifest.hex_id]
    assert sum(each["fetched_bytes"] for each in ends) == 500_000
    assert [each["target"] for each in events if each["event"] == "plan"] == ["./one.json", "./two.json"]
    (placed,) = [each for each in events if each["event"] == "placed"]
    assert {each["component"] for each in placed["places"]} == {"model", "vocoder"}
    assert_same_files(project.directory / "shown", project.two)
    assert (last["checkpoints"], last["total_bytes"]) == (2, 500_000)
    dry = events_of(project.run("fetch", "--json", "-n").stdout)
    assert [each["event"] for each in dry] == ["set", "done"]


def test_one_that_fails_is_told_at_the_end_and_in_the_exit_code(project: Project, base: Path) -> None:
    write_config(base, QUICK)
    nowhere = f"http://127.0.0.1:{refused_port()}"
    project.file.write_text(
        f'checkpoints = [{{target = "./one.json", origins = ["{nowhere}"]}}, "lab/unknown",'
        f' {{target = "./two.json", origins = ["{project.two.root}"]}}]\n'
    )
    done = project.run("fetch")
    assert done.returncode == 2, "what running again does not cure outweighs what it may"
    (line,) = done.stdout.splitlines()
    assert_same_files(Path(line), project.two)
    told = [line for line in done.stderr.splitlines() if line.startswith("diachunk: ")]
    assert len(told) == 1
    assert told[0].startswith("diachunk: 2 of 3 checkpoints not complete: ./one.json: ")
    assert "lab/unknown: nothing" in told[0]
    assert "going on with the others" in done.stderr

    events = events_of(project.run("fetch", "--json").stdout)
    failed = {each["target"]: each["exit_code"] for each in events if each["event"] == "failed"}
    assert failed == {"./one.json": 5, "lab/unknown": 2}
    assert (events[-1]["event"], events[-1]["exit_code"]) == ("error", 2)


def test_with_nothing_named_it_shows_what_to_write(project: Project) -> None:
    project.file.unlink()
    done = project.run("fetch")
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert lines[0] == "diachunk: name a checkpoint to fetch"
    assert "    cat > diachunk.toml <<'END'" in lines
    assert any(re.fullmatch(r'    checkpoints = \[".+"\]', line) for line in lines)
    as_json = events_of(project.run("fetch", "--json").stdout)
    assert as_json[-1]["exit_code"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-c", "model"], "--component needs a TARGET"),
        (["--to", "x"], "--to needs a TARGET"),
        (["--locked", "--update"], "contradict each other"),
        (["./one.json", "--locked"], "leave TARGET out"),
        (["one/two/three", "--update"], "is none: leave it out"),
        (["./one.json", "--update"], "is none: leave it out"),
    ],
)
def test_options_that_make_no_sense_are_refused(project: Project, words: list[str], said: str) -> None:
    done = project.run("fetch", *words)
    assert done.returncode == 2
    assert said in done.stderr


def test_locked_restores_exactly_and_an_update_renews(project: Project) -> None:
    missing = project.run("fetch", "--locked")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "no such lock" in missing.stderr
    assert project.run("fetch", "-q").returncode == 0
    before = project.lock.read_text()
    # one.json now names what two.json did
    (project.directory / "one.json").write_bytes((project.directory / "two.json").read_bytes())
    fresh = {"DIACHUNK_HOME": str(project.directory.parent / "fresh")}
    refused = project.run("fetch", "--locked", **fresh)
    assert refused.returncode == 7
    assert project.one.manifest.hex_id in refused.stderr
    assert project.two.manifest.hex_id in refused.stderr
    assert "diachunk fetch --update" in refused.stderr
    assert project.lock.read_text() == before
    assert project.run("fetch", "--update", **fresh).returncode == 0
    assert project.one.manifest.hex_id not in project.lock.read_text()
    assert project.run("fetch", "--locked", **fresh).returncode == 0


def test_a_project_that_may_not_be_written_to_is_fetched_all_the_same(project: Project) -> None:
    need_users()
    with shared_directory(0o755) as shared:
        directory, home = shared / "project", shared / "home"
        shutil.copytree(project.directory.parent, directory, ignore=shutil.ignore_patterns("environment"))
        home.mkdir()
        os.chown(home, 61001, 61001)
        one, two = (directory / name for name in ("one", "two"))
        read_only = replace(
            project,
            directory=directory / "project",
            one=replace(project.one, root=one),
            two=replace(project.two, root=two),
        )
        read_only.write()
        for path in (directory, *directory.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        command = [*User(61001, 61001).prefix(), *COMMAND, "fetch"]
        mine = {"HOME": str(home), "DIACHUNK_HOME": str(home / "store"), "XDG_CONFIG_HOME": str(home)}

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*command, *words],
                capture_output=True,
                text=True,
                cwd=read_only.directory,
                env={**os.environ, **mine},
            )

        done = run()
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 2), done.stderr
        assert done.stderr.count("Permission denied: what was fetched stays unlocked") == 1
        renewed = run("--update")
        assert (renewed.returncode, len(renewed.stdout.splitlines())) == (6, 2)
        assert "diachunk.lock: Permission denied" in renewed.stderr
        assert not read_only.lock.exists()


@pytest.mark.loopback
def test_stopped_in_the_middle_it_goes_on_from_there(project: Project) -> None:
    with Nginx(project.two.root, rate_bps=100_000) as slow:
        project.file.write_text(
            f'checkpoints = [{{target = "./one.json", origins = ["{project.one.root}"]}},'
            f' {{target = "./two.json", origins = ["{slow.url}"]}}]\n'
        )
        fetching = project.start("fetch", "--json")
        assert fetching.stdout is not None
        for line in fetching.stdout:
            event = json.loads(line)
            if event["event"] == "progress" and event["total_bytes"] == 250_000:
                fetching.send_signal(signal.SIGINT)
                break
        rest, errors = fetching.communicate(timeout=30)
    assert (fetching.returncode, errors) == (130, "")
    end = json.loads(rest.splitlines()[-1])
    assert (end["event"], end["message"]) == ("error", "stopped")
    assert "./one.json" in project.lock.read_text(), "what was complete is locked"
    assert "./two.json" not in project.lock.read_text()
    project.write()
    done = project.run("fetch", "--json")
    events = events_of(done.stdout)
    assert events[0]["present_bytes"] + events[0]["reuse_bytes"] >= 300_000
    assert done.returncode == 0
    assert "./two.json" in project.lock.read_text()
    assert_store_is_right(store())


def test_several_at_once_in_one_directory(project: Project) -> None:
    fetching = [project.start("fetch", "-q") for _ in range(3)]
    outcomes = [each.communicate(timeout=60) for each in fetching]
    assert [each.returncode for each in fetching] == [0, 0, 0]
    assert len({out for out, _ in outcomes}) == 1
    assert sorted(os.listdir(project.directory)) == ["diachunk.lock", "diachunk.toml", "one.json", "two.json"]
    assert project.run("fetch", "--locked", "-q").stdout == outcomes[0][0]
    assert_store_is_right(store())


def test_a_target_is_placed_where_the_user_says(project: Project) -> None:
    origin = ("--origin", str(project.one.root))
    done = project.run("fetch", "./one.json", *origin, "--into", "./shown")
    assert done.returncode == 0
    assert_same_files(project.directory / "shown", project.one)
    assert len(done.stdout.splitlines()) == 1
    nowhere = project.run("fetch", "./one.json", *origin, "--place")
    assert nowhere.returncode == 2
    assert "does not say where programs look for it" in nowhere.stderr
    wrong = project.run("fetch", "./one.json", *origin, "--into", "hub")
    assert wrong.returncode == 2


def test_config_shows_the_project(project: Project) -> None:
    project.write(extra='peers = ["lab-7"]\nplaces = ["hub"]\n[limits]\nlanes = 3')
    rows = {line.split()[0]: line.split()[1:] for line in project.run("config").stdout.splitlines()}
    assert rows["checkpoints"] == ["./one.json,", "./two.json", str(project.file)]
    assert rows["peers"] == ["lab-7", str(project.file)]
    assert rows["places"] == ["hub", str(project.file)]
    assert rows["limits.lanes"] == ["3", str(project.file)]
    assert str(project.file) in rows
    settings = json.loads(project.run("config", "--json").stdout)["settings"]
    assert settings["checkpoints"] == {"value": ["./one.json", "./two.json"], "from": str(project.file)}


def test_places_are_offered_after_tab(project: Project) -> None:
    def offered(line: str) -> list[str]:
        words = {
            "_DIACHUNK_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        }
        return project.run(**words).stdout.split()

    assert offered("diachunk fetch --into ") == ["hub", "descript", "dia"]
    assert offered("diachunk fetch --into d") == ["descript", "dia"]
