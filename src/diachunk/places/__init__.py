"""Other programs' caches, one file each: reading one is adopting, writing one is placing. See docs/places.md."""

from __future__ import annotations

from diachunk.places.base import Entry, Layout, Place, Pointer, Spot, Text, Wanted
from diachunk.places.known import KINDS, cache_called, cache_of, caches, kinds

__all__ = [
    "KINDS",
    "Entry",
    "Layout",
    "Place",
    "Pointer",
    "Spot",
    "Text",
    "Wanted",
    "cache_called",
    "cache_of",
    "caches",
    "kinds",
]
