"""A recipe's fetch that was killed goes on where it was; what lies in a draft is compared with its journal."""

from __future__ import annotations

import json
import os
import shutil
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
from fixtures.crowd import Neighbour, assert_all_succeeded, started, together
from fixtures.hub_world import (
    MIB,
    RecipeProcess,
    assert_is,
    bytes_asked,
    fetch_watched,
    hub_serving,
    left_in,
    noise,
    total_bytes,
)
from fixtures.mounts import mounted
from fixtures.settings import QUICK, write_config
from fixtures.users import one_line
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


@pytest.mark.parametrize("share", [0.02, 0.4, 0.75, 0.97])
def test_after_a_kill_only_what_was_under_way_is_fetched_again(hub: Hub, home: Path, share: float) -> None:
    leave_unfinished(hub, home, share)
    before = hub.bytes_sent("*")
    snapshot = fetch_watched(f"hub:{BIG}", home)
    assert_is(snapshot, FILES, home)
    # what the killed one's sockets still took, and a hedge
    assert hub.bytes_sent("*") <= TOTAL + (LANES + 2) * CHUNK_BYTES
    assert hub.bytes_sent("*") - before <= (1 - share) * TOTAL + (LANES + 1) * CHUNK_BYTES


def test_many_kills_in_a_row_still_end_right(hub: Hub, home: Path) -> None:
    slow(hub)
    for step in range(1, 5):
        with RecipeProcess(f"hub:{BIG}", home) as process:
            process.wait_for_bytes(step * TOTAL // 5)
            process.signal(signal.SIGKILL)
    hub.rules.clear()
    assert_is(fetch_watched(f"hub:{BIG}", home), FILES, home)
    assert hub.bytes_sent("*") <= TOTAL + 4 * (LANES + 2) * CHUNK_BYTES


def test_an_interrupt_ends_soon_says_how_to_go_on_and_blames_no_reader(hub: Hub, home: Path) -> None:
    slow(hub)
    with RecipeProcess(f"hub:{BIG}", home) as process:
        process.wait_for_bytes(TOTAL // 3)
        began_s = time.monotonic()
        code, said = process.signal(signal.SIGINT)
        took_s = time.monotonic() - began_s
    assert code == 130
    assert "run the same again to resume" in said
    assert "Traceback" not in said
    assert "report" not in said
    assert took_s < 6  # 2 s on an idle machine
    hub.rules.clear()
    assert_is(fetch_watched(f"hub:{BIG}", home), FILES, home)


def test_an_interrupt_while_a_directory_at_the_end_is_awaited_blames_no_reader(
    hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = b"PK\x03\x04" + noise("archive", 3 * CHUNK_BYTES)
    hub.add("lab/zip", {"weights.pth": archive})
    hub.fail(Part.CDN, faults.StallAfter(0), skip=1)
    with RecipeProcess("hub:lab/zip", home) as process:
        process.wait_for_bytes(MIB)
        code, said = process.signal(signal.SIGINT)
    assert code == 130
    assert said.count("\n") == 1, said


# --- what lies in a draft is a claim --------------------------------------------------------------------------


def zero_a_page(draft: Path) -> None:
    with draft.open("r+b") as file:
        file.seek(2 * MIB)
        file.write(bytes(4096))


def fill_with_garbage(draft: Path) -> None:
    draft.write_bytes(os.urandom(draft.stat().st_size))


def cut(draft: Path) -> None:
    os.truncate(draft, draft.stat().st_size // 2)


def append(draft: Path) -> None:
    with draft.open("ab") as file:
        file.write(os.urandom(MIB))


def allocate_zeros(draft: Path) -> None:
    draft.write_bytes(bytes(draft.stat().st_size))


def make_it_a_directory(draft: Path) -> None:
    draft.unlink()
    draft.mkdir()


def sums(draft: Path) -> Path:
    return draft.with_suffix(".sums")


def journal_gone(draft: Path) -> None:
    sums(draft).unlink()


def journal_cut_amid_a_record(draft: Path) -> None:
    os.truncate(sums(draft), sums(draft).stat().st_size - 7)


def journal_is_garbage(draft: Path) -> None:
    sums(draft).write_bytes(os.urandom(321))


def journal_is_huge(draft: Path) -> None:
    sums(draft).write_bytes(sums(draft).read_bytes() * 1000)


def journal_of_another(draft: Path) -> None:
    record = b"".join(index.to_bytes(8, "little") + os.urandom(32) for index in range(8))
    sums(draft).write_bytes(record)


def journal_is_a_directory(draft: Path) -> None:
    sums(draft).unlink()
    sums(draft).mkdir()


def journal_is_a_fifo(draft: Path) -> None:
    sums(draft).unlink()
    os.mkfifo(sums(draft))


DAMAGES: list[Callable[[Path], None]] = [
    zero_a_page,
    fill_with_garbage,
    cut,
    append,
    allocate_zeros,
    make_it_a_directory,
    journal_gone,
    journal_cut_amid_a_record,
    journal_is_garbage,
    journal_is_huge,
    journal_of_another,
    journal_is_a_directory,
    journal_is_a_fifo,
]


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Path]]:
    """A store with drafts, killed at two thirds; to be copied. Its Hub is for all who use it."""
    directory = tmp_path_factory.mktemp("unfinished")
    with pytest.MonkeyPatch.context() as patch, hub_serving(patch, {BIG: FILES}) as hub:
        patch.setenv("HOME", str(directory))
        patch.setenv("XDG_CONFIG_HOME", str(directory / "config"))
        write_config(directory, {"lanes": LANES, "hedge_chunks_min": 1})
        leave_unfinished(hub, directory / "store", 0.66)
        yield hub, directory / "store"


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda each: each.__name__)
def test_a_damaged_draft_is_mended_by_fetching_what_is_wrong_in_it(
    unfinished: tuple[Hub, Path], home: Path, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, store = unfinished
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    subprocess.run(["cp", "-a", "--sparse=always", store, home], check=True)
    draft = max((home / "drafts").glob("*.partial"), key=lambda each: each.stat().st_blocks)
    held = len(sums(draft).read_bytes()) // 40 * CHUNK_BYTES
    damage(draft)
    before = bytes_asked(hub, "weights.bin")
    snapshot = diachunk.fetch(f"hub:{BIG}", home=home)
    moved = [each for each in left_in(home / "drafts") if "moved-aside" in each]
    for each in moved:
        shutil.rmtree(home / "drafts" / each)
    assert_is(snapshot, FILES, home)
    if damage in (zero_a_page, journal_cut_amid_a_record):
        asked = bytes_asked(hub, "weights.bin") - before
        assert asked <= len(FILES["weights.bin"]) - held + 2 * CHUNK_BYTES, "one piece (and a hedge), not all"


def test_a_journal_with_half_a_record_is_readable_again_after_the_next_run(
    unfinished: tuple[Hub, Path], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, store = unfinished
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    subprocess.run(["cp", "-a", "--sparse=always", store, home], check=True)
    draft = max((home / "drafts").glob("*.partial"), key=lambda each: each.stat().st_blocks)
    journal_cut_amid_a_record(draft)
    hub.fail(Part.CDN, faults.Status(404), skip=2)  # brings a piece or two more, and ends
    with pytest.raises(DiachunkError):
        diachunk.fetch(f"hub:{BIG}", home=home)
    hub.rules.clear()
    left = bytes_asked(hub, "weights.bin")
    held = len(sums(draft).read_bytes()) // 40 * CHUNK_BYTES
    assert_is(diachunk.fetch(f"hub:{BIG}", home=home), FILES, home)
    assert bytes_asked(hub, "weights.bin") - left <= len(FILES["weights.bin"]) - held + CHUNK_BYTES


def test_a_link_in_the_drafts_place_is_never_written_through(hub: Hub, home: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    for draft in leave_unfinished(hub, home):
        for path in (draft, sums(draft)):
            path.unlink(missing_ok=True)
        draft.symlink_to(precious)
    assert diachunk.fetch(f"hub:{BIG}", home=home).path("config.json").read_bytes() == b"{}"
    assert precious.read_bytes() == b"precious"


def test_a_link_in_the_journals_place_is_never_written_through(hub: Hub, home: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"")
    for draft in leave_unfinished(hub, home):
        sums(draft).unlink(missing_ok=True)
        sums(draft).symlink_to(precious)
    try:
        diachunk.fetch(f"hub:{BIG}", home=home)
    except StoreError as error:
        assert one_line(f"diachunk: {error.message}")
    assert precious.read_bytes() == b""


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
    with pytest.raises(StoreError, match="needs .* bytes of disk"):
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
    found = json.loads(run("show", "hub:lab/memory", "--json", DIACHUNK_HOME=str(home)).stdout.splitlines()[0])
    assert found
