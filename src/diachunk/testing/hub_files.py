"""What an emulated Hub keeps: files as git and LFS name them, and commits that are made of files."""

from __future__ import annotations

import hashlib
import mmap
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias, cast

from diachunk.digest import git_hasher

LFS_PATTERNS = ("*.safetensors", "*.bin", "*.pth", "*.pt", "*.gguf", "*.npz", "*.onnx")
"""What goes to LFS if a test does not say: matched against the whole path and against the name alone."""

Content: TypeAlias = bytes | Path
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a commit, with what the Hub *states* about it (a test may have it state what is wrong).

    Attributes:
        content: its true bytes.
        size_bytes: of the content, not of the pointer.
        git_id: of what lies in git: the file, or its LFS pointer.
        sha256: of the content; "" for a file that is not in LFS.
        pointer_bytes: size of the LFS pointer; 0 for a file that is not in LFS.
    """

    path: str
    content: bytes = field(repr=False)
    size_bytes: int
    git_id: str
    sha256: str = ""
    pointer_bytes: int = 0

    @property
    def etag(self) -> str:
        """The name under which Hub clients keep it."""
        return self.sha256 or self.git_id

    @property
    def lfs(self) -> bool:
        return self.pointer_bytes > 0


def hub_file(path: str, content: Content, lfs_patterns: Iterable[str] = LFS_PATTERNS) -> HubFile:
    """Reads and names a file; one given by its path is mapped, not read into memory."""
    data = _mapped(content) if isinstance(content, Path) else content
    name = path.rpartition("/")[2]
    if not any(fnmatchcase(path, each) or fnmatchcase(name, each) for each in lfs_patterns):
        return HubFile(path, data, len(data), _git_id(data))
    sha256 = hashlib.sha256(data).hexdigest()
    # https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md, "The Pointer"
    lines = ["version https://git-lfs.github.com/spec/v1", f"oid sha256:{sha256}", f"size {len(data)}", ""]
    pointer = "\n".join(lines).encode()
    return HubFile(path, data, len(data), _git_id(pointer), sha256, len(pointer))


@dataclass(frozen=True, slots=True)
class Commit:
    """A state of a repository.

    Attributes:
        id: 40 hex digits.
        files: path -> file, sorted.
    """

    id: str
    files: Mapping[str, HubFile]


def commit_of(repository: str, files: Iterable[HubFile], commit_id: str | None = None) -> Commit:
    """The same files in the same repository are the same commit, on every machine.

    Raises:
        ValueError: two files of one path, or an id that is not 40 hex digits.
    """
    given = list(files)
    ordered = {file.path: file for file in sorted(given, key=lambda each: each.path)}
    if len(ordered) != len(given):
        raise ValueError(f"{repository}: two files have one path")
    if commit_id is None:
        lines = [repository, *(f"{file.git_id} {path}" for path, file in ordered.items())]
        commit_id = hashlib.sha1("\n".join(lines).encode(), usedforsecurity=False).hexdigest()
    if not is_commit(commit_id):
        raise ValueError(f"not a commit (40 lower-case hex digits): {commit_id!r}")
    return Commit(commit_id, MappingProxyType(ordered))


def is_commit(revision: str) -> bool:
    return _COMMIT.fullmatch(revision) is not None


def tree_id(path: str, commit: Commit) -> str:
    """A git id for a directory: as good as the real one, which no client can check."""
    return hashlib.sha1(f"{commit.id}/{path}".encode(), usedforsecurity=False).hexdigest()


def _git_id(data: bytes) -> str:
    running = git_hasher(len(data))
    running.update(data)
    return running.hexdigest()


def _mapped(path: Path) -> bytes:
    if path.stat().st_size == 0:
        return b""  # an empty file cannot be mapped
    with path.open("rb") as file:
        # it does what is wanted of bytes here: a length, slices that are bytes, the buffer protocol
        return cast(bytes, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
