"""Bit rot, by the command line: found, named down to the tensor, mended with few bytes, and b3sum agrees."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import diachunk
from diachunk.testing.checkpoint import TensorSpec, write_safetensors
from diachunk.testing.servers import Nginx
from fixtures import damage
from fixtures.checkpoints import MIB, Checkpoint, assert_same_files, assert_store_is_right, published
from fixtures.command_line import run
from fixtures.damage import Damage, writable
from fixtures.verified import different_bytes, entry_of

pytestmark = pytest.mark.loopback

VICTIM = "model/weights.safetensors"
OTHER = "model/other.safetensors"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Twelve tensors of a chunk each in one file, three in another."""
    root = tmp_path_factory.mktemp("rot") / "served"
    (root / "model").mkdir(parents=True)
    for name, count in ((VICTIM, 12), (OTHER, 3)):
        specs = [TensorSpec(f"layer.{number:02}.weight", "F32", (512, 512)) for number in range(count)]
        write_safetensors(root / name, specs, seed=name)
    return published(root, "lab/rot")


@pytest.fixture(scope="module")
def origin(served: Checkpoint) -> Iterator[Nginx]:
    with Nginx(served.root) as nginx:
        yield nginx


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a fetch put the checkpoint, and what names that place to verify."""

    file: Path
    other: Path
    options: tuple[str | Path, ...]


@pytest.fixture(params=["store", "directory"])
def kept(request: pytest.FixtureRequest, served: Checkpoint, tmp_path: Path) -> Kept:
    to = tmp_path / "out"
    outside = request.param == "directory"
    root = Path(diachunk.fetch(served.target, origins=[str(served.root)], to=to if outside else None))
    return Kept((root / VICTIM).resolve(), (root / OTHER).resolve(), ("--in", to) if outside else ())


def hole(path: Path) -> None:
    """A megabyte was never written, as after a crash: a real hole."""
    with writable(path), path.open("r+b") as file:
        file.seek(6 * MIB)
        rest = file.read()
        file.truncate(5 * MIB)
        file.seek(6 * MIB)
        file.write(rest)


ROT: list[tuple[Damage, str, set[int]]] = [
    (damage.flip, "damaged", {5}),
    (hole, "damaged", {4, 5}),
    (damage.swap, "damaged", {0, 1, 7, 8}),
    (damage.cut, "cut off", {7, 8, 9, 10, 11}),
]


@pytest.mark.parametrize(("spoil", "state", "tensors"), ROT, ids=["flip", "hole", "swap", "cut"])
def test_rot_is_named_down_to_the_tensor_and_mended_with_just_what_is_wrong(
    served: Checkpoint,
    origin: Nginx,
    kept: Kept,
    spoil: Damage,
    state: str,
    tensors: set[int],
) -> None:
    spoil(kept.file)
    chunks = entry_of(served, VICTIM).chunks
    wrong_bytes = different_bytes(chunks, kept.file, served.file(VICTIM))
    assert 0 < wrong_bytes < chunks.total_bytes
    spoilt = kept.file.read_bytes()
    found = run("verify", served.target, *kept.options)
    assert found.returncode == 4
    head, *rest = found.stdout.splitlines()
    assert head == f"lab/rot@main {VICTIM}: {state}"
    named = [line for line in rest if line.startswith("  chunk ")]
    numbers = [int(line.split()[1].rstrip(":")) for line in named]
    assert sum(chunks.sizes[number] for number in numbers) == wrong_bytes
    assert {int(each) for each in re.findall(r"layer\.(\d+)\.weight", found.stdout)} == tensors
    assert kept.file.read_bytes() == spoilt, "verify wrote"
    before = origin.bytes_sent()
    # a file of another size is no longer the one that diachunk put into the user's directory
    force = ["--force"] if kept.options and spoil is damage.cut else []
    mended = run("verify", served.target, *kept.options, "--repair", *force, "--origin", origin.url)
    assert mended.returncode == 0, mended.stderr
    assert ", repaired" in mended.stdout
    assert origin.bytes_sent() - before == wrong_bytes
    all_is_right(served, kept)


def another_blob(kept: Kept, elsewhere: Path) -> None:
    kept.file.unlink()
    shutil.copy(kept.other, kept.file)


def a_directory(kept: Kept, elsewhere: Path) -> None:
    kept.file.unlink()
    kept.file.mkdir()
    shutil.copy(elsewhere, kept.file / "precious")


def a_link(kept: Kept, elsewhere: Path) -> None:
    kept.file.unlink()
    kept.file.symlink_to(elsewhere)


def a_link_to_a_blob(kept: Kept, elsewhere: Path) -> None:
    kept.file.unlink()
    kept.file.symlink_to(kept.other)


def nothing(kept: Kept, elsewhere: Path) -> None:
    kept.file.unlink()


@pytest.mark.parametrize("replace", [another_blob, a_directory, a_link, a_link_to_a_blob, nothing])
def test_something_else_in_its_place_is_named_and_the_file_comes_back(
    served: Checkpoint,
    origin: Nginx,
    kept: Kept,
    tmp_path: Path,
    replace: Callable[[Kept, Path], None],
) -> None:
    elsewhere = tmp_path / "precious"
    elsewhere.write_bytes(b"precious")
    before = kept.other.stat()
    replace(kept, elsewhere)
    found = run("verify", served.target, *kept.options)
    assert found.returncode == 4
    assert re.match(rf"lab/rot@main {VICTIM}: (cut off|missing|damaged)", found.stdout), found.stdout
    assert OTHER not in found.stdout
    words = ["verify", served.target, *kept.options, "--repair", "--origin", origin.url]
    mended = run(*words)
    if kept.options and replace is not nothing:
        # in a directory of the user's, what diachunk did not put there is his
        assert mended.returncode == 6, (mended.stdout, mended.stderr)
        assert str(kept.file) in mended.stderr
        mended = run(*words, "--force")
    if kept.options and replace in (a_directory, a_link, a_link_to_a_blob):
        assert mended.returncode == 6
        assert os.path.lexists(kept.file)
        assert "move it" in mended.stderr
        kept.file.rename(tmp_path / "moved")
        mended = run(*words)
    assert mended.returncode == 0, mended.stderr
    assert elsewhere.read_bytes() == b"precious"
    assert (kept.other.stat().st_ino, kept.other.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not kept.file.is_symlink()
    all_is_right(served, kept)


def all_is_right(served: Checkpoint, kept: Kept) -> None:
    """Verify says so, and b3sum, which knows nothing of diachunk, says what the manifest says."""
    directory = kept.options[1] if kept.options else None
    assert diachunk.verify([served.target], directory=directory).ok
    said = subprocess.run(
        ["b3sum", "--no-names", kept.file, kept.other], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == [entry_of(served, name).blake3.hex() for name in (VICTIM, OTHER)]
    if directory is not None:
        assert_same_files(Path(directory), served)
    else:
        assert_store_is_right(Path(os.environ["DIACHUNK_HOME"]))
