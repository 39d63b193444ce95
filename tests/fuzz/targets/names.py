"""Names, paths and TARGETs: what passes stays inside its directory, what does not is told in one line."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from functools import cache, partial
from unittest import mock

from diachunk.api import targets
from diachunk.api.context import Context
from diachunk.config import Config
from diachunk.errors import DiachunkError, TransferIncomplete, UsageError
from diachunk.limits import DEFAULT
from diachunk.manifest import Manifest
from diachunk.manifest.names import is_component, is_name, is_revision, is_rule, parse_ref
from diachunk.manifest.paths import fold, path_fault
from diachunk.manifest.strict_json import quote
from diachunk.sources import document
from fuzz.checks import bounded, text_of
from fuzz.scratch import scratch
from store_files import DIGEST, PIECES, keep, manifest_of

DICTIONARY = (b"@", b"/", b"..", b"./", b"file:///", b"https://", b"hub:", b".json", b".toml", b"%00", b"main",
    b"\xc3\xa9", b"e\xcc\x81", b"\xef\xac\x80", b"\\", b":", b"org/name@v1", b"0123456789abcdef")  # fmt: skip

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SECRET = "s3cr3t"
_WITH_SECRET = re.compile(rf"https?://[a-z.]+/[a-z./]*\?[a-z=]*{_SECRET}\w*", re.ASCII)
_GARBAGE = b'{"diachunk": 2}'


def fuzz_one(data: bytes) -> None:
    text = text_of(data)
    size = len(data)
    parsed, _ = bounded(lambda: parse_ref(text), size, errors=(UsageError,))
    if parsed is not None:
        name, revision = parsed
        assert is_name(name)
        assert is_revision(revision)
        assert parse_ref(f"{name}@{revision}") == parsed
        layout = _context().store.layout
        for path, root in ((layout.ref(*parsed), "refs"), (layout.named_snapshot(*parsed), "snapshots")):
            assert os.path.normpath(path) == str(path), "no segment that leads elsewhere"
            assert path.is_relative_to(layout.root / root)
    for grammar in (is_component, is_rule):
        bounded(partial(grammar, text), size)
    assert quote(text).isprintable()
    assert len(quote(text)) <= 82
    _check_path(text, size)
    _check_target(text, size)


def _check_path(text: str, size: int) -> None:
    fault, _ = bounded(lambda: path_fault(text, DEFAULT), size)
    if fault:
        assert fault.isprintable()
        return
    assert os.path.normpath(f"/root/{text}") == f"/root/{text}"
    assert unicodedata.is_normalized("NFC", text)
    assert len(text.encode()) <= DEFAULT.path_bytes_max
    folded, _ = bounded(lambda: fold(text), size)
    assert folded
    assert folded.count("/") == text.count("/")


def _check_target(text: str, size: int) -> None:
    context = _context()
    with (
        mock.patch.object(targets, "open_regular", _open),
        mock.patch.object(document, "fetch_document", _get),
        mock.patch.object(targets, "bundled_manifests", _no_manifests),
    ):
        for local in (False, True):
            found, error = bounded(
                partial(targets.resolve, text, context, local=local),
                size,
                errors=(DiachunkError,),
                base_bytes=8 << 20,
            )
            assert error is None or not _CONTROL.search(str(error)), "one line, and it steers no terminal"
            if found is not None:
                shown = found.manifest.hex_id.startswith(text) or text.removesuffix("@main") == "lab/tiny"
                assert shown, "only the one manifest that is here"
            elif _WITH_SECRET.fullmatch(text):
                assert _SECRET not in str(error), "a token in a message"


@cache
def _context() -> Context:
    """Settings of nobody, and a store with one checkpoint."""
    context = Context(Config(home=scratch() / "names"))
    files = {"model/a.bin": PIECES}
    keep(context.store, manifest_of("lab/tiny", files), files)
    assert context.store.layout.blob(DIGEST).exists()
    return context


def _open(path: os.PathLike[str]) -> int:
    """As open(2) would: nothing is there, or, where a name has a "z" in it, no manifest."""
    name = os.fsencode(path)
    if b"\0" in name:
        raise ValueError("embedded null byte")
    if b"z" not in name:
        raise FileNotFoundError(2, "No such file or directory", str(path))
    garbage = scratch() / "garbage.json"
    garbage.write_bytes(_GARBAGE)
    return os.open(garbage, os.O_RDONLY)


def _get(url: str, context: object, limit_bytes: int, on_login: object = None) -> bytes:
    if "z" not in url:
        raise TransferIncomplete(f"cannot get {url}: not in this test")
    return _GARBAGE


def _no_manifests() -> Iterator[Manifest]:
    return iter(())


def seeds() -> list[bytes]:
    only = _context().store.catalog.ids()[0].hex().encode()
    return [
        b"lab/tiny",
        b"lab/tiny@main",
        only,
        only[:9],
        b"./a.json",
        b"/tmp/\xff.json",
        b"file:///%00",
        b"file://host/x",
        b"./\x1b[31mz.json",
        b"https://h/z.json?token=s3cr3t",
        b"https://[::1",
        b"hub:org/name",
        b"d/\xc3\xa9/x.bin",
        b"a" * 1500,
        b"a/" * 700,
    ]
