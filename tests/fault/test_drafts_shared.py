"""A recipe's fetch beside others: gc, neighbours, full disks, many files, large ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import diachunk
from diachunk.errors import DiachunkError, StoreError
from diachunk.limits import CHUNK_BYTES
from diachunk.testing import faults
from diachunk.testing.hub import Hub
from diachunk.testing.hub_faults import Part
from fixtures.command_line import run
from fixtures.crowd import Neighbour, assert_all_succeeded, together
from fixtures.hub_world import (
    MIB,
    RecipeProcess,
    assert_is,
    fetch_watched,
    hub_serving,
    left_in,
    noise,
    total_bytes,
)
from fixtures.mounts import mounted
from fixtures.settings import QUICK, write_config
from fixtures.watch import Told

pytestmark = pytest.mark.loopback

BIG = "lab/big"

LANES = 2

FILES = {
    "weights.bin": noise("big", 7 * CHUNK_BYTES + 123),
    "second.bin": noise("second", 2 * CHUNK_BYTES + 5),
    "config.json": b"{}",
}

TOTAL = total_bytes(FILES)

RATE_BPS = 12 * MIB


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, base: Path) -> Iterator[Hub]:
    write_config(base, {"lanes": LANES, "hedge_chunks_min": 1})
    with hub_serving(monkeypatch, {BIG: FILES}) as serving:
        yield serving


def slow(hub: Hub) -> None:
    hub.slow_down(RATE_BPS, of="*")


def leave_unfinished(hub: Hub, home: Path, share: float = 0.5) -> list[Path]:
    """Fetches about so much, then is killed; returns the drafts, largest first."""
    slow(hub)
    with RecipeProcess(f"hub:{BIG}", home) as process:
        process.wait_for_bytes(int(share * TOTAL))
        process.signal(signal.SIGKILL)
    hub.rules.clear()
    found = sorted((home / "drafts").glob("*.partial"), key=lambda each: -each.stat().st_blocks)
    assert found
    return found


# --- gc -------------------------------------------------------------------------------------------------------


def test_gc_keeps_the_finished_files_and_the_drafts_of_a_fetch_that_was_killed(hub: Hub, home: Path) -> None:
    hub.fail(Part.CDN, faults.Status(404), of="weights.bin", skip=3)
    with pytest.raises(DiachunkError):
        diachunk.fetch(f"hub:{BIG}", home=home)
    hub.rules.clear()
    diachunk.gc(home=home)
    before = hub.bytes_sent("*")
    assert_is(fetch_watched(f"hub:{BIG}", home), FILES, home)
    assert hub.bytes_sent("second.bin") == len(FILES["second.bin"]), "finished before"
    assert hub.bytes_sent("*") <= TOTAL + 1
    assert before


def test_gc_removes_drafts_of_more_than_a_week_ago(hub: Hub, home: Path) -> None:
    leave_unfinished(hub, home)
    ago = time.time() - 8 * 86400
    for path in (home / "drafts").iterdir():
        os.utime(path, (ago, ago))
    for path in home.rglob("blobs/*/*"):
        os.utime(path, (ago, ago))
    diachunk.gc(home=home)
    assert left_in(home / "drafts") == []
    assert_is(diachunk.fetch(f"hub:{BIG}", home=home), FILES, home)


def test_gc_while_a_recipe_is_fetched_takes_nothing_from_it(hub: Hub, home: Path) -> None:
    slow(hub)
    with RecipeProcess(f"hub:{BIG}", home) as process:
        for step in (1, 3, 5, 7, 9):
            process.wait_for_bytes(step * TOTAL // 10)
            diachunk.gc(home=home)
        assert process.end()[0] == 0
    assert hub.bytes_sent("*") <= TOTAL + 2 * CHUNK_BYTES
    assert_is(fetch_watched(f"hub:{BIG}", home), FILES, home)


# --- neighbours -----------------------------------------------------------------------------------------------


def about_once(hub: Hub, sent_by: Callable[[int], None]) -> None:
    """At most a tenth more than once crosses the line; one of three attempts must show it."""
    sent = []
    for attempt in range(3):
        before = hub.bytes_sent("*")
        sent_by(attempt)
        sent.append(hub.bytes_sent("*") - before)
        if sent[-1] <= 1.1 * TOTAL:
            return
    raise AssertionError(f"{sent} bytes sent for {TOTAL}")


def test_processes_that_fetch_one_recipe_share_one_download(hub: Hub, home: Path) -> None:
    def three(attempt: int) -> None:
        store = home / str(attempt)
        crowd = together([Neighbour.command(store, "fetch", f"hub:{BIG}") for _ in range(3)])
        assert_all_succeeded(crowd)
        assert len({each.printed for each in crowd}) == 1
        assert_is(diachunk.fetch(f"hub:{BIG}", home=store), FILES, store)

    about_once(hub, three)


def test_when_one_of_two_is_killed_the_other_takes_over(hub: Hub, home: Path) -> None:
    slow(hub)
    with RecipeProcess(f"hub:{BIG}", home) as first, RecipeProcess(f"hub:{BIG}", home) as second:
        first.wait_for_bytes(TOTAL // 3)
        first.signal(signal.SIGKILL)
        assert second.end()[0] == 0
    assert hub.bytes_sent("*") <= TOTAL + (LANES + 3) * CHUNK_BYTES
    assert_is(fetch_watched(f"hub:{BIG}", home), FILES, home)


def test_a_recipe_and_a_manifest_that_share_files_at_once(hub: Hub, home: Path, tmp_path: Path) -> None:
    made = diachunk.publish([f"hub:{BIG}"], home=tmp_path / "publisher", out=tmp_path / "big.json")
    crowd = together(
        [Neighbour.command(home, "fetch", each) for each in (f"hub:{BIG}", str(made.file), f"hub:{BIG}")]
    )
    assert_all_succeeded(crowd)
    assert_is(fetch_watched(f"hub:{BIG}", home), FILES, home)


# --- disks ----------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_meanwhile_resumes_once_there_is_space(hub: Hub) -> None:
    with mounted("ext4", 96 * MIB) as disk:
        home = disk.path / "store"
        slow(hub)
        with RecipeProcess(f"hub:{BIG}", home) as process:
            process.wait_for_bytes(TOTAL // 4)
            disk.fill()
            code, said = process.end()
        assert code == 6, said
        assert "No space left" in said
        disk.free(disk.path / "ballast")
        hub.rules.clear()
        assert_is(fetch_watched(f"hub:{BIG}", home), FILES, home)
        assert hub.bytes_sent("*") <= TOTAL + (LANES + 2) * CHUNK_BYTES


def test_too_little_space_is_said_before_anything_is_asked_for(
    hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diachunk.store.layout.Layout.free_bytes", lambda self: TOTAL // 2)
    with pytest.raises(StoreError, match=r"needs .* bytes of disk"):
        diachunk.fetch(f"hub:{BIG}", home=home)
    assert hub.bytes_sent("*") == 0


def test_a_store_that_cannot_be_written_to_says_so(
    hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the directory can be made but no draft in it."""
    real = os.open

    def refuse(path: object, flags: int, *rest: int, **options: object) -> int:
        if str(path).endswith((".partial", ".sums")) and flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, *rest, **options)  # type: ignore[arg-type] # handed on as they came

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreError, match="Permission denied") as caught:
        diachunk.fetch(f"hub:{BIG}", home=home)
    assert "permissions" in caught.value.hint


def test_a_failed_flush_is_no_success(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("diachunk.store.files.Files.flush_data", fail)
        with pytest.raises(StoreError, match="Input/output error"):
            diachunk.fetch(f"hub:{BIG}", home=home)
    assert [each for each in home.rglob("blobs/*/*") if len(each.name) == 64] == []
    assert_is(diachunk.fetch(f"hub:{BIG}", home=home), FILES, home)


# --- many and large -------------------------------------------------------------------------------------------


def test_two_thousand_small_files_with_few_descriptors(hub: Hub, home: Path) -> None:
    files = {f"{number % 40}/{number}.txt": b"%d" % number for number in range(2000)}
    hub.add("lab/many", files)
    command = f"ulimit -n 96; exec {sys.executable} -m diachunk fetch hub:lab/many"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "DIACHUNK_HOME": str(home)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    directory = Path(done.stdout.strip())
    assert {each.relative_to(directory).as_posix() for each in directory.rglob("*.txt")} == set(files)
    assert left_in(home / "drafts") == []


@pytest.mark.parametrize("reason", ["dies", "stops"])
def test_a_source_that_goes_while_many_large_files_are_half_hashed_ends_it(
    hub: Hub, home: Path, base: Path, reason: str
) -> None:
    """More files than may be hashed at once, each half there: nobody may wait for another for ever."""
    write_config(base, {**QUICK, "lanes": 8})
    files = {f"{number}.bin": noise(f"half {number}", 2 * CHUNK_BYTES - 9) for number in range(7)}
    hub.add("lab/half", files)
    hub.fail(Part.CDN, faults.Status(500) if reason == "dies" else faults.StallAfter(1000), skip=9)
    told = Told()
    began_s = time.monotonic()
    with pytest.raises(DiachunkError) as caught:
        diachunk.fetch("hub:lab/half", home=home, progress=told)
    assert caught.value.exit_code == 5
    assert time.monotonic() - began_s < 30
    hub.rules.clear()
    assert_is(fetch_watched("hub:lab/half", home), files, home)


def test_a_recipe_of_300_mb_in_three_files_takes_less_than_200_mb_of_memory(
    hub: Hub, tmp_path: Path, base: Path
) -> None:
    from benchmarks.measure import Contender, run_once

    write_config(base, {})
    home = tmp_path / "store"
    block = noise("memory", MIB)
    paths = {}
    for number in range(3):
        path = tmp_path / f"{number}.bin"
        with path.open("wb") as file:
            for step in range(100):
                file.write(bytes([number, step]) + block[2:])
        paths[f"{number}.bin"] = path
    hub.add("lab/memory", paths)
    command = [sys.executable, "-m", "diachunk", "fetch", "hub:lab/memory"]
    result = run_once(Contender("fetch", command, environment={"DIACHUNK_HOME": str(home)}))
    assert result.peak_bytes < 200 * MIB
    found = json.loads(
        run("show", "hub:lab/memory", "--json", DIACHUNK_HOME=str(home)).stdout.splitlines()[0]
    )
    assert found
