"""Manifests that come from hostile sites, and manifests that lie about what others say."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

import diachunk
from diachunk.digest import digest_of
from diachunk.errors import DiachunkError, ManifestError, TransferIncomplete
from diachunk.testing import faults
from diachunk.testing.bad_server import BadServer
from diachunk.testing.faults import Redirect, always
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import (
    MIB,
    Checkpoint,
    assert_same_files,
    assert_store_is_right,
    blobs_of,
    published,
    tree,
)
from fixtures.raw_answers import RAW, body_byte_by_byte
from fixtures.raw_server import Answer, RawServer
from fixtures.settings import QUICK, write_config
from fixtures.watch import fetch

pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("quick")]

BOUND_S = QUICK["patience_s"] + 4 * QUICK["stall_s"] + 4
SECRET = "hunter2-hunter2"


# --- manifests from a URL ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (faults.NotFound(), TransferIncomplete, "404"),
        (faults.Html(), TransferIncomplete, "HTML page"),
        (faults.Gzip(), DiachunkError, None),
        (faults.RedirectLoop(), TransferIncomplete, "redirects"),
        (faults.StallBeforeHeader(), TransferIncomplete, "no answer"),
        (faults.StallAfter(100), TransferIncomplete, None),
        (faults.ShortBody(10), TransferIncomplete, "early"),
        (faults.Reset(100), TransferIncomplete, None),
        (Redirect("http://[::1"), TransferIncomplete, None),
        (faults.ChangeFile(b"[" * 100_000), ManifestError, None),
        (faults.ChangeFile(b"{}"), ManifestError, None),
    ],
    ids=lambda each: type(each).__name__ if hasattr(each, "apply") else "",
)
def test_a_manifest_that_does_not_come_is_one_clear_line(
    small: Checkpoint, home: Path, fault: faults.Fault, kind: type[DiachunkError], words: str | None
) -> None:
    with BadServer(small.root.parent, always(fault)) as site:
        started_at = time.monotonic()
        with pytest.raises(kind, match=words) as caught:
            diachunk.fetch(f"{site.url}/{small.manifest_file.name}", home=home)
        assert time.monotonic() - started_at < BOUND_S + 4 * QUICK["patience_s"]
    assert str(caught.value).isprintable()
    assert f"127.0.0.1:{site.port}" in str(caught.value)


@pytest.mark.parametrize("answer", [*RAW, body_byte_by_byte], ids=lambda each: each.__name__)
def test_a_site_that_never_ends_its_manifest_is_given_up_in_time(
    home: Path, base: Path, answer: Answer
) -> None:
    write_config(base, {**QUICK, "patience_s": 0.3})
    with RawServer(answer) as site:
        started_at = time.monotonic()
        with pytest.raises(DiachunkError) as caught:
            diachunk.fetch(f"{site.url}/manifest.json", home=home)
        assert time.monotonic() - started_at < 6
    assert f"127.0.0.1:{site.port}" in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_manifest_over_the_cap_is_not_read_to_its_end(small: Checkpoint, home: Path, base: Path) -> None:
    write_config(base, {**QUICK, "manifest_bytes_max": 2000})
    with BadServer(small.root.parent, always(faults.ChangeFile(bytes(50 * MIB)))) as site:
        with pytest.raises(ManifestError, match="over 2,000 bytes"):
            diachunk.fetch(f"{site.url}/{small.manifest_file.name}", home=home)
        assert site.body_bytes < 20 * MIB


# --- manifests that contradict each other --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rivals:
    """Two manifests that name one blob: what it is, and what somebody claims that it is."""

    honest: Checkpoint
    liar: Checkpoint


@pytest.fixture
def rivals(tmp_path: Path) -> Rivals:
    true, false = os.urandom(9 * MIB), os.urandom(9 * MIB)
    honest = published(tree(tmp_path / "honest", {"w.bin": true}), "lab/honest")
    lying = published(tree(tmp_path / "lying", {"w.bin": false}), "lab/liar")
    document = json.loads(lying.manifest_file.read_bytes())
    file = document["content"]["components"][0]["files"][0]
    file["blake3"] = digest_of(true).hex()
    file.pop("sha256")
    lying.manifest_file.write_text(json.dumps(document))
    return Rivals(honest, lying)


def test_a_liars_manifest_is_refused_where_the_true_blob_is(rivals: Rivals, home: Path) -> None:
    fetch(rivals.honest, str(rivals.honest.root), home=home)
    with pytest.raises(ManifestError, match="do not use this manifest"):
        diachunk.fetch(rivals.liar.target, origins=[str(rivals.liar.root)], home=home)
    assert_store_is_right(home)
    assert_same_files(fetch(rivals.honest, home=home).snapshot.directory, rivals.honest)


def test_a_true_manifest_wins_where_a_liar_was_first(rivals: Rivals, home: Path) -> None:
    diachunk.fetch(rivals.liar.target, origins=[str(rivals.liar.root)], home=home)
    done = diachunk.fetch(rivals.honest.target, origins=[str(rivals.honest.root)], home=home)
    assert_same_files(done.directory, rivals.honest)
    assert_store_is_right(home)
    with pytest.raises(ManifestError, match="do not use this manifest"):
        diachunk.fetch(rivals.liar.target, origins=[str(rivals.liar.root)], home=home)
    assert_same_files(done.directory, rivals.honest)


def test_a_liars_unfinished_partial_does_no_harm(rivals: Rivals, home: Path) -> None:
    class Enough(Exception):
        pass

    def stop(event: diachunk.Event) -> None:
        if event.bytes:
            raise Enough

    with Nginx(rivals.liar.root, rate_bps=2 * MIB) as origin, pytest.raises(Enough):
        diachunk.fetch(rivals.liar.target, origins=[origin.url], home=home, progress=stop)
    done = diachunk.fetch(rivals.honest.target, origins=[str(rivals.honest.root)], home=home)
    assert_same_files(done.directory, rivals.honest)
    with pytest.raises(ManifestError, match="do not use this manifest"):
        diachunk.fetch(rivals.liar.target, origins=[str(rivals.liar.root)], home=home)
    assert [each.name for each in blobs_of(home)] == [
        digest_of((done.directory / "w.bin").read_bytes()).hex()
    ]
