"""diachunk show: the verb. What it does is diachunk.show."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diachunk.cli import text
from diachunk.cli.options import Json, Target
from diachunk.cli.talk import Talk, raw
from diachunk.errors import redact

if TYPE_CHECKING:
    from diachunk.api.trust.telling import Standing
    from diachunk.manifest import Manifest
    from diachunk.store.blobs import Presence

_WORDS = {"PROVEN": "here", "CLAIMED": "here, unverified", "PARTIAL": "unfinished", "ABSENT": "not here"}


def show(
    target: Target,
    manifest_itself: Annotated[
        bool, typer.Option("--manifest", help="Print the manifest itself, as it would be served.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a checkpoint: its files, and what is here."""
    import diachunk
    from diachunk.api.context import Context
    from diachunk.api.parts import called_part_of
    from diachunk.api.trust.telling import standing
    from diachunk.manifest import encode

    talk = Talk(as_json=as_json)
    manifest, presence = diachunk.show(target)
    if manifest_itself:
        raw(encode(manifest))
        return
    trust = standing(manifest, Context.make())
    talk.result("\n".join([*_head(manifest, presence, trust), *_components(manifest, presence)]))
    talk.emit(
        "done",
        name=manifest.name,
        revision=manifest.revision,
        id=manifest.hex_id,
        chunking=manifest.chunking,
        chunks=manifest.chunk_count,
        total_bytes=manifest.total_bytes,
        present_bytes=_here(manifest, presence),
        origins=[redact(each) for each in manifest.origins],
        signatures=trust.signatures,
        signed_by=None if trust.signed is None else trust.signed.principal,
        serial=None if trust.signed is None else trust.signed.serial,
        private=trust.private,
        part_of=called_part_of(manifest),
        components=[
            {
                "name": component.name,
                "upstream": dict(component.upstream),
                "total_bytes": component.total_bytes,
                "files": [
                    {
                        "path": file.path,
                        "size_bytes": file.size,
                        "blake3": file.blake3.hex(),
                        "sha256": file.sha256,
                        "chunks": len(file.chunks),
                        "presence": presence[component.name, file.path].name.lower(),
                    }
                    for file in component.files
                ],
            }
            for component in manifest.components
        ],
    )


_Presences = dict[tuple[str, str], "Presence"]


def _here(manifest: Manifest, presence: _Presences) -> int:
    return sum(
        file.size
        for component, file in manifest.walk()
        if presence[component.name, file.path].name in ("PROVEN", "CLAIMED")
    )


def _head(manifest: Manifest, presence: _Presences, trust: Standing) -> list[str]:
    files = text.count(len(presence), "file")
    chunks = text.count(manifest.chunk_count, "chunk")
    here = _here(manifest, presence)
    from diachunk.api.parts import called_part_of

    rows = [
        ("id", manifest.hex_id),
        *(("part of", text.ref(whole)) for whole in (called_part_of(manifest),) if whole),
        (
            "size",
            f"{text.size(manifest.total_bytes)} in {files}, {chunks}",
        ),
        ("cut by", manifest.chunking),
        ("here", f"{text.size(here)} ({text.percent(here, manifest.total_bytes)})"),
        *(("signed", words) for words in (trust.words,) if words),
        *(("shared", "only under the lab's secret") for _ in range(trust.private)),
        *(("origin", redact(each)) for each in manifest.origins),
    ]
    return [text.ref(manifest.ref), *text.columns(rows)]


def _components(manifest: Manifest, presence: _Presences) -> list[str]:
    lines = []
    for component in manifest.components:
        size = text.size(component.total_bytes)
        lines += ["", f"{component.name or 'all files'}: {text.count(len(component.files), 'file')}, {size}"]
        lines += [f"  from {_upstream(component.upstream)}"] if component.upstream else []
        rows = [
            (text.size(file.size), _WORDS[presence[component.name, file.path].name], file.path)
            for file in component.files
        ]
        lines += [f"  {line}" for line in text.columns(rows, right=(0,))]
    return lines


def _upstream(upstream: Any) -> str:
    if upstream.get("kind") == "hub" and "repository" in upstream:
        return f"the Hub: {upstream['repository']} at {str(upstream.get('commit', '?'))[:12]}"
    if upstream.get("kind") == "url" and "url" in upstream:
        return redact(str(upstream["url"]))
    return ", ".join(
        f"{key} {value if isinstance(value, str) else json.dumps(value)}" for key, value in upstream.items()
    )
