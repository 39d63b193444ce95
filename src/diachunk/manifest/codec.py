"""Bytes <-> manifest, by the rules of docs/manifest.md: `decode` for bytes of others, `build` for our own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from diachunk.digest import Digest, derive_id
from diachunk.errors import ManifestError
from diachunk.limits import DEFAULT, Limits
from diachunk.manifest import read, strict_json, validate, write
from diachunk.manifest.model import RULE, Component, Manifest


def decode(data: bytes, limits: Limits = DEFAULT, *, expected: Digest | None = None) -> Manifest:
    """Reads a manifest from untrusted bytes and computes its id.

    Args:
        data: the whole file.
        limits: caps on bytes, files, chunks, paths, names, nesting and origins.
        expected: the id that was asked for, if it was asked for by id.

    Raises:
        ManifestError: with the name of the rule that is broken.
    """
    try:
        manifest = _seal(read.read(strict_json.parse(data, limits), limits), limits)
    except RecursionError as error:
        raise ManifestError("the manifest is nested too deeply", rule="M5") from error
    if expected is not None and manifest.id != expected:
        raise ManifestError(f"the manifest has the id {manifest.hex_id}, not {expected.hex()}", rule="M20")
    return manifest


def build(
    name: str,
    revision: str,
    components: Iterable[Component],
    *,
    chunking: str = RULE,
    extra: Mapping[str, Any] | None = None,
    origins: Iterable[str] = (),
    places: Iterable[Any] = (),
    limits: Limits = DEFAULT,
) -> Manifest:
    """Makes a manifest of what was published here.

    Raises:
        ManifestError: others would refuse it, by the rule it names.
    """
    manifest = Manifest(
        id=b"",
        name=name,
        revision=revision,
        components=tuple(components),
        chunking=chunking,
        extra=dict(extra or {}),
        origins=tuple(origins),
        places=tuple(places),
    )
    return _seal(manifest, limits)


def encode(manifest: Manifest) -> bytes:
    """The manifest as a file; `decode` gives the same manifest back.

    Readable and diffable, unless that would be more than readers take: then in the fewest bytes.
    """
    text = write.readable(manifest)
    return text if len(text) <= DEFAULT.manifest_bytes_max else write.compact(manifest)


def _seal(manifest: Manifest, limits: Limits) -> Manifest:
    validate.check(manifest, limits)
    return replace(manifest, id=derive_id(write.canonical_content(manifest)))
