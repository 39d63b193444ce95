"""What a fetch leaves in the store, and what it finds there the next time."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import diachunk
from diachunk.errors import UsageError
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
from fixtures.settings import write_config
from fixtures.watch import fetch

pytestmark = pytest.mark.loopback

FETCH_IN_A_PROCESS = """
import sys, diachunk
diachunk.fetch(sys.argv[1], origins=[sys.argv[2]], home=sys.argv[3])
"""


def test_blobs_are_named_by_b3sum_and_read_only(small: Checkpoint, home: Path) -> None:
    fetch(small, str(small.root), home=home)
    assert_store_is_right(home)
    assert {stat.S_IMODE(each.stat().st_mode) for each in blobs_of(home)} == {0o444}
    assert {each.name for each in blobs_of(home)} == {file.blake3.hex() for _, file in small.manifest.walk()}


def test_the_snapshot_is_a_path_and_its_links_are_relative(small: Checkpoint, home: Path) -> None:
    snapshot = fetch(small, str(small.root), home=home).snapshot
    assert os.path.isdir(snapshot)
    shard = snapshot.path("model/model-00001-of-00003.safetensors")
    assert shard.read_bytes() == small.file("model/model-00001-of-00003.safetensors").read_bytes()
    assert snapshot.path("vocoder").is_dir()
    links = [each for each in Path(snapshot).rglob("*") if each.is_symlink()]
    assert len(links) == 7
    assert not any(os.path.isabs(os.readlink(each)) for each in links)
    moved = home.rename(home.with_name("moved"))
    assert (moved / shard.relative_to(home)).read_bytes() == small.file(
        "model/model-00001-of-00003.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("name", ["none.bin", "../model", "model/../../..", "vocoder/none"])
def test_the_snapshot_refuses_names_that_it_does_not_hold(small: Checkpoint, home: Path, name: str) -> None:
    snapshot = fetch(small, str(small.root), home=home).snapshot
    with pytest.raises(UsageError, match="has no"):
        snapshot.path(name)


def test_the_target_may_be_a_path_object(small: Checkpoint, home: Path) -> None:
    snapshot = diachunk.fetch(small.manifest_file, origins=[str(small.root)], home=home)
    assert_same_files(snapshot.directory, small)


def test_one_component_is_fetched_alone_and_the_rest_later(small: Checkpoint, home: Path) -> None:
    with Nginx(small.root) as origin:
        vocoder = fetch(small, origin.url, home=home, components=["vocoder"])
        assert_same_files(vocoder.snapshot.directory, small, {"vocoder"})
        assert {each.path.split("/")[1] for each in origin.requests()} == {"vocoder"}
        before = origin.bytes_sent()
        whole = fetch(small, origin.url, home=home)
        assert origin.bytes_sent() == small.total_bytes
        assert whole.told.bytes_by(diachunk.How.REUSED) == before
    assert_same_files(whole.snapshot.directory, small)


def test_a_component_that_is_not_there_is_refused_and_the_others_named(small: Checkpoint, home: Path) -> None:
    with pytest.raises(UsageError, match=r"no component 'tokenizer'.*model, vocoder"):
        diachunk.fetch(small.target, components=["tokenizer"], home=home)


def test_fetching_again_transfers_and_reads_nothing(small: Checkpoint, home: Path) -> None:
    with Nginx(small.root) as origin:
        fetch(small, origin.url, home=home)
        asked = len(origin.requests())
        again = fetch(small, origin.url, home=home)
        assert len(origin.requests()) == asked
    assert (again.report.fetched_bytes, again.report.reused_bytes) == (0, 0)
    assert again.report.present_bytes == small.total_bytes == again.plan.present_bytes


def test_a_complete_checkpoint_needs_no_origin(small: Checkpoint, home: Path) -> None:
    fetch(small, str(small.root), home=home)
    again = fetch(small, "http://127.0.0.1:9", home=home)
    assert_same_files(again.snapshot.directory, small)


def test_equal_files_and_equal_chunks_are_fetched_once(tmp_path: Path, home: Path) -> None:
    block, other = os.urandom(4 * MIB), os.urandom(4 * MIB)
    files = {
        "a/weights.bin": block + other + block,
        "b/same.bin": block + other + block,
        "b/first.bin": block,
        "b/tail.bin": other + b"tail",
    }
    checkpoint = published(tree(tmp_path / "served", files))
    with Nginx(checkpoint.root) as origin:
        done = fetch(checkpoint, origin.url, home=home)
        assert origin.bytes_sent() == 2 * len(block) + 4 == done.report.fetched_bytes
        assert done.plan.fetch_bytes == origin.bytes_sent()
    assert_same_files(done.snapshot.directory, checkpoint)
    assert_store_is_right(home)
    assert len(blobs_of(home)) == 3


def test_empty_files_arrive(tmp_path: Path, home: Path) -> None:
    checkpoint = published(tree(tmp_path / "served", {"m/empty.bin": b"", "m/deep/also": b"", "m/one": b"1"}))
    done = fetch(checkpoint, str(checkpoint.root), home=home)
    assert_same_files(done.snapshot.directory, checkpoint)
    assert_store_is_right(home)


def test_a_checkpoint_of_nothing_but_empty_files_needs_no_origin(tmp_path: Path, home: Path) -> None:
    checkpoint = published(tree(tmp_path / "served", {"m/empty.bin": b""}))
    done = fetch(checkpoint, home=home)
    assert_same_files(done.snapshot.directory, checkpoint)


def test_two_processes_that_fetch_at_once_share_the_work(small: Checkpoint, home: Path, base: Path) -> None:
    write_config(base, {"hedge_chunks_min": 1})
    with Nginx(small.root, rate_bps=4 * MIB) as origin:
        command = [sys.executable, "-c", FETCH_IN_A_PROCESS, small.target, origin.url, str(home)]
        both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        said = [process.communicate(timeout=60)[1] for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        hedged_at_most = 2 * 4 * MIB  # one chunk by each process
        assert origin.bytes_sent() <= 1.1 * small.total_bytes + hedged_at_most
    assert_store_is_right(home)
    assert_same_files(fetch(small, home=home).snapshot.directory, small)


def test_a_published_checkpoint_is_complete_where_it_was_published(small: Checkpoint, home: Path) -> None:
    sources = [f"{each}={small.root / each}" for each in ("model", "vocoder")]
    diachunk.publish(sources, name="lab/small", home=home)
    done = fetch("lab/small", home=home)
    assert done.report.present_bytes == small.total_bytes
    assert_same_files(done.snapshot.directory, small)
    assert blobs_of(home) == []


def test_stores_of_the_site_are_donors(small: Checkpoint, home: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    fetch(small, str(small.root), home=site)
    config = Path(os.environ["XDG_CONFIG_HOME"]) / "diachunk" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'stores = ["{site}"]\n')
    done = fetch(small, home=home)
    assert (done.report.fetched_bytes, done.plan.fetch_bytes) == (0, 0)
    assert done.report.reused_bytes == small.total_bytes == done.plan.reuse_bytes
    assert_same_files(done.snapshot.directory, small)
    assert_store_is_right(home)


@pytest.mark.parametrize("to", [(), ("out",)])
def test_more_files_than_file_descriptors_are_fetched(
    tmp_path: Path, home: Path, to: tuple[str, ...]
) -> None:
    files = {f"m/{number}.bin": b"%d" % number for number in range(300)}
    checkpoint = published(tree(tmp_path / "served", files))
    script = "import resource, sys, diachunk; resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)); "
    script += (
        "diachunk.fetch(sys.argv[1], origins=[sys.argv[2]], home=sys.argv[3], to=(sys.argv[4:] or [None])[0])"
    )
    arguments = [checkpoint.target, str(checkpoint.root), str(home), *(str(tmp_path / each) for each in to)]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same_files(tmp_path / "out" if to else Path(fetch(checkpoint, home=home).snapshot), checkpoint)
