"""Bytes -> manifest: refused by a named rule, or a model that writes back to the same id."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import PurePosixPath

from diachunk.digest import derive_id, digest_of
from diachunk.errors import ManifestError
from diachunk.limits import CHUNK_BYTES, DEFAULT
from diachunk.manifest import Manifest, decode, encode
from diachunk.manifest.strict_json import canonical
from fuzz.checks import bounded
from manifest_files import document, raw, with_files
from manifest_files import file as entry

DICTIONARY = (
    *(b'"%s"' % key for key in (b"diachunk", b"content", b"name", b"revision", b"chunking", b"components")),
    *(b'"%s"' % key for key in (b"files", b"path", b"size", b"blake3", b"sha256", b"chunks", b"upstream")),
    *(b'"%s"' % key for key in (b"hints", b"origins", b"places", b"signatures", b"requires")),
    b"1e1", b"-0", b"NaN", b"true", b"null", b"9007199254740991", b"\\ud800", b"..", b"://", b"[[", b"{}", b"[]",
)  # fmt: skip
_SMALL = replace(
    DEFAULT,
    manifest_bytes_max=2048,
    manifest_files_max=2,
    manifest_chunks_max=3,
    path_bytes_max=40,
    segment_bytes_max=20,
    name_chars_max=12,
    nesting_max=8,
    origins_max=1,
)
_RULE = re.compile(r"M([1-9]|1[0-9]|20)")
_MESSAGE_CHARS_MAX = 500


def fuzz_one(data: bytes) -> None:
    # "[]," and "{}," are the densest: 3 bytes of text, an object of 56 or 64 bytes and its place in a list.
    manifest, error = bounded(lambda: decode(data), len(data), errors=(ManifestError,))
    narrow, narrow_error = bounded(lambda: decode(data, _SMALL), len(data), errors=(ManifestError,))
    for each in (error, narrow_error):
        assert each is None or _speaks(each), str(each)
    assert narrow is None or narrow == manifest, "a smaller cap only refuses"
    if manifest is None:
        return
    _check_facts(manifest)
    written, _ = bounded(lambda: encode(manifest), len(data))
    assert written is not None
    again = decode(written, expected=manifest.id)
    assert again == manifest, "what is written reads back"
    assert encode(again) == written, "there is one way to write it"
    assert manifest.id == derive_id([canonical(json.loads(data)["content"]).encode()]), (
        "the id is over content"
    )


def _speaks(error: Exception) -> bool:
    """A rule of docs/manifest.md, in one line for a person."""
    assert isinstance(error, ManifestError)
    text = str(error)
    return bool(_RULE.fullmatch(error.rule)) and text.isprintable() and len(text) < _MESSAGE_CHARS_MAX


def _check_facts(manifest: Manifest) -> None:
    for component, file in manifest.walk():
        place = PurePosixPath("/root") / component.name / file.path
        assert place.is_relative_to("/root")
        assert ".." not in place.parts
        assert place.as_posix() == "/".join(part for part in ("/root", component.name, file.path) if part)
        assert sum(file.chunks.sizes) == file.size == file.chunks.total_bytes
        assert all(1 <= size <= CHUNK_BYTES for size in file.chunks.sizes)
    places = [(component.name, file.path) for component, file in manifest.walk()]
    assert len({(name.casefold(), path.casefold()) for name, path in places}) == len(places)


def seeds() -> list[bytes]:
    chunks = [[3, digest_of(b"one").hex()], [2, digest_of(b"to").hex()]]
    two = {
        "path": "d/two.bin",
        "size": 5,
        "blake3": digest_of(b"oneto").hex(),
        "sha256": "a" * 64,
        "chunks": chunks,
    }
    full = document()
    full["content"]["components"] = [
        {"name": "model", "upstream": {"commit": "c"}, "files": [entry(), two], "x": [1, {"y": "é"}]},
        {"name": "vocoder", "files": [entry("b.bin"), entry("empty", 0, digest_of(b"").hex())]},
    ]
    full |= {
        "hints": {"origins": ["https://example.org/a"], "places": [{"k": []}], "z": 1},
        "signatures": [{}],
    }
    nested = b'"deep": ' + b"[" * 20 + b"]" * 20
    return [
        json.dumps(document()).encode(),
        with_files(entry(), two),
        json.dumps(full).encode(),
        json.dumps(full, indent=1, ensure_ascii=False).encode(),
        raw(nested.decode()),
        raw('"dense": [' + ",".join(["{}", "[]", '{"a":[]}'] * 400) + "]"),
        b"[" * 4000,
        b'{"a":' * 2000,
    ]
