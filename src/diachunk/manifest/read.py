"""Plain JSON values -> the model. Looks at form alone: which keys, which types, hex digits."""

from __future__ import annotations

from array import array
from typing import Any, NoReturn, TypeVar

from diachunk.digest import Digest, is_git_id, parse_digest
from diachunk.errors import ManifestError
from diachunk.limits import Limits
from diachunk.manifest import strict_json
from diachunk.manifest.model import ChunkList, Component, FileEntry, Manifest
from diachunk.manifest.strict_json import describe, quote
from diachunk.manifest.validate import check_requires

VERSION = 1
_HEX_CHARS = 64
_T = TypeVar("_T")
_WORDS: dict[type, str] = {str: "a string", int: "an integer", list: "a list", dict: "an object"}


def read(document: dict[str, Any], limits: Limits) -> Manifest:
    """Takes `document` apart (it is emptied on the way, to save memory); the id is not set yet.

    Raises:
        ManifestError: M3 to M7, M13 or M14.
    """
    version = _take(document, "diachunk", int, "the manifest")
    if version != VERSION:
        if version > VERSION:
            message = f"the manifest was made by a newer diachunk: it has version {version}"
            raise ManifestError(message, rule="M7", hint="update diachunk")
        raise ManifestError(f"there is no manifest version {version}", rule="M7")
    content = _take(document, "content", dict, "the manifest")
    check_requires(content)
    hints = _take_optional(document, "hints", dict, "the manifest", {})
    signatures = _take_optional(document, "signatures", list, "the manifest", [])
    strict_json.check_keys(document, "the manifest")
    for key, value in document.items():
        strict_json.check(value, key[:40], 1, limits)
    components = _take(content, "components", list, "content")
    origins = _take_optional(hints, "origins", list, "hints", [])
    if not all(type(origin) is str for origin in origins):
        raise ManifestError("hints.origins must be a list of strings", rule="M6")
    return Manifest(
        id=b"",
        name=_take(content, "name", str, "content"),
        revision=_take(content, "revision", str, "content"),
        chunking=_take(content, "chunking", str, "content"),
        components=tuple(_component(each, index) for index, each in enumerate(components)),
        extra=content,
        origins=tuple(origins),
        places=tuple(_take_optional(hints, "places", list, "hints", [])),
        hints_extra=hints,
        signatures=tuple(signatures),
    )


def _component(entry: object, index: int) -> Component:
    where = f"component {index}"
    if not isinstance(entry, dict):
        raise ManifestError(f"{where} is {describe(entry)}, not an object", rule="M6")
    name = _take(entry, "name", str, where)
    files = _take(entry, "files", list, where)
    if entry.get("upstream") == {}:
        # It is left out of canonical content when empty, so writing it would be a second spelling of one id.
        raise ManifestError(f"{where}: an empty upstream must be left out", rule="M6")
    upstream = _take_optional(entry, "upstream", dict, where, {})
    entries = tuple(_file(each, f"{where}, file {number}") for number, each in enumerate(files))
    return Component(name, entries, upstream, extra=entry)


def _file(entry: object, where: str) -> FileEntry:
    if not isinstance(entry, dict):
        raise ManifestError(f"{where} is {describe(entry)}, not an object", rule="M6")
    path = _take(entry, "path", str, where)
    where = f"{where} ({quote(path)})"
    size = _take(entry, "size", int, where)
    blake3 = _digest(_take(entry, "blake3", str, where), f"{where}: blake3")
    sha256 = ""
    if "sha256" in entry:
        sha256 = _digest(_take(entry, "sha256", str, where), f"{where}: sha256").hex()
    git = ""
    if "git" in entry and not is_git_id(git := _take(entry, "git", str, where)):
        raise ManifestError(f"{where}: git: {quote(git)} is not 40 lower-case hex digits", rule="M13")
    chunks = _chunks(_take(entry, "chunks", list, where), where)
    return FileEntry(path, size, blake3, chunks, sha256, entry, git)


def _chunks(pairs: list[Any], where: str) -> ChunkList:
    """Converts [[size, hex], ...] a column at a time; what that trips over, `_blame` looks for one by one."""
    try:
        sizes = [size for size, _ in pairs]
        digits = "".join([digest for _, digest in pairs])
        # An exact int as the first of two items can only come from a list: keys and characters are strings.
        good = set(map(type, sizes)) <= {int} and {len(digest) for _, digest in pairs} <= {_HEX_CHARS}
        packed = bytes.fromhex(digits)
        column = array("I", sizes)
    except (TypeError, ValueError, OverflowError):
        _blame(pairs, where)
    # fromhex takes upper case and spaces.
    if not good or packed.hex() != digits:
        _blame(pairs, where)
    return ChunkList(packed, column)


def _blame(pairs: list[Any], where: str) -> NoReturn:
    for index, pair in enumerate(pairs):
        if type(pair) is not list or len(pair) != 2 or type(pair[0]) is not int or type(pair[1]) is not str:
            raise ManifestError(f"{where}: chunk {index} is not [size, digest]", rule="M14")
        _digest(pair[1], f"{where}: chunk {index}")
    raise ManifestError(f"{where}: a chunk is far too large", rule="M14")


def _digest(text: str, where: str) -> Digest:
    try:
        return parse_digest(text)
    except ValueError as error:
        raise ManifestError(f"{where}: {quote(text)} is not 64 lower-case hex digits", rule="M13") from error


def _take(entry: dict[str, Any], key: str, kind: type[_T], where: str) -> _T:
    """Removes a known key; what is left in the end is unknown, and kept."""
    if key not in entry:
        raise ManifestError(f"{where} has no {key!r}", rule="M6")
    value = entry.pop(key)
    # The exact type: a bool is an int to isinstance.
    if type(value) is not kind:
        raise ManifestError(f"{where}: {key!r} must be {_WORDS[kind]}, not {describe(value)}", rule="M6")
    return value


def _take_optional(entry: dict[str, Any], key: str, kind: type[_T], where: str, default: _T) -> _T:
    return _take(entry, key, kind, where) if key in entry else default
