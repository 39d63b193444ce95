"""Small files of a store that somebody else wrote: stamps, records, hints, refs, its mark.

Whatever they hold, they count as absent or as damaged; they never prove anything and never end a run oddly.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from unittest import mock

from diachunk.bitmap import Bitmap
from diachunk.digest import digest_of
from diachunk.errors import StoreError
from diachunk.store import partial as partials
from diachunk.store.adopted import AdoptedFile
from diachunk.store.blobs import Presence
from diachunk.store.catalog import Catalog
from diachunk.store.collect import Collector
from diachunk.store.partial import Partial
from diachunk.store.stamps import Stamp, read_stamp, write_stamp
from diachunk.store.store import Store
from fuzz.checks import bounded
from fuzz.scratch import scratch
from store_files import CHUNKS, DATA, DIGEST, PIECES, fill, keep, manifest_of

DICTIONARY = (
    b'"device":', b'"inode":', b'"size":', b'"mtime_ns":', b'"lists":', b'"blake3":', b'"sha256":',
    b'"verified_at":', b'"stamp":', b'"path":', b'"ours":', b'"diachunk_store":', b'"store_id":', b"NaN", b"1e999",
    b"\\ud800", b"\\u0000", b"[[[[", b"true", b"null", b'"/a"',
)  # fmt: skip
_BASE_BYTES = 4 << 20


def fuzz_one(data: bytes) -> None:
    """The first byte says which record the rest stands in for."""
    kinds = (_stamp, _adopted, _hint, _ref, _mark, _manifest)
    if data:
        kinds[data[0] % len(kinds)](data[1:])


@cache
def _store() -> Store:
    """A store with one checkpoint."""
    store = Store.open(scratch() / "records")
    keep(store, _MANIFEST, {"model/a.bin": PIECES})
    return store


_MANIFEST = manifest_of("lab/tiny", {"model/a.bin": PIECES})
_OTHER = digest_of(b"not here")


def _stamp(data: bytes) -> None:
    store = _store()
    path = store.layout.stamp(DIGEST)
    path.write_bytes(data)
    stamp, _ = bounded(lambda: read_stamp(path), len(data), base_bytes=_BASE_BYTES)
    holding, _ = bounded(
        lambda: store.blobs.find(DIGEST, len(DATA), CHUNKS), len(data), base_bytes=_BASE_BYTES
    )
    assert holding is not None
    status = store.layout.blob(DIGEST).stat()
    identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    proven = (
        stamp is not None
        and CHUNKS.id.hex() in stamp.lists
        and (stamp.device, stamp.inode, stamp.size, stamp.mtime_ns) == identity
    )
    assert holding.presence is (Presence.PROVEN if proven else Presence.CLAIMED)
    if stamp is not None and stamp.verified_at == stamp.verified_at:
        write_stamp(store.layout.files, path, stamp)
        assert read_stamp(path) == stamp, "what is kept reads back"


@contextlib.contextmanager
def _standing(path: Path, data: bytes) -> Iterator[None]:
    """The file is there, and gone afterwards whatever happened: the next input must not meet it."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _adopted(data: bytes) -> None:
    with _standing(_store().layout.adopted(_OTHER), data):
        _check_adopted(_store(), data)


def _check_adopted(store: Store, data: bytes) -> None:
    adopted = store.blobs.adopted
    files, _ = bounded(lambda: adopted.get(_OTHER), len(data), base_bytes=_BASE_BYTES)
    assert files is not None
    holding, _ = bounded(lambda: store.blobs.find(_OTHER, 5, CHUNKS), len(data), base_bytes=_BASE_BYTES)
    assert holding is not None
    assert holding.presence is not Presence.PROVEN
    for file in files[:3]:
        assert file.path.is_absolute()
        bounded(file.unchanged, len(data), base_bytes=_BASE_BYTES)
        assert AdoptedFile.from_object(json.loads(json.dumps(file.to_object()))) == file or _has_nan(file)
    bounded(lambda: Collector(store, dry_run=True).collect(), len(data), base_bytes=_BASE_BYTES)


def _has_nan(file: AdoptedFile) -> bool:
    return file.stamp.verified_at != file.stamp.verified_at


def _hint(data: bytes) -> None:
    """The have-hint, on a file system that cannot tell written from unwritten."""
    path = scratch() / "hinted.partial"
    path.with_name(f"{path.name}.have").write_bytes(data)
    everything = [(0, CHUNKS.total_bytes)]
    with mock.patch.object(partials, "extents", return_value=everything):
        partial = Partial(path, CHUNKS, _store().layout.files)
        try:
            claims, _ = bounded(partial.claimed, len(data), base_bytes=_BASE_BYTES)
        finally:
            partial.close()
    right = data[:32] == CHUNKS.id and len(data) == 33 and data[32] < 16
    assert claims == (Bitmap.from_bytes(data[32:], 4) if right else Bitmap.full(4))


def _ref(data: bytes) -> None:
    catalog, layout = _store().catalog, _store().layout
    with _standing(layout.ref("lab/odd", "main"), data):
        found, _ = bounded(lambda: catalog.ref("lab/odd", "main"), len(data), base_bytes=_BASE_BYTES)
        assert found is None or data.decode("ascii").strip() == found.hex()
        refs, _ = bounded(catalog.refs, len(data), base_bytes=_BASE_BYTES)
        assert refs is not None
        assert len(refs) == 1 + (found is not None)


def _mark(data: bytes) -> None:
    root = scratch() / "marked"
    root.mkdir(exist_ok=True)
    (root / "store.json").write_bytes(data)
    store, _ = bounded(
        lambda: Store.open(root, create=False), len(data), errors=(StoreError,), base_bytes=_BASE_BYTES
    )
    if store is not None:
        assert int(json.loads(data)["diachunk_store"]) <= 1


def _manifest(data: bytes) -> None:
    path = _store().layout.manifest(_OTHER)
    with _standing(path, data):
        _check_manifest(_store().catalog, path, len(data))


def _check_manifest(catalog: Catalog, path: Path, size: int) -> None:
    calls: tuple[Callable[[], object], ...] = (
        lambda: catalog.get(_OTHER),
        lambda: Collector(_store()).collect(),
    )
    for call in calls:
        _, error = bounded(call, size, errors=(StoreError,), base_bytes=_BASE_BYTES)
        assert error is not None, "nobody knows what a damaged manifest needs"
    known, _ = bounded(lambda: list(catalog.manifests()), size, base_bytes=_BASE_BYTES)
    assert known == [_MANIFEST]
    assert [each for each, _ in catalog.broken()] == [path]


def seeds() -> list[bytes]:
    fill(_store())
    status = _store().layout.blob(DIGEST).stat()
    stamp = Stamp.of(status).adding(chunk_list=CHUNKS.id).to_object()
    record = [{"path": "/a/b", "ours": True, "stamp": stamp}, {"path": "c", "ours": 1, "stamp": stamp}]
    deep = (
        b'[{"stamp":' + json.dumps(stamp).encode() + b',"path":' + b"[" * 900 + b"]" * 900 + b',"ours":true}]'
    )
    mark = json.dumps({"diachunk_store": 1, "store_id": "0" * 16}).encode()
    return [
        b"\0" + json.dumps(stamp).encode(),
        b"\0" + json.dumps(stamp | {"lists": "abc", "verified_at": "nan", "inode": 1e300}).encode(),
        b"\1" + json.dumps(record).encode(),
        b"\1" + json.dumps([record[0] | {"path": "/" + "x" * 5000}]).encode(),
        b"\1" + json.dumps([record[0] | {"path": "/\ud800"}, record[0] | {"path": "/\0"}]).encode(),
        b"\1" + deep,
        b"\2" + CHUNKS.id + b"\x0b",
        b"\3" + _OTHER.hex().encode() + b"\n",
        b"\4" + mark,
        b"\4" + mark.replace(b"1", b"9" * 4000, 1),
        b"\5" + b"{}",
        b"\5" + b"[" * 2000,
    ]
