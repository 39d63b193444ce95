"""The model -> text: canonical, which the id is over, and readable, which people and `diff` see."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from diachunk.digest import DIGEST_BYTES
from diachunk.manifest.model import ChunkList, Component, FileEntry, Manifest
from diachunk.manifest.read import VERSION
from diachunk.manifest.strict_json import canonical


def canonical_content(manifest: Manifest) -> bytes:
    """The canonical JSON (RFC 8785) of `content`: what the id is the digest of (rule M20)."""
    components = ",".join([_component(component) for component in manifest.components])
    fields = {**_head(manifest), **manifest.extra}
    return _object(fields, {"components": f"[{components}]"}).encode("utf-8")


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
    content = canonical_content(manifest).decode("utf-8")
    return f'{{"diachunk":{VERSION},"content":{content}{"".join(_tail(manifest))}}}'.encode()


def _head(manifest: Manifest) -> dict[str, Any]:
    return {"name": manifest.name, "revision": manifest.revision, "chunking": manifest.chunking}


def _component(component: Component) -> str:
    files = ",".join([_file(file) for file in component.files])
    fields: dict[str, Any] = {"name": component.name, **component.extra}
    if component.upstream:
        fields["upstream"] = dict(component.upstream)
    return _object(fields, {"files": f"[{files}]"})


def _file(file: FileEntry) -> str:
    chunks = ",".join(map('[%d,"%s"]'.__mod__, _pairs(file.chunks)))
    return _object({**_file_head(file), **file.extra}, {"chunks": f"[{chunks}]"})


def _file_head(file: FileEntry) -> dict[str, Any]:
    fields: dict[str, Any] = {"path": file.path, "size": file.size, "blake3": file.blake3.hex()}
    return {**fields, "sha256": file.sha256} if file.sha256 else fields


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


def _object(fields: Mapping[str, Any], ready: dict[str, str]) -> str:
    """One canonical object; `ready` holds members whose values are canonical text already."""
    texts = {key: canonical(value) for key, value in fields.items()} | ready
    return "{" + ",".join([f"{canonical(key)}:{texts[key]}" for key in sorted(texts)]) + "}"


def _members(fields: Mapping[str, Any], indent: int) -> Iterator[str]:
    for key, value in fields.items():
        text = json.dumps(value, ensure_ascii=False, sort_keys=True)
        yield f"{' ' * indent}{json.dumps(key)}: {text},"
