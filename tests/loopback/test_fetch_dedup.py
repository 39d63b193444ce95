"""A new version, or another container of the same tensors, costs only what is new."""

from __future__ import annotations

from pathlib import Path

import pytest

import diachunk
from diachunk.testing.checkpoint import layout, revise, total_bytes, write_safetensors, write_torch_zip
from diachunk.testing.servers import Nginx
from diachunk.testing.weights import TensorSpec
from fixtures.checkpoints import Checkpoint, assert_same_files, assert_store_is_right, published
from fixtures.watch import fetch

pytestmark = pytest.mark.loopback


@pytest.fixture(scope="module")
def specs() -> tuple[TensorSpec, ...]:
    """Dia's first layer in its real size: 68 MB in 8 tensors of 4 KB to 32 MB."""
    return layout("dia_tf")[:8]


def made(root: Path, kind: str, specs: tuple[TensorSpec, ...], revision: str) -> Checkpoint:
    root.mkdir(parents=True)
    if kind == "safetensors":
        write_safetensors(root / "model.safetensors", specs, seed="medium")
    else:
        write_torch_zip(root / "model.pth", specs, seed="medium")
    return published(root, "lab/medium", revision=revision)


def test_a_new_version_transfers_little_more_than_what_changed(
    tmp_path: Path, home: Path, specs: tuple[TensorSpec, ...]
) -> None:
    second = revise(specs, changed=0.15)
    changed = [each for each in second if each.generation] + [second[1]]
    old = made(tmp_path / "v1", "safetensors", specs, "v1")
    new = made(tmp_path / "v2", "safetensors", second, "v2")
    fetch(old, str(old.root), home=home)
    with Nginx(new.root) as origin:
        done = fetch(new, origin.url, home=home)
        assert 0 < origin.bytes_sent() <= 1.05 * total_bytes(changed)
        assert done.plan.fetch_bytes == origin.bytes_sent() == done.report.fetched_bytes
    assert done.report.reused_bytes == done.plan.reuse_bytes == new.total_bytes - done.report.fetched_bytes
    said = diachunk.diff(old.manifest.hex_id, new.manifest.hex_id, home=home)
    assert said.fetch_bytes == done.report.fetched_bytes
    assert said.total_bytes == new.total_bytes
    assert_same_files(done.snapshot.directory, new)
    assert_store_is_right(home)


@pytest.mark.parametrize("order", [("safetensors", "pth"), ("pth", "safetensors")])
def test_the_same_tensors_in_another_container_cost_next_to_nothing(
    tmp_path: Path, home: Path, specs: tuple[TensorSpec, ...], order: tuple[str, str]
) -> None:
    first, second = (made(tmp_path / kind, kind, specs, kind) for kind in order)
    fetch(first, str(first.root), home=home)
    with Nginx(second.root) as origin:
        done = fetch(second, origin.url, home=home)
        assert origin.bytes_sent() <= 0.02 * second.total_bytes
        assert done.plan.fetch_bytes == origin.bytes_sent()
    assert_same_files(done.snapshot.directory, second)
    assert_store_is_right(home)


def test_a_published_file_of_the_users_own_is_a_donor_and_stays_as_it_is(
    tmp_path: Path, home: Path, specs: tuple[TensorSpec, ...]
) -> None:
    mine = made(tmp_path / "mine", "pth", specs, "mine")
    theirs = made(tmp_path / "theirs", "safetensors", specs, "theirs")
    diachunk.publish([mine.root], name="lab/mine", home=home)
    before = (mine.root / "model.pth").stat()
    with Nginx(theirs.root) as origin:
        fetch(theirs, origin.url, home=home)
        assert origin.bytes_sent() <= 0.02 * theirs.total_bytes
    after = (mine.root / "model.pth").stat()
    assert (after.st_mtime_ns, after.st_ino, after.st_mode) == (
        before.st_mtime_ns,
        before.st_ino,
        before.st_mode,
    )


def test_a_donor_that_was_changed_gives_only_what_is_still_right(
    tmp_path: Path, home: Path, specs: tuple[TensorSpec, ...]
) -> None:
    old = made(tmp_path / "v1", "safetensors", specs, "v1")
    new = made(tmp_path / "v2", "safetensors", revise(specs, changed=0.02), "v2")
    snapshot = fetch(old, str(old.root), home=home).snapshot
    blob = snapshot.path("model.safetensors").resolve()
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.seek(20_000_000)
        file.write(b"damaged")
    with Nginx(new.root) as origin:
        done = fetch(new, origin.url, home=home)
        assert done.plan.fetch_bytes < origin.bytes_sent() <= done.plan.fetch_bytes + 4 * 1024 * 1024
    assert_same_files(done.snapshot.directory, new)
