"""What is kept of a PyTorch file's layout: it saves the pickle, and is believed only as far as it was hashed."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import diachunk
from diachunk.api.care import gc, rm
from diachunk.api.loading.load import load
from diachunk.digest import digest_of
from diachunk.errors import IntegrityError, LoadError
from diachunk.formats.base import BytesAccess
from diachunk.loader import pickles
from diachunk.loader.headers import read_layout
from diachunk.loader.kept import decode, encode
from diachunk.loader.layout import Layout
from diachunk.manifest import Component, build
from diachunk.manifest import encode as encode_manifest
from fixtures.checkpoints import Checkpoint, tree
from fixtures.tensors import assert_same, blob_of, made, next_tick, pth, safetensors, stored, weights

FILE = "vocoder/weights.pth"


@pytest.fixture
def held(tmp_path: Path, home: Path) -> Checkpoint:
    return stored(tmp_path / "files", home, {FILE: pth(weights())})


@pytest.fixture
def pickles_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Labels of the files whose pickle is read from now on."""
    read: list[str] = []
    own = pickles._load

    def noting(file: object, label: str, *args: object, **options: object) -> object:
        read.append(label)
        return own(file, label, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(pickles, "_load", noting)
    return read


def kept(held: Checkpoint, home: Path) -> Path:
    blob = blob_of(held, home, FILE)
    return blob.with_name(f"{blob.name}.tensors")


def wanted(held: Checkpoint) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(held.file(FILE), weights_only=True)
    return found


def test_a_pickle_is_read_once(held: Checkpoint, home: Path, pickles_read: list[str]) -> None:
    for _ in range(3):
        assert_same(load(held.target, home=home), wanted(held))
    assert pickles_read == [FILE]


def test_always_means_that_nothing_kept_is_asked(
    held: Checkpoint, home: Path, pickles_read: list[str]
) -> None:
    load(held.target, home=home)
    load(held.target, home=home, verify="always")
    assert pickles_read == [FILE] * 2


def test_what_is_trusted_to_run_code_is_read_anew(
    held: Checkpoint, home: Path, pickles_read: list[str]
) -> None:
    load(held.target, home=home, allow_code=True)
    assert not kept(held, home).exists()
    load(held.target, home=home)
    load(held.target, home=home, allow_code=True)
    assert pickles_read == [FILE] * 3


def test_nothing_is_kept_of_bytes_that_were_not_hashed(held: Checkpoint, home: Path) -> None:
    """A bit that fell over on the disk, behind the back of the stamp: what is kept would outlive the repair."""
    blob = blob_of(held, home, FILE)
    data = blob.read_bytes()
    at = data.index(b"layer.norm.weight") + 3
    before = blob.stat()
    blob.chmod(0o644)
    with open(blob, "r+b") as file:
        file.seek(at)
        file.write(bytes([data[at] ^ 1]))
    blob.chmod(stat.S_IMODE(before.st_mode))
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))
    stamp = blob.with_name(f"{blob.name}.stamp")
    values = json.loads(stamp.read_text())
    next_tick(home)
    values["verified_at"] = blob.stat().st_ctime_ns / 1e9 + 1e-3
    stamp.write_text(json.dumps(values))
    next_tick(home)
    with pytest.raises(IntegrityError, match=r"vocoder/weights\.pth"):
        load(held.target, home=home)
    assert not kept(held, home).exists()
    assert_same(
        load(held.target, home=home, repair=True, origins=[str(held.root)]),
        wanted(held),
    )
    assert_same(load(held.target, home=home), wanted(held))


def cut_short(data: bytes) -> bytes:
    return data[: len(data) // 2]


def of_another(data: bytes) -> bytes:
    return signed({**content(data), "chunk_list": "00" * 32})


def newer(data: bytes) -> bytes:
    return signed({**content(data), "diachunk_tensors": 10**6})


def swapped(data: bytes) -> bytes:
    """Well made, and wrong: only the checksum tells."""
    return data.replace(b'"layer.bias"', b'"layer.bios"')


def outside(data: bytes) -> bytes:
    found = content(data)
    found["storages"][0][1] = 10**15
    return signed(found)


def before_the_start(data: bytes) -> bytes:
    found = content(data)
    found["storages"][0][0] = -64
    return signed(found)


def nobodys_storage(data: bytes) -> bytes:
    found = content(data)
    found["views"] = [each for each in found["views"] if each[1] != 0]
    return signed(found)


def no_name(data: bytes) -> bytes:
    found = content(data)
    found["views"][0][0] = ["embed.weight"]
    return signed(found)


def no_storage(data: bytes) -> bytes:
    found = content(data)
    found["views"][0][1] = len(found["storages"])
    return signed(found)


def a_storage_from_behind(data: bytes) -> bytes:
    found = content(data)
    found["views"][-1][1] = -1
    return signed(found)


def too_long_a_view(data: bytes) -> bytes:
    found = content(data)
    found["views"][0][3] = [10**6, 10**6]
    return signed(found)


def twice(data: bytes) -> bytes:
    found = content(data)
    found["views"].append(found["views"][0])
    return signed(found)


def no_dtype(data: bytes) -> bytes:
    found = content(data)
    found["views"][0][2] = "load"
    return signed(found)


def no_text(data: bytes) -> bytes:
    found = content(data)
    found["views"][0][0] = "\ud800"
    return signed(found)


def true_is_no_number(data: bytes) -> bytes:
    found = content(data)
    found["views"][0][4][1] = True
    return signed(found)


def deep(data: bytes) -> bytes:
    return signed_text(b'{"diachunk_tensors":2,"metadata":' + b"[" * 100_000)


def metadata_of(found: object) -> Callable[[bytes], bytes]:
    def spoil(data: bytes) -> bytes:
        return signed({**content(data), "metadata": found})

    return spoil


def nested_json(depth: int) -> object:
    return ["list", nested_json(depth - 1)] if depth else 1


NO_METADATA = {
    "a list": ["list", 1],
    "an object": {"a": 1},
    "of no kind": ["dict", ["a", [1, 2]]],
    "of an unknown kind": ["dict", ["a", ["set", 1]]],
    "empty": ["dict", ["a", []]],
    "an object inside": ["dict", ["a", {}]],
    "a key that is none": ["dict", [["list"], 1]],
    "a value too few": ["dict", ["a"]],
    "a value too many": ["dict", ["a", 1, 2]],
    "another float": ["dict", ["a", ["float", "1e5"]]],
    "too deep": ["dict", ["a", nested_json(40)]],
}


def nothing(data: bytes) -> bytes:
    return b""


def zeros(data: bytes) -> bytes:
    return bytes(len(data))


def content(data: bytes) -> dict:  # type: ignore[type-arg]
    found: dict = json.loads(data.partition(b"\n")[2])  # type: ignore[type-arg]
    return found


def signed(found: object) -> bytes:
    return signed_text(json.dumps(found).encode())


def signed_text(text: bytes) -> bytes:
    return digest_of(text).hex().encode() + b"\n" + text


@pytest.mark.parametrize(
    "spoil",
    [
        cut_short,
        of_another,
        newer,
        swapped,
        outside,
        before_the_start,
        no_storage,
        nobodys_storage,
        no_name,
        a_storage_from_behind,
        too_long_a_view,
        twice,
        no_dtype,
        no_text,
        true_is_no_number,
        deep,
        nothing,
        zeros,
        *(pytest.param(metadata_of(found), id=f"metadata {what}") for what, found in NO_METADATA.items()),
    ],
)
def test_one_that_is_not_what_was_written_is_as_if_there_were_none(
    held: Checkpoint, home: Path, pickles_read: list[str], spoil: Callable[[bytes], bytes]
) -> None:
    load(held.target, home=home)
    good = kept(held, home).read_bytes()
    kept(held, home).write_bytes(spoil(good))
    assert_same(load(held.target, home=home), wanted(held))
    assert pickles_read == [FILE] * 2
    assert kept(held, home).read_bytes() == good


@pytest.mark.parametrize("what", ["directory", "link", "pipe"])
def test_what_stands_in_its_place_is_in_nobodys_way(
    held: Checkpoint, home: Path, tmp_path: Path, what: str
) -> None:
    path, other = kept(held, home), tmp_path / "other"
    other.write_bytes(b"the user's")
    if what == "directory":
        path.mkdir()
    elif what == "link":
        path.symlink_to(other)
    else:
        os.mkfifo(path)
    for _ in range(2):
        assert_same(load(held.target, home=home), wanted(held))
    assert other.read_bytes() == b"the user's"


def test_a_store_that_cannot_be_written_loads_all_the_same(
    held: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("diachunk.store.files.Files.replace_text", refuses)
    for _ in range(2):
        assert_same(load(held.target, home=home), wanted(held))
    assert not kept(held, home).exists()


def test_it_goes_when_its_blob_goes(held: Checkpoint, home: Path) -> None:
    load(held.target, home=home)
    gc(home=home)
    assert kept(held, home).is_file()
    rm(held.manifest.hex_id, home=home)
    gc(home=home)
    assert not kept(held, home).exists()


def test_it_is_kept_of_a_file_of_the_users_as_well(
    tmp_path: Path, home: Path, pickles_read: list[str]
) -> None:
    mine = tmp_path / "weights.pth"
    mine.write_bytes(pth(weights()))
    diachunk.publish([mine], name="lab/x", home=home)
    for _ in range(2):
        assert_same(load("lab/x", home=home), torch.load(mine, weights_only=True))
    assert len(pickles_read) == 1
    mine.write_bytes(pth({"w": torch.ones(5)}))  # another file now: nothing that was kept is of it
    with pytest.raises(LoadError, match="not here"):
        load("lab/x", home=home)


def test_what_a_store_below_keeps_is_used(
    held: Checkpoint, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pickles_read: list[str]
) -> None:
    load(held.target, home=home)
    monkeypatch.setenv("DIACHUNK_STORES", str(home))
    assert_same(load(held.target, home=tmp_path / "mine"), wanted(held))
    assert pickles_read == [FILE]
    assert list((tmp_path / "mine").rglob("*.tensors")) == []


def test_a_store_below_says_nothing_of_what_was_verified_here(
    held: Checkpoint, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner may be wrong about names: of bytes of its own that is its affair, of ours it would be a way in."""
    load(held.target, home=home)
    found = content(kept(held, home).read_bytes())
    found["views"] = found["views"][:1]
    kept(held, home).write_bytes(signed(found))
    mine = stored(tmp_path / "again", tmp_path / "mine", {FILE: pth(weights())})
    monkeypatch.setenv("DIACHUNK_STORES", str(home))
    assert_same(load(mine.target, home=tmp_path / "mine"), wanted(held))


def test_nothing_is_kept_of_safetensors(tmp_path: Path, home: Path) -> None:
    held = stored(tmp_path / "files", home, {"model/model.safetensors": safetensors(weights())})
    load(held.target, home=home)
    assert list(home.rglob("*.tensors")) == []


def test_what_is_no_tensor_comes_back_as_it_was(tmp_path: Path, home: Path, pickles_read: list[str]) -> None:
    tree = {
        "state_dict": weights(),
        "epoch": 3,
        "lr": 0.1,
        "note": "ünï\ud800",
        "done": False,
        "nothing": None,
        "steps": [1, [2, {"x": "y"}]],
        "big": 2**62,
        "best": float("inf"),
        "optimizer": {
            "state": {0: {"step": 1000}, 1: {"step": -1000}},
            "param_groups": [{"betas": (0.9, 0.999), "params": [0, 1], "lr": -float("inf")}],
        },
        "ordered": OrderedDict([("b", 1), ("a", OrderedDict())]),
        "keyed": {("a", 1): (), None: [], True: {}, 0.5: "0.5", "0.5": 0.5},
        "words": ["float", "tuple", ["list", "dict"]],
    }
    held = stored(tmp_path / "files", home, {FILE: pth(tree)})
    first, second = (load(held.target, home=home) for _ in range(2))
    wanted_ = {key: tree[key] for key in tree if key != "state_dict"}
    assert repr(first.metadata) == repr(second.metadata) == repr(wanted_), "types count, and the order"
    assert pickles_read == [FILE]


def nested(depth: int) -> object:
    return [nested(depth - 1)] if depth else 1


def with_attributes(found: OrderedDict[str, int]) -> OrderedDict[str, int]:
    """As a module's state dict has its `_metadata`."""
    found._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize(
    "odd",
    [
        float("nan"),
        b"bytes",
        torch.Size((1, 2)),
        Counter("a"),
        with_attributes(OrderedDict(a=1)),
        2**70,
        {"x": (1, {1})},
        {2**70: 1},
        {1},
        nested(40),
    ],
    ids=lambda odd: repr(odd)[:20],
)
def test_nothing_is_kept_where_json_would_give_back_something_else(
    tmp_path: Path, home: Path, pickles_read: list[str], odd: object
) -> None:
    held = stored(tmp_path / "files", home, {FILE: pth({"w": torch.ones(4), "odd": odd})})
    first, second = (load(held.target, home=home).metadata["odd"] for _ in range(2))
    assert repr(first) == repr(second) == repr(odd)
    assert pickles_read == [FILE] * 2


def test_a_file_that_is_refused_is_refused_again(tmp_path: Path, home: Path) -> None:
    held = stored(tmp_path / "files", home, {FILE: pth(torch.nn.Linear(2, 2))})
    for _ in range(2):
        with pytest.raises(LoadError, match="would run code"):
            load(held.target, home=home)
    assert not kept(held, home).exists()


def test_encoding_round_trips() -> None:
    base = torch.randn(40, 3, dtype=torch.complex64)
    data = pth(
        {"a": base, "conj": base.conj(), "part": base[3:9:2].t(), "f8": torch.ones(3).to(torch.float8_e5m2)}
    )
    layout = read_layout(BytesAccess(data), 5, "file")
    chunks = digest_of(data)
    kept_ = encode(layout, chunks)
    assert decode(kept_, chunks, len(data), 5) == layout
    assert decode(kept_, chunks, 100, 5) is None
    assert decode(kept_, digest_of(b""), len(data), 5) is None


def test_a_tree_that_came_whole_is_not_kept() -> None:
    assert encode(Layout((), (), {}, {"x": torch.ones(1)}), digest_of(b"")) is None


def test_what_a_liars_chunks_held_is_kept_of_no_other_file(tmp_path: Path, home: Path) -> None:
    """Its manifest names the blob of another checkpoint over chunks of its own, which verify one by one. As long as
    nobody else claims that blob, nothing tells.
    """
    one, other = torch.zeros(300_000), torch.ones(300_000)
    right, wrong = pth({"a": one, "b": other}), pth({"b": one, "a": other})
    assert len(right) == len(wrong)
    root = tree(tmp_path / "liar", {FILE: wrong})
    held = made(tmp_path / "files", {FILE: right})
    (true_file,) = (file for _, file in held.manifest.walk())
    (lie,) = (file for _, file in made(tmp_path / "copy", {FILE: wrong}).manifest.walk())
    manifest = build("liar/x", "main", [Component("vocoder", (replace(lie, blake3=true_file.blake3),))])
    target = tmp_path / "liar.json"
    target.write_bytes(encode_manifest(manifest))
    load(target, home=home, fetch=True, origins=[str(root)])
    assert kept(held, home).is_file()
    diachunk.fetch(held.target, origins=[str(held.root)], home=home)
    for _ in range(2):
        assert_same(load(held.target, home=home), {"a": one, "b": other})
