"""What an upstream states about a checkpoint before any chunk of it is known: paths, sizes, whole-file digests."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

from diachunk.digest import Digest, digest_of
from diachunk.errors import ManifestError
from diachunk.limits import CHUNK_BYTES, Limits
from diachunk.manifest.model import DEFAULT_REVISION, ChunkList, FileEntry, Manifest
from diachunk.manifest.paths import fold, path_fault
from diachunk.manifest.strict_json import quote


@dataclass(frozen=True)
class StatedFile:
    """One file. Its bytes count only once the whole file has the digest that is stated.

    Attributes:
        component, path: where it belongs in the checkpoint.
        size: bytes.
        sha256: SHA-256 in lower-case hex, or "".
        git: git's id of the bytes (40 hex digits), or "". One of the two is there.
    """

    component: str
    path: str
    size: int
    sha256: str = ""
    git: str = ""

    @property
    def label(self) -> str:
        """How a person knows this file."""
        return f"{self.component}/{self.path}" if self.component else self.path

    @property
    def stated(self) -> str:
        """The digest that decides, with its name: for people, and for `key`."""
        return f"sha256 {self.sha256}" if self.sha256 else f"git id {self.git}"

    @cached_property
    def key(self) -> Digest:
        """Names the bytes before their BLAKE3 is known: what the draft of this file is kept under."""
        return digest_of(f"diachunk draft\0{self.stated}\0{self.size}".encode())

    def pieces(self) -> ChunkList:
        """The file cut every 4 MiB, each piece under a name that no bytes have as their digest.

        Fetching needs names for what is fetched; these only ever name pieces of this one file, and `verify`
        refuses whatever claims to be one of them.
        """
        whole, rest = divmod(self.size, CHUNK_BYTES)
        sizes = array("I", [CHUNK_BYTES] * whole + ([rest] if rest else []))
        names = (digest_of(self.key + index.to_bytes(8, "little")) for index in range(len(sizes)))
        return ChunkList(b"".join(names), sizes)


@dataclass(frozen=True, slots=True)
class StatedComponent:
    """A component as upstream has it.

    Attributes:
        upstream: what the manifest will say of where it came from; inside its id.
        mirrors: further origins: URL prefixes or templates with {path}.
        places: kinds of place where programs look for it.
    """

    name: str
    upstream: Mapping[str, Any]
    files: tuple[StatedFile, ...]
    mirrors: tuple[str, ...] = ()
    places: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StatedCheckpoint:
    """All components. `private`: it takes a credential to get it, so it must not be shared with just anybody."""

    name: str
    components: tuple[StatedComponent, ...]
    revision: str = DEFAULT_REVISION
    private: bool = False
    notes: tuple[str, ...] = field(default=())

    @property
    def ref(self) -> str:
        """NAME@REVISION."""
        return f"{self.name}@{self.revision}"

    @property
    def total_bytes(self) -> int:
        return sum(file.size for file in self.walk())

    def walk(self) -> Iterator[StatedFile]:
        """Every file, in order."""
        for component in self.components:
            yield from component.files

    def check(self, limits: Limits) -> None:
        """Whether it can stand in a manifest: known before the first byte is fetched, or a draft made.

        Raises:
            ManifestError: paths that no manifest takes, or more than one holds.
        """
        for component in self.components:
            _check_paths(component, limits)
        files = sum(len(component.files) for component in self.components)
        if files > limits.manifest_files_max:
            raise ManifestError(f"{self.ref}: {files:,} files are more than {limits.manifest_files_max:,}")
        chunks = sum(-(-file.size // CHUNK_BYTES) for file in self.walk())
        if chunks > limits.manifest_chunks_max:
            raise ManifestError(f"{self.ref}: {self.total_bytes:,} bytes are more than a manifest can hold")


def matches_statement(manifest: Manifest, stated: StatedCheckpoint) -> bool:
    """Whether a manifest claims to be of the very files that upstream states: the same components from the same
    upstreams, and each file with its path, size and stated digest.

    It remains a claim: what is fetched by it counts only once its whole files have the digests that were stated.
    """
    if manifest.ref != stated.ref or len(manifest.components) != len(stated.components):
        return False
    for component, said in zip(manifest.components, stated.components, strict=True):
        if (component.name, dict(component.upstream)) != (said.name, dict(said.upstream)):
            return False
        files = {file.path: file for file in component.files}
        if len(files) != len(said.files) or any(file.path not in files for file in said.files):
            return False
        if not all(_claims(files[file.path], file) for file in said.files):
            return False
    return True


def _claims(entry: FileEntry, stated: StatedFile) -> bool:
    if entry.size != stated.size:
        return False
    same_sha256 = not stated.sha256 or entry.sha256 == stated.sha256
    same_git = not stated.git or entry.git == stated.git
    return same_sha256 and same_git and bool(stated.sha256 or stated.git)


def _check_paths(component: StatedComponent, limits: Limits) -> None:
    for file in component.files:
        if fault := path_fault(file.path, limits):
            raise ManifestError(f"{component.name or 'a component'}: the path {quote(file.path)} {fault}")
    # As manifest.validate does: with NUL for "/" a directory sorts right before what lies in it.
    folded = sorted(fold(file.path).replace("/", "\0") for file in component.files)
    for path, following in pairwise(folded):
        shown = quote(path.replace("\0", "/"))
        if path == following:
            raise ManifestError(
                f"{component.name or 'a component'}: two files have the path {shown}, but for case"
            )
        if following.startswith(path + "\0"):
            raise ManifestError(
                f"{component.name or 'a component'}: the path {shown} is a file and a directory"
            )
