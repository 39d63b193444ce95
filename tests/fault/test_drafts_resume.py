"""A recipe's fetch that was killed goes on where it was; what lies in a draft is compared with its journal."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
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
from fixtures.settings import write_config

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
    with contextlib.suppress(StoreError):  # in words, or it does without the journal
        diachunk.fetch(f"hub:{BIG}", home=home)
    assert precious.read_bytes() == b""
