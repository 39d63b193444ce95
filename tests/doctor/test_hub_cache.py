"""The Hub client's cache: cut off, dangling, half-filled, orphaned; and its switches."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

import diachunk
from fixtures.checkpoints import published, tree
from fixtures.doctored import call, cured, diagnose

COMMIT = "ab" * 20
LARGE = bytes(range(256)) * 500
SHA = hashlib.sha256(LARGE).hexdigest()


@pytest.fixture
def repository(user: Path) -> Path:
    """A cache as the client leaves it: two files at one commit."""
    root = user / ".cache" / "huggingface" / "hub" / "models--lab--dia"
    small = b"{}\n"
    git = hashlib.sha1(b"blob 3\0" + small).hexdigest()
    (root / "blobs").mkdir(parents=True)
    (root / "blobs" / SHA).write_bytes(LARGE)
    (root / "blobs" / git).write_bytes(small)
    snapshot = root / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(f"../../blobs/{SHA}")
    (snapshot / "config.json").symlink_to(f"../../blobs/{git}")
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    return root


def listed(repository: Path) -> None:
    """The listing that newer clients keep."""
    entry = {"size": len(LARGE), "blob_id": "cd" * 20, "lfs_sha256": SHA, "lfs_size": len(LARGE)}
    (repository / "trees").mkdir()
    text = json.dumps({"format_version": 1, "files": {"model.safetensors": entry}})
    (repository / "trees" / f"{COMMIT}.json").write_text(text)


def verify_can_mend_caches() -> bool:
    return "--cache" in call("diachunk", "verify", "--help").stdout


def test_a_cache_that_is_well(repository: Path) -> None:
    listed(repository)
    found = diagnose("--offline")
    assert found.worse == []
    assert [
        each for each in found.findings if "2 blobs in the Hub's cache, of the right size" in each["what"]
    ]


@pytest.mark.parametrize("count", [1, 5])
def test_unfinished_downloads_of_the_client(repository: Path, count: int) -> None:
    orphans = [repository / "blobs" / f"{number:064x}.0a1b2c3d.incomplete" for number in range(count)]
    for each in orphans:
        each.write_bytes(b"x" * 200_000)
    assert diagnose("--offline").worse == [], "the client may be at work on them"
    for each in orphans:
        os.utime(each, (time.time() - 600,) * 2)
    finding = diagnose("--offline").the("which it will not go on with", "warning")
    assert finding["what"].startswith(f"{count * 0.2:.1f} MB in " if count > 4 else "200.0 kB in ")
    assert "diachunk adopt" in finding["cure"]
    assert cured(finding, "--offline").worse == []
    assert not any(each.exists() for each in orphans)
    assert (repository / "blobs" / SHA).exists()


@pytest.mark.parametrize("known_by", ["the client's listing", "a manifest here", "nobody, but it is empty"])
@pytest.mark.parametrize("change", [-1000, 7])
def test_a_blob_of_the_wrong_size(repository: Path, user: Path, known_by: str, change: int) -> None:
    if known_by == "the client's listing":
        listed(repository)
    elif known_by == "a manifest here":
        done = published(tree(user / "served", {"model/model.safetensors": LARGE}), "lab/dia")
        diachunk.publish([f"model={done.root / 'model'}"], name="lab/dia")
    elif change > 0:
        pytest.skip("what nobody knows can only be seen to be empty")
    size = 0 if "empty" in known_by else len(LARGE) + change
    os.truncate(repository / "blobs" / SHA, size)
    found = diagnose("--offline")
    finding = found.the("lab/dia: model.safetensors is", "fault")
    assert ("cut off" if change < 0 else "too long") in finding["what"]
    assert found.exit_code == 4
    assert finding["cure"] == "diachunk verify --cache hub --repair"
    if known_by == "a manifest here":
        if not verify_can_mend_caches():
            pytest.skip("`verify --cache` is not here yet")
        assert cured(finding, "--offline").worse == []
        assert (repository / "blobs" / SHA).read_bytes() == LARGE


def test_a_link_that_leads_nowhere(repository: Path) -> None:
    (repository / "blobs" / SHA).unlink()
    found = diagnose("--offline")
    finding = found.the(
        "lab/dia: model.safetensors in the Hub's cache leads to a file that is not there", "fault"
    )
    assert found.exit_code == 4
    assert cured(finding, "--offline").worse == []
    assert (repository / "snapshots" / COMMIT / "config.json").exists()


def test_many_links_that_lead_nowhere(repository: Path) -> None:
    for number in range(6):
        (repository / "snapshots" / COMMIT / f"shard-{number}").symlink_to(f"../../blobs/{number:064x}")
    finding = diagnose("--offline").the("and 5 others", "fault")
    assert cured(finding, "--offline").worse == []
    assert (repository / "snapshots" / COMMIT / "config.json").exists()


def test_a_ref_to_a_commit_of_which_nothing_is_here(repository: Path) -> None:
    (repository / "refs" / "v2").write_text("ef" * 20)
    finding = diagnose("--offline").the("lab/dia: v2 is at efefefefefef…", "warning")
    assert cured(finding, "--offline").worse == []


@pytest.mark.parametrize("text", ["", "not a commit", "../../../etc", "\x1b[31m" + "a" * 300])
def test_a_ref_that_is_none(repository: Path, text: str) -> None:
    (repository / "refs" / "main").write_text(text)
    finding = diagnose("--offline").the("lab/dia: main is at", "warning")
    assert "\x1b" not in finding["what"]
    assert cured(finding, "--offline").worse == []


def test_offline_while_something_is_missing(repository: Path) -> None:
    (repository / "blobs" / SHA).unlink()
    finding = diagnose("--offline", HF_HUB_OFFLINE="1").the("but lab/dia is not complete", "fault")
    again = cured(finding, "--offline", HF_HUB_OFFLINE="1")
    assert not again.about("HF_HUB_OFFLINE")
    assert not diagnose("--offline", HF_HUB_OFFLINE="0").about("HF_HUB_OFFLINE")


def test_offline_with_everything_here_is_a_note(repository: Path) -> None:
    assert diagnose("--offline", HF_HUB_OFFLINE="1").the("programs ask the Hub for nothing", "note")


def test_switches_of_the_client_are_notes() -> None:
    found = diagnose("--offline", HF_HUB_ENABLE_HF_TRANSFER="1", HF_HUB_DISABLE_XET="true")
    assert found.worse == []
    assert found.summary["notes"] == 2


@pytest.mark.parametrize(
    ("variable", "value"), [("HF_HOME", ""), ("HF_HUB_CACHE", "cache"), ("HF_HOME", "./hf")]
)
def test_a_place_that_depends_on_where_one_is(variable: str, value: str) -> None:
    setting = {variable: value}
    finding = diagnose("--offline", **setting).the(f"{variable} is", "warning")
    assert cured(finding, "--offline", **setting).worse == []


def test_a_place_that_cannot_be(user: Path) -> None:
    (user / "file").touch()
    setting = {"HF_HOME": str(user / "file")}
    finding = diagnose("--offline", **setting).the("is not a directory", "fault")
    assert cured(finding, "--offline", **setting).worse == []


@pytest.mark.parametrize(
    "text", ["[", "[]", '{"files": 3}', '{"files": {"a": 3}}', '{"files": {"a": {"size": "x"}}}', "[" * 9000]
)
def test_a_listing_of_strangers_is_no_trouble(repository: Path, text: str) -> None:
    (repository / "trees").mkdir()
    (repository / "trees" / f"{COMMIT}.json").write_text(text)
    found = diagnose("--offline")
    assert not found.about("itself failed")
    assert found.worse == []
