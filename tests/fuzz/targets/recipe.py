"""The recipe parser, and what a store keeps of drafts: journals and records. The first byte chooses."""

from __future__ import annotations

import dataclasses
import json
import os

from diachunk.chunking.verify import ChunkRef
from diachunk.digest import digest_of
from diachunk.errors import ManifestError
from diachunk.limits import CHUNK_BYTES, DEFAULT
from diachunk.manifest.names import is_component, is_name, is_revision
from diachunk.manifest.paths import path_fault
from diachunk.manifest.recipe import HubUpstream, Recipe, UrlUpstream, hub_upstream, parse_recipe
from diachunk.manifest.stated import StatedFile
from diachunk.store.drafts import needed_blob
from diachunk.store.store import Store
from fuzz.checks import bounded
from fuzz.scratch import scratch

_SHA256 = "a" * 64
_FILE = StatedFile("c", "f", 3 * CHUNK_BYTES, _SHA256)
_BASE_BYTES = 4 << 20
DICTIONARY = (
    b"name",
    b"revision",
    b"[[component]]",
    b"[[component.file]]",
    b"hub",
    b"url",
    b"{path}",
    b"files",
    b"exclude",
    b"mirrors",
    b"places",
    b"size",
    b"sha256",
    b"https://",
    _SHA256.encode(),
    b'"""',
    b"\\u0041",
)


def fuzz_one(data: bytes) -> None:
    if data:
        (_recipe, _journal, _record)[data[0] % 3](data[1:])


def _recipe(data: bytes) -> None:
    recipe, error = bounded(
        lambda: parse_recipe(data),
        len(data),
        errors=(ManifestError,),
        base_bytes=_BASE_BYTES,
        bytes_per_byte=2000,
    )
    if recipe is None:
        assert error is not None
        assert str(error).isprintable()
        return
    assert is_name(recipe.name)
    assert is_revision(recipe.revision)
    assert len({each.name.casefold() for each in recipe.components}) == len(recipe.components) > 0
    _check_components(recipe)


def _check_components(recipe: Recipe) -> None:
    for component in recipe.components:
        assert is_component(component.name)
        upstream = component.upstream
        if isinstance(upstream, HubUpstream):
            named = hub_upstream(upstream.repository, upstream.revision)
            assert (named.repository, named.revision) == (upstream.repository, upstream.revision)
            continue
        assert isinstance(upstream, UrlUpstream)
        assert upstream.url.startswith(("http://", "https://"))
        assert upstream.files
        for file in upstream.files:
            assert not path_fault(file.path, DEFAULT)
            assert 0 <= file.size < 2**53
            assert file.component == component.name


def _store() -> Store:
    return Store.open(scratch() / "drafts-store")


def _journal(data: bytes) -> None:
    """Claims no piece that is not there, vouches for none but what it was, and is used again afterwards."""
    store = _store()
    path = store.drafts.path(_FILE)
    path.with_suffix(".sums").write_bytes(data)
    with path.open("wb") as file:
        os.truncate(file.fileno(), _FILE.size)
        os.pwrite(file.fileno(), b"x" * CHUNK_BYTES, CHUNK_BYTES)
    draft, _ = bounded(lambda: store.drafts.open(_FILE, lambda _: None), len(data), base_bytes=_BASE_BYTES)
    assert draft is not None
    try:
        assert set(draft.claimed()) <= {1}
        ref = ChunkRef(draft.chunks.digest(1), CHUNK_BYTES, _FILE.key, CHUNK_BYTES)
        draft.write(draft.judge(ref, memoryview(b"x" * CHUNK_BYTES), local=False), CHUNK_BYTES)
    finally:
        draft.close()
    again = store.drafts.open(_FILE, lambda _: None)
    try:
        assert list(again.claimed()) == [1]
        again.judge(ref, memoryview(b"x" * CHUNK_BYTES), local=True)
    finally:
        again.discard()


def _record(data: bytes) -> None:
    """What a finished draft became: recalls nothing that is not here and proven."""
    store = _store()
    path = store.layout.draft(_FILE.key, "json")
    path.write_bytes(data)
    for file in (_FILE, dataclasses.replace(_FILE, size=len(data))):
        found, _ = bounded(lambda file=file: store.drafts.recall(file), len(data), base_bytes=_BASE_BYTES)  # type: ignore[misc] # a default that binds the loop's value
        assert found is None
    blob, _ = bounded(lambda: needed_blob(path), len(data), base_bytes=_BASE_BYTES)
    assert blob is None or len(blob) == 32
    path.unlink()


def seeds() -> list[bytes]:
    hub = (
        b'name = "a/b"\nrevision = "v1"\n[[component]]\nname = "m"\nhub = "o/r"\nrevision = "main"\n'
        b'files = ["*.json"]\nexclude = ["x"]\nmirrors = ["https://h/{path}"]\nplaces = ["hub"]\n'
    )
    url = (
        b'[[component]]\nname = "v"\nurl = "https://h/f"\npath = "f"\nsize = 3\nsha256 = "%b"\n'
        % _SHA256.encode()
    )
    many = (
        b'[[component]]\nurl = "https://h/{path}"\n[[component.file]]\npath = "f"\nsize = 3\nsha256 = "%b"\n'
    )
    piece = (1).to_bytes(8, "little") + digest_of(b"x" * CHUNK_BYTES)
    record = {
        "stated": _FILE.stated,
        "size": _FILE.size,
        "blake3": "b" * 64,
        "sha256": _SHA256,
        "git": "",
        "rule": "tensor-4m/1",
        "sizes": [CHUNK_BYTES] * 3,
        "digests": "c" * 192,
    }
    return [
        b"\0" + hub,
        b"\0" + hub + url,
        b"\0" + b'name = "a"\n' + many % _SHA256.encode(),
        b"\0" + b'name = "a"\n' + url.replace(b"= 3", b"= 0x" + b"f" * 5000),
        b"\1",
        b"\1" + piece,
        b"\1" + piece[:17],
        b"\1" + piece * 3 + piece[:5],
        b"\1" + bytes(481),
        b"\1" + (b"\xff" * 40) * 12,
        b"\1" + piece * 12,
        b"\1" + b"\xff" * 40,
        b"\2" + json.dumps(record).encode(),
        b"\2" + json.dumps(record | {"sizes": [-1, 2**70], "size": 1e300}).encode(),
        b"\2" + b'{"size": ' + b"9" * 5000 + b"}",
        b"\2" + b"[" * 3000,
    ]
