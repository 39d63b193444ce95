"""Two real users on one site store, a lower store, and stores that somebody may not read or write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import diachunk
from diachunk.testing.servers import Nginx
from fixtures import damage
from fixtures.checkpoints import MIB, Checkpoint, assert_store_is_right, blobs_of, published, tree
from fixtures.gate import held_fetch
from fixtures.users import User, config_home, need_users, one_line, shared_directory

pytestmark = pytest.mark.loopback

GROUP = 61000
ANN = User(61001, 61001, (GROUP,))
BOB = User(61002, 61002, (GROUP,))
OUTSIDER = User(61003, 61003)
WEIGHTS_BYTES = 18 * MIB + 77


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody can reach and write, for what the users of a test share."""
    need_users()
    with shared_directory(0o777) as directory:
        yield directory


@pytest.fixture
def site(place: Path) -> Path:
    """An empty store of the group, as an administrator makes it."""
    home = place / "site"
    home.mkdir()
    os.chown(home, 0, GROUP)
    home.chmod(0o2775)
    return home


@pytest.fixture
def served(place: Path) -> Checkpoint:
    files = {"model/weights.bin": os.urandom(WEIGHTS_BYTES), "model/config.json": b"{}"}
    done = published(tree(place / "served", files))
    for path in (done.manifest_file, *done.root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return done


@pytest.fixture
def environment(place: Path, site: Path) -> dict[str, str]:
    """With one lane, so that what was sent before a request was verified and written when it comes."""
    return {
        "DIACHUNK_HOME": str(site),
        "XDG_CONFIG_HOME": str(config_home(place, {"lanes": 1, "patience_s": 2.0})),
        "HOME": str(place),
    }


def weights_of(home: Path) -> Path:
    return max(blobs_of(home), key=lambda each: each.stat().st_size)


def test_what_one_fetched_the_other_uses_verifies_and_repairs(
    served: Checkpoint, site: Path, environment: dict[str, str]
) -> None:
    with Nginx(served.root) as origin:
        done = ANN.run("fetch", served.target, "--origin", origin.url, **environment)
        assert done.returncode == 0, done.stderr
        before = origin.bytes_sent()
        done = BOB.run("fetch", served.target, **environment)
        assert done.returncode == 0, done.stderr
        assert BOB.run("verify", served.target, **environment).returncode == 0
        blob = weights_of(site)
        assert blob.stat().st_uid == ANN.uid
        assert blob.stat().st_gid == GROUP
        damage.flip(blob)
        found = BOB.run("verify", **environment)
        assert found.returncode == 4
        assert "model/weights.bin: damaged" in found.stdout
        mended = BOB.run("verify", "--repair", "--origin", origin.url, **environment)
        assert mended.returncode == 0, mended.stderr
        assert before < origin.bytes_sent() <= before + 4 * MIB
    assert_store_is_right(site)
    for user in (ANN, BOB):
        assert user.run("verify", **environment).returncode == 0
    # what Bob made is Ann's to remove, and gone it is
    assert ANN.run("rm", served.manifest.hex_id, **environment).returncode == 0
    assert blobs_of(site) == []


def test_what_one_began_the_other_finishes(
    served: Checkpoint, site: Path, environment: dict[str, str]
) -> None:
    words = ["fetch", served.target]
    with held_fetch(served.root, 3, served.target, user=ANN, **environment) as held:
        held.stop()
        verified_bytes = held.sent_bytes(3)
    (partial,) = site.glob("blobs/??/*.partial")
    assert partial.stat().st_uid == ANN.uid
    with Nginx(served.root) as origin:
        done = BOB.run(*words, "--origin", origin.url, **environment)
        assert done.returncode == 0, done.stderr
        assert origin.bytes_sent() == served.total_bytes - verified_bytes
    assert_store_is_right(site)
    assert ANN.run("verify", **environment).returncode == 0
    assert ANN.run(*words, **environment).returncode == 0


def test_somebody_outside_the_group_reads_and_is_told_that_he_cannot_write(
    served: Checkpoint, site: Path, place: Path, environment: dict[str, str]
) -> None:
    assert ANN.run("fetch", served.target, "--origin", served.root, **environment).returncode == 0
    other = published(tree(place / "other", {"w.bin": os.urandom(MIB)}), "lab/other")
    for path in (other.manifest_file, other.root / "w.bin"):
        path.chmod(0o644)
    may: list[list[str | Path]] = [
        ["ls"],
        ["show", served.target],
        ["verify"],
        ["verify", served.target],
        ["fetch", served.target],
    ]
    may_not: list[list[str | Path]] = [
        ["fetch", other.target, "--origin", other.root, "-q"],
        ["publish", "--copy", "--name", "lab/x", other.root, "-q"],
        ["rm", served.manifest.hex_id],
        ["gc", "--max-size", "0"],
    ]
    ends = OUTSIDER.run_each([*may, *may_not], **environment)
    assert [each.returncode for each in ends] == [0] * len(may) + [6] * len(may_not), ends
    for each in ends[len(may) :]:
        assert one_line(each.stderr), each
        assert "Permission denied" in each.stderr
    assert BOB.run("verify", **environment).returncode == 0


def test_a_lower_store_that_may_only_be_read_gives_what_it_has(
    served: Checkpoint, site: Path, place: Path, environment: dict[str, str]
) -> None:
    assert ANN.run("fetch", served.target, "--origin", served.root, **environment).returncode == 0
    damage.flip(weights_of(site))
    before = {path: path.lstat().st_mtime_ns for path in site.rglob("*")}
    own = {**environment, "DIACHUNK_HOME": str(place / "own"), "DIACHUNK_STORES": str(site)}
    with Nginx(served.root) as origin:
        done = OUTSIDER.run("fetch", served.target, "--origin", origin.url, **own)
        assert done.returncode == 0, done.stderr
        # the chunk that is damaged there, and no more
        assert 0 < origin.bytes_sent() <= 4 * MIB
    assert_store_is_right(place / "own")
    assert OUTSIDER.run("verify", **own).returncode == 0
    assert {path: path.lstat().st_mtime_ns for path in site.rglob("*")} == before


VERBS = ("ls", "show", "verify", "fetch", "fetch new", "publish", "gc", "rm")
REFUSES = {
    # may neither be entered nor listed
    ("blobs", 0o700): {"ls", "show", "verify", "fetch", "fetch new", "gc", "rm"},
    ("manifests", 0o700): set(VERBS),
    ("refs", 0o700): set(VERBS),
    ("pins", 0o700): {"ls", "fetch new", "gc", "rm"},
    ("adopted", 0o700): {"publish", "gc"},
    ("snapshots", 0o700): {"fetch", "fetch new", "publish", "rm"},
    (".", 0o700): set(VERBS),
    # may be read, but nothing can be made or removed there
    ("blobs", 0o755): {"fetch new"},
    ("manifests", 0o755): {"fetch new", "publish", "rm"},
    ("pins", 0o755): {"fetch new"},
    ("adopted", 0o755): {"publish"},
    ("snapshots", 0o755): {"fetch new", "publish"},
}


@pytest.mark.parametrize(("name", "mode"), REFUSES, ids=[f"{name}-{mode:o}" for name, mode in REFUSES])
def test_a_part_of_the_store_that_is_somebody_elses_is_named_in_one_line_and_nothing_is_lost(
    place: Path, environment: dict[str, str], name: str, mode: int
) -> None:
    home = place / "home"
    one, two = (tree(place / each, {"w.bin": os.urandom(100_000)}) for each in ("one", "two"))
    diachunk.publish([one], name="lab/one", copy=True, home=home)
    diachunk.publish([two], name="lab/two", store=False, out=place / "two.json")
    os.utime(next((home / "manifests").iterdir()), (0, 0))
    for path in (home, *home.rglob("*")):
        os.chown(path, OUTSIDER.uid, OUTSIDER.gid, follow_symlinks=False)
    part = home / name
    os.chown(part, 0, 0)
    part.chmod(mode)
    commands: list[list[str | Path]] = [
        ["ls"],
        ["show", "lab/one"],
        ["verify", "lab/one"],
        ["fetch", "lab/one"],
        ["fetch", place / "two.json", "--origin", two, "-q"],
        ["publish", "--name", "lab/three", two, "-q"],
        ["gc"],
        ["rm", "lab/one"],
    ]
    blob = weights_of(home)
    env = {**environment, "DIACHUNK_HOME": str(home)}
    ends = OUTSIDER.run_each(commands[:-1], **env)
    assert blob.exists(), "collected although nobody could know whether it is needed"
    ends += OUTSIDER.run_each(commands[-1:], **env)
    for verb, end in zip(VERBS, ends, strict=True):
        assert end.returncode == 6 or (end.returncode == 0 and verb not in REFUSES[name, mode]), (verb, end)
        if end.returncode:
            error = end.stderr[end.stderr.index("diachunk: ") :]
            assert one_line(error), (verb, end)
            assert "Permission denied" in error
            assert str(home) in error
    part.chmod(0o755)
    diachunk.publish([one], name="lab/one", copy=True, home=home)
    assert diachunk.verify(home=home).ok
    assert_store_is_right(home)
