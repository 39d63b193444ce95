"""Digests: 32 bytes of BLAKE3, lower-case hex in text. The only place that imports blake3."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import TypeAlias

from blake3 import blake3

DIGEST_BYTES = 32
Digest: TypeAlias = bytes
"""32 raw bytes."""

_HEX = re.compile(r"[0-9a-f]{64}")
_GIT_HEX = re.compile(r"[0-9a-f]{40}")
_MANIFEST_CONTEXT = "diachunk manifest v1"


def digest_of(data: bytes | bytearray | memoryview) -> Digest:
    """BLAKE3 of `data` on the calling thread; releases the GIL."""
    return blake3(data).digest()


def hasher() -> blake3:
    """A running BLAKE3, for bytes that come in pieces."""
    return blake3()


def derive_id(canonical: Iterable[bytes]) -> Digest:
    """The id of a manifest: BLAKE3 in derive_key mode over its canonical content, which comes in pieces."""
    running = blake3(derive_key_context=_MANIFEST_CONTEXT)
    for piece in canonical:
        running.update(piece)
    return running.digest()


def derive_key(context: str, material: bytes) -> bytes:
    """32 bytes for one purpose, which `context` names: BLAKE3 in derive_key mode."""
    return blake3(material, derive_key_context=context).digest()


def keyed_digest(key: bytes, data: bytes) -> Digest:
    """BLAKE3 in keyed mode: a MAC. `key` has 32 bytes."""
    return blake3(data, key=key).digest()


def git_hasher(size_bytes: int) -> hashlib._Hash:
    """A running git object id (SHA-1) of a file of that size: `git hash-object`, by "blob <size>", NUL, the bytes."""
    running = hashlib.sha1(usedforsecurity=False)
    running.update(b"blob %d\0" % size_bytes)
    return running


def is_git_id(text: object) -> bool:
    """Whether `text` is 40 lower-case hex digits."""
    return isinstance(text, str) and _GIT_HEX.fullmatch(text) is not None


def parse_digest(text: object) -> Digest:
    """Reads 64 lower-case hex digits.

    Raises:
        ValueError: anything else, upper case included.
    """
    if not isinstance(text, str) or not _HEX.fullmatch(text):
        raise ValueError(f"not a digest (64 lower-case hex digits): {text!r:.80}")
    return bytes.fromhex(text)
