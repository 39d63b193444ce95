"""Whatever tensors a checkpoint has, and wherever it is cut, loading gives what the format's own library does."""

from __future__ import annotations

import io
import itertools
import json
import tempfile
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diachunk.digest import Digest, digest_of
from diachunk.errors import IntegrityError
from diachunk.loader.blob import Blob, Damaged
from diachunk.loader.feed import Arrivals
from diachunk.loader.session import Loading, make_request
from diachunk.manifest import ChunkList, Component, FileEntry
from diachunk.schedule.work import BlobFacts
from diachunk.store.stamps import Stamp
from fixtures.tensors import pth

quick = settings(deadline=None, max_examples=120)

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
EIGHTHS = [
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
]
COMPLEX = [torch.complex64]
WHOLE = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
UNSIGNED = [torch.uint16, torch.uint32, torch.uint64]
DTYPES = st.sampled_from([*FLOATS, *EIGHTHS, *COMPLEX, *WHOLE, *UNSIGNED])
SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)
CUTS = st.lists(st.integers(1, 97), min_size=1, max_size=5)
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6).filter(
    lambda name: name != "__metadata__"
)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Of any bits, NaN and denormals included."""
    dtype, shape = draw(DTYPES), draw(SHAPES)
    count = 1
    for size in shape:
        count *= size
    seed = draw(st.integers(0, 2**32))
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(0, 256, (count * dtype.itemsize,), dtype=torch.uint8, generator=generator)
    if dtype is torch.bool:
        bits &= 1
    return bits.view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)


@st.composite
def shared(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """Views of a few storages, as PyTorch files keep them: strided, shifted, tied."""
    found: dict[str, torch.Tensor] = {}
    for number in range(draw(st.integers(1, 3))):
        base = draw(tensors()).reshape(-1)
        for part in range(draw(st.integers(1, 3))):
            start = draw(st.integers(0, max(0, len(base))))
            step = draw(st.integers(1, 3))
            view = base[start::step]
            if len(view) >= 4 and draw(st.booleans()):
                view = view[: len(view) // 2 * 2].reshape(2, -1).t() if step == 1 else view[::2]
            found[f"{number}.{part}"] = view
    return found


class Folder:
    """`loader.opening.Files` over files in a directory, cut anywhere."""

    def __init__(
        self, root: Path, files: dict[str, bytes], cuts: Sequence[int], *, trusted: bool, mappable: bool
    ) -> None:
        self._root, self._trusted, self._mappable = root, trusted, mappable
        self.kept: dict[Digest, bytes] = {}
        entries = []
        for name, data in files.items():
            (root / name).write_bytes(data)
            entries.append(FileEntry(name, len(data), digest_of(data), chunked(data, cuts)))
        self.component = Component("m", tuple(entries))

    def open(self, entry: FileEntry) -> Blob:
        facts = BlobFacts(entry.blake3, entry.size, entry.chunks, "m", entry.path)
        path = self._root / entry.path
        stamp = Stamp.of(path.stat()).adding(chunk_list=entry.chunks.id) if self._trusted else None
        return Blob(facts, path, stamp, mappable=self._mappable)

    def again(self, blob: Blob, damage: Damaged, tensors: Sequence[str]) -> Blob:
        raise IntegrityError(str(damage))

    def arrivals(self, blobs: list[Blob]) -> Arrivals | None:
        return None

    def proven(self, blob: Blob) -> None:
        return

    def recall(self, blob: Blob) -> bytes | None:
        return self.kept.get(blob.facts.digest)

    def keep(self, blob: Blob, data: bytes) -> None:
        self.kept[blob.facts.digest] = data


def chunked(data: bytes, cuts: Sequence[int]) -> ChunkList:
    sizes, digests, at = array("I"), b"", 0
    for cut in itertools.cycle(cuts):
        if at == len(data):
            return ChunkList(digests, sizes)
        size = min(cut, len(data) - at)
        sizes.append(size)
        digests += digest_of(data[at : at + size])
        at += size
    raise AssertionError


def loaded(
    files: dict[str, bytes],
    cuts: Sequence[int],
    *,
    trusted: bool,
    mappable: bool,
    dtype: torch.dtype | None = None,
    one_by_one: bool = False,
    times: int = 1,
) -> dict[str, torch.Tensor]:
    """What the last of several loads gives: what the first kept may serve those after it."""
    with tempfile.TemporaryDirectory() as root:
        folder = Folder(Path(root), files, cuts, trusted=trusted, mappable=mappable)
        request = make_request("m", folder.component, device="cpu", dtype=dtype, tensors=None, keep_dtype=())
        for _ in range(times - 1):
            taken(Loading(request, folder), one_by_one=one_by_one)
            assert folder.kept
        return taken(Loading(request, folder), one_by_one=one_by_one)


def taken(loading: Loading, *, one_by_one: bool) -> dict[str, torch.Tensor]:
    return dict(loading.stream()) if one_by_one else dict(loading.load())


def bits_of(tensor: torch.Tensor) -> torch.Tensor:
    # of a single element, flatten() keeps whatever stride it has
    return tensor.contiguous().flatten().as_strided((tensor.numel(),), (1,)).view(torch.uint8)


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """Bit for bit."""
    assert set(found) == set(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert found[name].stride() == tensor.stride(), name
        assert bits_of(found[name]).equal(bits_of(tensor)), name


class Way(TypedDict):
    trusted: bool
    mappable: bool
    one_by_one: bool


WAYS = st.builds(Way, trusted=st.booleans(), mappable=st.booleans(), one_by_one=st.booleans())


@quick
@given(st.dictionaries(NAMES, tensors(), max_size=6), CUTS, WAYS)
def test_safetensors_are_what_safetensors_reads(
    wanted: dict[str, torch.Tensor], cuts: list[int], way: Way
) -> None:
    data = safetensors.torch.save(wanted)
    assert_same(loaded({"m.safetensors": data}, cuts, **way), wanted)


@quick
@given(
    st.dictionaries(NAMES, tensors(), max_size=4), CUTS, WAYS, st.sampled_from([*FLOATS, torch.float8_e5m2])
)
def test_casts_are_those_of_torch(
    own: dict[str, torch.Tensor], cuts: list[int], way: Way, dtype: torch.dtype
) -> None:
    wanted = {name: each.to(dtype) if each.is_floating_point() else each for name, each in own.items()}
    found = loaded({"m.safetensors": safetensors.torch.save(own)}, cuts, dtype=dtype, **way)
    assert {name: each.dtype for name, each in found.items()} == {
        name: each.dtype for name, each in wanted.items()
    }
    for name, tensor in wanted.items():
        # NaN stays NaN; which NaN it is, a cast does not promise.
        assert torch.equal(plain(found[name]), plain(tensor)), name


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """In a dtype that compares everything, with one value for NaN."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return bits_of(tensor)
    wide = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
    return torch.where(wide.isnan(), torch.full_like(wide, 12345.0), wide)


@quick
@given(st.lists(st.dictionaries(NAMES, tensors(), max_size=3), min_size=1, max_size=4), CUTS, WAYS)
def test_shards_are_one(parts: list[dict[str, torch.Tensor]], cuts: list[int], way: Way) -> None:
    wanted: dict[str, torch.Tensor] = {}
    files: dict[str, bytes] = {}
    weight_map: dict[str, str] = {}
    for number, part in enumerate(parts):
        mine = {name: each for name, each in part.items() if name not in wanted}
        wanted |= mine
        files[f"{number}.safetensors"] = safetensors.torch.save(mine)
        weight_map |= dict.fromkeys(mine, f"{number}.safetensors")
    files["m.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    assert_same(loaded(files, cuts, **way), wanted)


@quick
@given(shared(), CUTS, WAYS)
def test_pytorch_files_are_what_torch_reads(own: dict[str, torch.Tensor], cuts: list[int], way: Way) -> None:
    data = pth(own)
    found, wanted = (
        loaded({"m.pth": data}, cuts, times=2, **way),
        torch.load(io.BytesIO(data), weights_only=True),
    )
    assert_same(found, wanted)
    for name, tensor in wanted.items():
        assert found[name].storage_offset() == tensor.storage_offset()
        assert found[name].untyped_storage().nbytes() >= tensor.untyped_storage().nbytes()
    if not way["one_by_one"]:
        assert ties(found) == ties(wanted)


def ties(tensors_: dict[str, torch.Tensor]) -> set[frozenset[str]]:
    """Which names share memory at the same element."""
    groups: dict[tuple[object, torch.dtype], set[str]] = {}
    for name, tensor in tensors_.items():
        if tensor.untyped_storage().nbytes():
            start = tensor.data_ptr() - tensor.storage_offset() * tensor.dtype.itemsize
            groups.setdefault((start, tensor.dtype), set()).add(name)
    return {frozenset(group) for group in groups.values()}


@quick
@given(
    st.dictionaries(NAMES, tensors(), min_size=1, max_size=4),
    CUTS,
    st.booleans(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
)
def test_one_wrong_bit_anywhere_is_never_loaded(
    own: dict[str, torch.Tensor], cuts: list[int], mappable: bool, one_by_one: bool, where: int
) -> None:
    data = safetensors.torch.save(own)
    spoilt = bytearray(data)
    spoilt[where % len(data)] ^= 1 << (where % 8)
    with tempfile.TemporaryDirectory() as root:
        folder = Folder(Path(root), {"m.safetensors": data}, cuts, trusted=False, mappable=mappable)
        (Path(root) / "m.safetensors").write_bytes(spoilt)
        request = make_request("m", folder.component, device="cpu", dtype=None, tensors=None, keep_dtype=())
        with pytest.raises(IntegrityError):
            taken(Loading(request, folder), one_by_one=one_by_one)
