"""The model -> text: canonical, which the id is over, and readable, which people and `diff` see."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from diachunk.digest import DIGEST_BYTES
from diachunk.manifest.model import ChunkList, Component, FileEntry, Manifest
from diachunk.manifest.read import VERSION
from diachunk.manifest.strict_json import canonical

_PIECE_CHARS = 256 * 1024
_CHUNKS_A_PIECE = 4096


def canonical_content(manifest: Manifest) -> Iterator[bytes]:
    """The canonical JSON (RFC 8785) of `content`, in pieces: what the id is the digest of (rule M20).

    In pieces, because that of a checkpoint of 1 TB takes 20 MB.
    """
    components = _list(_component(component) for component in manifest.components)
    batch: list[str] = []
    size = 0
    for text in _object({**_head(manifest), **manifest.extra}, "components", components):
        batch.append(text)
        size += len(text)
        if size >= _PIECE_CHARS:
            yield "".join(batch).encode("utf-8")
            batch, size = [], 0
    yield "".join(batch).encode("utf-8")


def readable(manifest: Manifest) -> bytes:
    """The manifest as a file: one line a chunk, and one line for each value this version does not know."""
    lines = [f'{{\n  "diachunk": {VERSION},\n  "content": {{']
    lines += _members({**_head(manifest), **manifest.extra}, 4)
    lines.append('    "components": [')
    for component in manifest.components:
        lines.append("      {")
        head: dict[str, Any] = {"name": component.name}
        if component.upstream:
            head["upstream"] = component.upstream
        lines += _members({**head, **component.extra}, 8)
        lines.append('        "files": [')
        for file in component.files:
            lines += _file_lines(file)
            lines.append("          }" + ("" if file is component.files[-1] else ","))
        lines.append("        ]\n      }" + ("" if component is manifest.components[-1] else ","))
    lines.append("    ]\n  }" + "".join(_tail(manifest)) + "\n}\n")
    return "\n".join(lines).encode("utf-8")


def compact(manifest: Manifest) -> bytes:
    """The manifest as a file in the fewest bytes: for those near the cap on its size."""
    content = b"".join(canonical_content(manifest)).decode("utf-8")
    return f'{{"diachunk":{VERSION},"content":{content}{"".join(_tail(manifest))}}}'.encode()


def _head(manifest: Manifest) -> dict[str, Any]:
    return {"name": manifest.name, "revision": manifest.revision, "chunking": manifest.chunking}


def _component(component: Component) -> Iterator[str]:
    fields: dict[str, Any] = {"name": component.name, **component.extra}
    if component.upstream:
        fields["upstream"] = dict(component.upstream)
    return _object(fields, "files", _list(_file(file) for file in component.files))


def _file(file: FileEntry) -> Iterator[str]:
    return _object({**_file_head(file), **file.extra}, "chunks", _chunks(file.chunks))


def _chunks(chunks: ChunkList) -> Iterator[str]:
    yield "["
    for start in range(0, len(chunks), _CHUNKS_A_PIECE):
        sizes = chunks.sizes[start : start + _CHUNKS_A_PIECE]
        digests = chunks.digests[start * DIGEST_BYTES : (start + len(sizes)) * DIGEST_BYTES]
        pairs = zip(sizes, digests.hex(",", DIGEST_BYTES).split(","), strict=True)
        yield ("," if start else "") + ",".join(map('[%d,"%s"]'.__mod__, pairs))
    yield "]"


def _file_head(file: FileEntry) -> dict[str, Any]:
    fields: dict[str, Any] = {"path": file.path, "size": file.size, "blake3": file.blake3.hex()}
    named = {"sha256": file.sha256, "git": file.git}
    return fields | {key: value for key, value in named.items() if value}


def _file_lines(file: FileEntry) -> Iterator[str]:
    yield "          {"
    yield from _members({**_file_head(file), **file.extra}, 12)
    if not file.chunks:
        yield '            "chunks": []'
        return
    yield '            "chunks": ['
    yield ",\n".join(map('              [%d, "%s"]'.__mod__, _pairs(file.chunks)))
    yield "            ]"


def _tail(manifest: Manifest) -> Iterator[str]:
    hints: dict[str, Any] = dict(manifest.hints_extra)
    if manifest.origins:
        hints["origins"] = list(manifest.origins)
    if manifest.places:
        hints["places"] = list(manifest.places)
    for key, value in (("hints", hints), ("signatures", list(manifest.signatures))):
        if value:
            text = json.dumps(value, ensure_ascii=False, sort_keys=True, indent=2)
            yield f',\n  "{key}": ' + text.replace("\n", "\n  ")


def _pairs(chunks: ChunkList) -> Iterator[tuple[int, str]]:
    return zip(chunks.sizes, chunks.digests.hex(",", DIGEST_BYTES).split(","), strict=False)


def _object(fields: Mapping[str, Any], key: str, value: Iterator[str]) -> Iterator[str]:
    """One canonical object of `fields` and a member whose value is canonical text already."""
    before = "".join(f"{canonical(name)}:{canonical(fields[name])}," for name in sorted(fields) if name < key)
    after = "".join(f",{canonical(name)}:{canonical(fields[name])}" for name in sorted(fields) if name > key)
    yield f"{{{before}{canonical(key)}:"
    yield from value
    yield after + "}"


def _list(values: Iterator[Iterator[str]]) -> Iterator[str]:
    yield "["
    for number, value in enumerate(values):
        if number:
            yield ","
        yield from value
    yield "]"


def _members(fields: Mapping[str, Any], indent: int) -> Iterator[str]:
    for key, value in fields.items():
        text = json.dumps(value, ensure_ascii=False, sort_keys=True)
        yield f"{' ' * indent}{json.dumps(key)}: {text},"
