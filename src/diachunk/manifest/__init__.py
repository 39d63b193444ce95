"""What a checkpoint is made of: the format is specified in docs/manifest.md."""

from __future__ import annotations

from diachunk.manifest.codec import build, decode, encode
from diachunk.manifest.model import ChunkList, Component, FileEntry, Manifest

__all__ = ["ChunkList", "Component", "FileEntry", "Manifest", "build", "decode", "encode"]
