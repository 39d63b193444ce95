"""What hashing a file yields. Apart from hashing itself: whoever only reads it needs no format readers."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from diachunk.digest import Digest


@dataclass(frozen=True, slots=True)
class Hashes:
    """What one pass over a file's bytes found. `git` is "" where it was not asked for."""

    size: int
    blake3: Digest
    sha256: str
    git: str
    sizes: array[int]
    digests: bytes
    rule: str
