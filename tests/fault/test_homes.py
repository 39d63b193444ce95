"""Odd homes, odd names, odd sizes, odd clocks: told in one line, or all is well."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import subprocess
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import diachunk
from diachunk.errors import TransferIncomplete, UsageError
from diachunk.store import layout, mounts
from diachunk.testing.bad_server import BadServer, refused_port
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import MIB, Checkpoint, assert_same_files, assert_store_is_right, published, tree
from fixtures.command_line import run
from fixtures.gate import Gate, held_fetch
from fixtures.settings import write_config
from fixtures.users import User, need_users, one_line, shared_directory
from fixtures.watch import Told, fetch

pytestmark = pytest.mark.loopback

NOBODY = User(61009, 61009)
YEARS_S = 10 * 365 * 86400.0


@pytest.fixture
def served(tmp_path: Path) -> Checkpoint:
    files = {"model/weights.bin": os.urandom(10 * MIB + 5), "model/config.json": b"{}"}
    return published(tree(tmp_path / "served", files))


@pytest.fixture
def place() -> Iterator[Path]:
    need_users()
    with shared_directory(0o777) as directory:
        tree(directory / "mine", {"w.bin": os.urandom(1000)})
        yield directory


# --- homes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("home", [None, "", "read-only", "missing"])
def test_without_a_usable_home_one_line_says_to_set_diachunk_home(place: Path, home: str | None) -> None:
    (place / "read-only").mkdir()
    (place / "read-only").chmod(0o555)
    directory = str(place / home) if home else home
    nowhere = {"HOME": directory, "DIACHUNK_HOME": None, "XDG_CONFIG_HOME": None, "XDG_CACHE_HOME": None}
    mine = place / "mine"
    needing: list[list[str | Path]] = [["ls"], ["publish", "--name", "lab/x", mine, "-q"], ["fetch", "lab/x"]]
    if home == "missing":
        place.chmod(0o755)
    for words in needing:
        done = NOBODY.run(*words, **nowhere)
        assert done.returncode == 6, (words, done)
        assert one_line(done.stderr), (words, done)
        assert "DIACHUNK_HOME" in done.stderr
    # what needs no store works
    needless: list[list[str | Path]] = [
        ["--version"],
        ["publish", "--no-store", "--name", "lab/x", mine, "-q"],
    ]
    for words in needless:
        assert NOBODY.run(*words, **nowhere).returncode == 0
    place.chmod(0o777)
    done = NOBODY.run(
        "publish", "--name", "lab/x", mine, "-q", **{**nowhere, "DIACHUNK_HOME": str(place / "store")}
    )
    assert done.returncode == 0, done.stderr


def on_a_share(monkeypatch: pytest.MonkeyPatch, host: str = "one") -> None:
    monkeypatch.setattr(mounts, "file_system", lambda path, mountinfo=None: "nfs4")
    monkeypatch.setattr(layout, "this_host", lambda: host)


def test_a_store_on_a_network_file_system_warns_once(
    served: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_share(monkeypatch)
    told = Told()
    diachunk.fetch(served.target, origins=[str(served.root)], home=home, progress=told)
    notices = [each.text for each in told.events if isinstance(each, diachunk.Notice)]
    assert len([text for text in notices if "network file system" in text and str(home) in text]) == 1, (
        notices
    )


def test_hosts_that_share_a_store_fill_partials_of_their_own(
    served: Checkpoint, home: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Enough(Exception):
        pass

    def stop(event: diachunk.Event) -> None:
        if gate.reached:
            raise Enough

    write_config(base, {"lanes": 1})
    gate = Gate(2)
    on_a_share(monkeypatch)
    with BadServer(served.root, gate.script) as origin:
        with pytest.raises(Enough):
            diachunk.fetch(served.target, origins=[origin.url], home=home, progress=stop)
        gate.open()
    (left,) = home.glob("blobs/??/*.one.partial")
    before = left.read_bytes()
    on_a_share(monkeypatch, "two")
    fetch(served, str(served.root), home=home)
    assert left.read_bytes() == before
    assert not list(home.glob("blobs/??/*.two.partial"))
    on_a_share(monkeypatch, "one")
    assert fetch(served, home=home).report.fetched_bytes == 0
    os.utime(left, (0, 0))
    assert [each.kind for each in diachunk.gc(home=home).removed] == ["partial"]
    assert_store_is_right(home)


# --- names and sizes ---------------------------------------------------------------------------------------


def test_an_empty_file_needs_no_origin(tmp_path: Path, home: Path, base: Path) -> None:
    write_config(base, {"patience_s": 1.0})
    dead = f"http://127.0.0.1:{refused_port()}"
    empty = published(
        tree(tmp_path / "empty", {"model/nothing.bin": b"", "model/also.bin": b""}), "lab/empty"
    )
    for to in (None, tmp_path / "out"):
        done = fetch(empty, dead, home=home, to=to)
        assert_same_files(done.snapshot.directory, empty)
    assert_store_is_right(home)
    both = published(tree(tmp_path / "both", {"model/nothing.bin": b"", "model/w.bin": b"x"}), "lab/both")
    with pytest.raises(TransferIncomplete) as caught:
        diachunk.fetch(both.target, origins=[dead], home=home)
    assert "model/w.bin" in str(caught.value)
    assert "1 bytes" in str(caught.value)


LONG = ["x" * 255, "é" * 127 + "x", "日" * 85, f"{'d' * 255}/{'日' * 85}/{'f' * 255}"]


def test_names_of_255_bytes_are_published_fetched_and_repaired(tmp_path: Path, home: Path) -> None:
    files = {f"model/{name}": os.urandom(100 + number) for number, name in enumerate(LONG)}
    long = published(tree(tmp_path / "long", files), "lab/long")
    with Nginx(long.root) as origin:
        assert_same_files(fetch(long, origin.url, home=home).snapshot.directory, long)
    to = tmp_path / "out"
    assert_same_files(fetch(long, home=home, to=to).snapshot.directory, long)
    for name in files:
        (to / name).write_bytes(b"spoilt")
    mended = diachunk.verify([long.target], directory=to, home=home, repair=True, force=True)
    assert mended.ok
    assert_same_files(to, long)
    diachunk.publish([f"model={long.root / 'model'}"], name="lab/here", home=home)
    assert diachunk.verify(home=home).ok


def test_a_name_is_the_same_however_its_accents_are_composed(tmp_path: Path, home: Path) -> None:
    composed = unicodedata.normalize("NFC", "modèle-é.bin")
    taken_apart = unicodedata.normalize("NFD", composed)
    assert composed != taken_apart
    one = published(tree(tmp_path / "one", {composed: b"weights"}))
    two = published(tree(tmp_path / "two", {taken_apart: b"weights"}))
    assert one.manifest.id == two.manifest.id
    assert [file.path for _, file in two.manifest.walk()] == [composed]
    assert_same_files(fetch(two, str(one.root), home=home).snapshot.directory, one)
    (tmp_path / "two" / composed).write_bytes(b"another")
    if len(list((tmp_path / "two").iterdir())) == 2:  # some file systems take them for one
        with pytest.raises(UsageError, match="two files for"):
            diachunk.publish([tmp_path / "two"], name="lab/x", home=home)


def test_a_large_file_of_holes_is_published_as_what_it_reads_as_and_takes_no_disk(tmp_path: Path) -> None:
    sparse = tmp_path / "sparse.bin"
    with sparse.open("wb") as file:
        file.write(b"begin")
        file.truncate(300 * MIB + 7)
        file.seek(200 * MIB - 1)
        file.write(b"middle")
    done = diachunk.publish([sparse], name="lab/sparse", store=False)
    (entry,) = (file for _, file in done.manifest.walk())
    with sparse.open("rb") as reader:
        assert entry.sha256 == hashlib.file_digest(reader, "sha256").hexdigest()
    said = subprocess.run(["b3sum", "--no-names", sparse], capture_output=True, text=True, check=True)
    assert entry.blake3.hex() == said.stdout.strip()
    # besides those with the beginning, the two halves of the middle and the tail there is one, again and again
    assert len({digest for _, digest in entry.chunks}) == 5
    assert sparse.stat().st_blocks * 512 < MIB


# --- clocks ------------------------------------------------------------------------------------------------


def jumping(step_s: float) -> Callable[[], float]:
    """A clock that is now right and now off by so much."""
    offsets = itertools.cycle((0.0, step_s, -step_s))
    real = time.time
    return lambda: real() + next(offsets)


@pytest.mark.parametrize("step_s", [YEARS_S, 3600.0])
def test_a_clock_that_jumps_during_everything_loses_nothing(
    served: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch, step_s: float
) -> None:
    monkeypatch.setattr(time, "time", jumping(step_s))
    with Nginx(served.root) as origin:
        done = fetch(served, origin.url, home=home)
        for _ in range(3):
            assert diachunk.gc(home=home).removed == []
        assert diachunk.verify(home=home, repair=True).ok
        assert fetch(served, home=home).report.present_bytes == served.total_bytes
        assert origin.bytes_sent() == served.total_bytes
    assert_same_files(done.snapshot.directory, served)
    assert len(diachunk.ls(home).held) == 1


@pytest.mark.parametrize("step_s", [YEARS_S, -YEARS_S])
def test_a_collection_under_a_wrong_clock_takes_nothing_from_a_fetch_under_way(
    served: Checkpoint, home: Path, base: Path, monkeypatch: pytest.MonkeyPatch, step_s: float
) -> None:
    write_config(base, {"lanes": 1})
    wrong = time.time() + step_s
    with held_fetch(served.root, 2, served.target, DIACHUNK_HOME=str(home)) as held:
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: wrong)
            diachunk.gc(home=home)
        code, said = held.go_on()
        assert code == 0, said
    assert [each.complete for each in diachunk.ls(home).held] == [True]
    assert diachunk.gc(home=home).removed == []
    assert_same_files(Path(fetch(served, home=home).snapshot), served)
    assert_store_is_right(home)


@pytest.mark.parametrize("then", [0.0, 1.0, 4_000_000_000.0])
def test_times_that_make_no_sense_on_disk_lose_nothing(
    served: Checkpoint, home: Path, tmp_path: Path, then: float
) -> None:
    with held_fetch(served.root, 3, served.target, DIACHUNK_HOME=str(home)) as held:
        held.stop()
    for path in home.rglob("*"):
        os.utime(path, (then, then), follow_symlinks=False)
    unfinished = tmp_path / "copy"
    shutil.copytree(home, unfinished, symlinks=True)
    diachunk.gc(home=home)
    for store in (home, unfinished):
        done = fetch(served, str(served.root), home=store)
        assert_same_files(done.snapshot.directory, served)
        for path in store.rglob("*"):
            os.utime(path, (then, then), follow_symlinks=False)
        assert diachunk.gc(home=store).removed == []
        listed = run("ls", DIACHUNK_HOME=str(store))
        assert listed.returncode == 0
        assert "  -" not in listed.stdout, listed.stdout
        assert diachunk.verify(home=store).ok
        assert_store_is_right(store)
