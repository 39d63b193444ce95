"""diachunk place, as a subprocess."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diachunk.digest import digest_of
from diachunk.limits import CHUNK_BYTES
from diachunk.manifest import ChunkList, Component, FileEntry, Manifest
from diachunk.store.stamps import Stamp, write_stamp
from fixtures.placing import COMMIT, CONFIG, WEIGHTS, World, component, from_hub, manifest_of, tree_of

MODEL = {"config.json": CONFIG, "model.safetensors": WEIGHTS}
VOCODER = {"checkpoint.pth": WEIGHTS[:100_000]}
HINTS = [
    {"kind": "hub", "component": "model"},
    {"kind": "dia", "component": "vocoder"},
    {"kind": "descript", "component": "vocoder"},
]


@pytest.fixture
def manifest(world: World) -> Manifest:
    made = manifest_of(from_hub("model", MODEL), component("vocoder", VOCODER), places=HINTS)
    world.keep(made, MODEL, VOCODER)
    world.store.catalog.set_ref(made.name, made.revision, made.id)
    return made


def run(world: World, *words: str | Path, verb: str = "place") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DIACHUNK_HOME": str(world.store.root)}
    command = [sys.executable, "-m", "diachunk", verb, *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=environment, cwd=world.home
    )


def events(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.usefixtures("manifest")
def test_what_programs_use_is_all_that_stdout_says(world: World) -> None:
    done = run(world, "lab/dia")
    assert done.returncode == 0, done.stderr
    cache = world.home / ".cache"
    assert done.stdout.splitlines() == [
        str(world.repository() / "snapshots" / COMMIT),
        str(cache / "dia" / "vocoder"),
        str(cache / "descript" / "dac" / "weights_44khz_8kbps_0.0.1.pth"),
    ]
    said = done.stderr.splitlines()
    assert any("model: 2 files, 262.2 kB in the Hub cache" in line and "2 " in line for line in said)
    assert "to undo: `diachunk place lab/dia --undo`" in said
    assert "HF_HUB_OFFLINE=1" in said[-1]


@pytest.mark.usefixtures("manifest")
def test_it_can_be_undone_once(world: World) -> None:
    run(world, "lab/dia")
    done = run(world, "lab/dia", "--undo")
    assert done.returncode == 0
    assert done.stdout == ""
    assert "took away" in done.stderr
    assert not [name for name, what in tree_of(world.home / ".cache").items() if what != "/"]
    again = run(world, "lab/dia", "--undo")
    assert again.returncode == 2
    assert "nothing of lab/dia@main was placed" in again.stderr


@pytest.mark.usefixtures("manifest")
def test_json_says_each_file_and_the_end(world: World) -> None:
    told = events(run(world, "lab/dia", "--json"))
    assert all(each["v"] == 1 for each in told)
    files = [each for each in told if each["event"] == "file"]
    assert {(each["component"], each["path"]) for each in files} == {
        ("model", "config.json"),
        ("model", "model.safetensors"),
        ("vocoder", "checkpoint.pth"),
    }
    assert all(Path(each["location"]).is_file() for each in files)
    assert told[-1]["event"] == "done"
    assert [each["kind"] for each in told[-1]["places"]] == ["hub", "dia", "descript"]
    undone = events(run(world, "lab/dia", "--undo", "--json"))
    assert len(undone[-1]["removed"]) > 5


@pytest.mark.usefixtures("manifest")
def test_a_dry_run_changes_nothing(world: World) -> None:
    before = tree_of(world.home)
    done = run(world, "lab/dia", "-n")
    assert done.returncode == 0
    assert done.stdout == ""
    assert "2 to place" in done.stderr
    assert tree_of(world.home) == before


@pytest.mark.usefixtures("manifest")
def test_into_a_directory_by_copy_of_one_component(world: World) -> None:
    done = run(world, "lab/dia", "--into", "out", "--component", "vocoder", "--link-mode", "copy", "-q")
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout == f"{world.home / 'out' / 'vocoder'}\n"
    assert (world.home / "out" / "vocoder" / "checkpoint.pth").read_bytes() == VOCODER["checkpoint.pth"]


@pytest.mark.usefixtures("manifest")
def test_what_is_in_the_way_exits_6_and_names_the_way_out(world: World) -> None:
    path = world.home / ".cache" / "descript" / "dac" / "weights_44khz_8kbps_0.0.1.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(WEIGHTS[:50_000])
    done = run(world, "lab/dia", "--into", "descript")
    assert done.returncode == 6
    assert done.stdout == ""
    what, what_next = done.stderr.splitlines()
    assert f"{path} is in the way" in what
    assert "--force" in what_next
    assert run(world, "lab/dia", "--into", "descript", "--force").returncode == 0
    assert path.read_bytes() == VOCODER["checkpoint.pth"]


def test_what_is_not_here_says_how_to_fetch_it(world: World) -> None:
    made = manifest_of(from_hub("model", MODEL))
    world.store.catalog.add(made)
    world.store.catalog.set_ref(made.name, made.revision, made.id)
    done = run(world, "lab/dia")
    assert done.returncode == 6
    assert "`diachunk fetch lab/dia@main`" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("lab/nothing",),
        ("lab/dia", "--link-mode", "magic"),
        ("lab/dia", "--undo", "-n"),
        ("lab/dia", "-c", "x"),
    ],
)
@pytest.mark.usefixtures("manifest")
def test_what_makes_no_sense_exits_2(world: World, words: tuple[str, ...]) -> None:
    done = run(world, *words)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) <= 2


@pytest.mark.usefixtures("manifest")
def test_names_that_would_steer_a_terminal_are_shown_harmless(world: World) -> None:
    odd = world.home / "odd\x1b[2Jname"
    done = run(world, "lab/dia", "--into", odd)
    assert done.returncode == 0
    assert "\x1b" not in done.stderr + done.stdout
    assert (odd / "model" / "config.json").read_bytes() == CONFIG


def test_ctrl_c_while_files_are_read_ends_soon_and_places_nothing(world: World) -> None:
    count = 50_000
    size = count * CHUNK_BYTES  # of hole: minutes to read
    chunks = ChunkList.of([(CHUNK_BYTES, digest_of(bytes(CHUNK_BYTES)))] * count)
    file = FileEntry("model.safetensors", size, digest_of(b"of that"), chunks, "0" * 64)
    upstream = {"kind": "hub", "repository": "a/b", "commit": COMMIT}
    made = manifest_of(Component("model", (file,), upstream), name="lab/huge")
    blob = world.store.layout.blob(file.blake3)
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.touch()
    os.truncate(blob, size)
    stamp = Stamp.of(blob.stat()).adding(chunk_list=chunks.id)
    write_stamp(world.store.layout.files, world.store.layout.stamp(file.blake3), stamp)
    world.store.catalog.add(made)
    environment = {**os.environ, "DIACHUNK_HOME": str(world.store.root)}
    command = [sys.executable, "-m", "diachunk", "place", made.hex_id, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as running:
        try:
            assert running.stdout is not None
            for line in running.stdout:
                if json.loads(line)["event"] == "progress":
                    break
            running.send_signal(signal.SIGINT)
            stdout, _ = running.communicate(timeout=30)
        finally:
            running.kill()
    assert running.returncode == 130
    assert json.loads(stdout.splitlines()[-1])["exit_code"] == 130
    assert not world.repository("a/b").exists()


@pytest.mark.usefixtures("manifest")
def test_gc_says_what_keeps_it_from_its_bound_also_to_a_log_that_wants_errors_alone(world: World) -> None:
    assert run(world, "lab/dia").returncode == 0
    done = run(world, "--max-size", "1K", "-q", verb="gc")
    assert done.returncode == 0
    assert done.stderr.startswith("over --max-size: ")
    assert "lab/dia@main is shown to programs: diachunk place lab/dia@main --undo" in done.stderr
    assert run(world, "lab/dia", "--undo").returncode == 0
    assert run(world, "--max-size", "1K", "-q", verb="gc").stderr == ""


def test_gc_asks_for_the_unit_that_was_left_out(world: World, manifest: Manifest) -> None:
    refused = run(world, "--max-size", "100", verb="gc")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--max-size 100 is that many bytes" in refused.stderr
    assert "100G" in refused.stderr
    assert manifest.id in world.store.catalog.ids()
    assert run(world, "--max-size", "100000000000", verb="gc").returncode == 0
    assert run(world, "--max-size", "0", verb="gc").returncode == 0
