"""What a stored manifest says apart from its chunk lists, read fast from the text that `encode` wrote.

Nearly all of a manifest is chunk lines, and most questions about the checkpoints of a store (`ls`, which of
them may be a donor) are not about chunks. Here the lists are cut out by their layout before anything is
parsed, and kept as text. What does not fit the layout is decoded in full.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

from diachunk.digest import DIGEST_BYTES, Digest, digest_of, is_git_id, parse_digest
from diachunk.errors import ManifestError
from diachunk.limits import CHUNK_BYTES, DEFAULT, Limits
from diachunk.manifest import read, strict_json, validate
from diachunk.manifest.codec import decode
from diachunk.manifest.model import RULE, ChunkList, Manifest

_BEGIN = b'\n            "chunks": [\n'
_END = b"\n            ]"
_LINE = '              [%d, "%s"]'
_SEPARATOR = ",\n"
_HEX_CHARS = 2 * DIGEST_BYTES
_LINE_BYTES_MIN = len(_LINE % (1, "0" * _HEX_CHARS)) + len(_SEPARATOR)
_LINE_BYTES_MAX = len(_LINE % (CHUNK_BYTES, "0" * _HEX_CHARS)) + len(_SEPARATOR)
_BETWEEN = b'[]" \n'
_EMPTY = digest_of(b"")
_NO_CHUNKS = ChunkList(b"", array("I"))


@dataclass(frozen=True, slots=True)
class FileOutline:
    """One file of a component. All of it is a claim.

    Attributes:
        path: relative POSIX path inside the component.
        size: bytes.
        blake3: digest of the whole file.
        lines: the text of its chunk lines, unread; or its chunks, where they had to be read anyway.
        sha256, git: as of FileEntry.
    """

    path: str
    size: int
    blake3: Digest
    lines: memoryview | ChunkList
    sha256: str = ""
    git: str = ""

    def digests(self) -> Iterator[Digest]:
        """The digests of its chunks in file order: a quick look, for which sizes and spelling do not matter.

        Raises:
            ManifestError: its chunk lines are damaged.
        """
        if isinstance(self.lines, ChunkList):
            packed = self.lines.digests
        else:
            packed = self._packed(bytes(self.lines).split(b'"')[1::2])
        return chain.from_iterable(struct.iter_unpack(f"{DIGEST_BYTES}s", packed))

    def chunks(self) -> ChunkList:
        """Its chunks, from lines that are exactly those that `encode` writes for them.

        Raises:
            ManifestError: its chunk lines are damaged or spelled in another way (`decode` will tell), or
                their sizes do not sum to the size of the file.
        """
        if isinstance(self.lines, ChunkList):
            return self.lines
        text = bytes(self.lines)
        fields = text.translate(None, _BETWEEN).split(b",")
        packed = self._packed(fields[1::2])
        try:
            found = ChunkList(packed, array("I", map(int, fields[0::2])))
        except (ValueError, OverflowError) as error:
            raise self._damaged() from error
        pairs = zip(found.sizes, packed.hex(",", DIGEST_BYTES).split(","), strict=True)
        if _SEPARATOR.join(map(_LINE.__mod__, pairs)).encode("ascii") != text:
            raise self._damaged()
        if not 1 <= min(found.sizes) <= max(found.sizes) <= CHUNK_BYTES or sum(found.sizes) != self.size:
            raise self._damaged()
        return found

    def _packed(self, digits: list[bytes]) -> bytes:
        try:
            packed = bytes.fromhex(b"".join(digits).decode("ascii"))
        except ValueError as error:
            raise self._damaged() from error
        if len(packed) != DIGEST_BYTES * len(digits):
            raise self._damaged()
        return packed

    def _damaged(self) -> ManifestError:
        return ManifestError(
            f"the chunk lines of {strict_json.quote(self.path)} are not those of this file", rule="M14"
        )


@dataclass(frozen=True, slots=True)
class ComponentOutline:
    """A component's name, files and upstream."""

    name: str
    files: tuple[FileOutline, ...]
    upstream: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outline:
    """A stored manifest without its chunk lists.

    A claim, for showing and for finding what may be worth a look; nothing that trusts a manifest may be given
    one. Its `id` is the name of the file that it was read from, and is not proven. All rules of
    docs/manifest.md hold for what is here, but nobody has looked into the chunk lists: what is wrong inside
    them (a digest, a size) is overlooked.
    """

    id: Digest
    name: str
    revision: str
    components: tuple[ComponentOutline, ...]
    chunking: str = RULE

    @classmethod
    def of(cls, manifest: Manifest) -> Outline:
        """The outline of a manifest that is in memory."""
        components = tuple(
            ComponentOutline(
                component.name,
                tuple(
                    FileOutline(file.path, file.size, file.blake3, file.chunks, file.sha256, file.git)
                    for file in component.files
                ),
                component.upstream,
            )
            for component in manifest.components
        )
        return cls(manifest.id, manifest.name, manifest.revision, components, manifest.chunking)

    def files(self) -> Iterator[FileOutline]:
        """Every file, in manifest order."""
        for component in self.components:
            yield from component.files

    @cached_property
    def total_bytes(self) -> int:
        return sum(file.size for file in self.files())


def outline(data: bytes, manifest_id: Digest, limits: Limits = DEFAULT) -> Outline:
    """Reads the outline of a manifest that is stored under `manifest_id`.

    Args:
        data: the whole file. The outline keeps it in memory.
        manifest_id: the id that the file's name claims.
        limits: as for `decode`.

    Raises:
        ManifestError: with the name of the rule that is broken; M20 where the manifest had to be decoded and
            has another id.
    """
    try:
        found = _skim(data, manifest_id, limits)
    except (ManifestError, ValueError, LookupError, TypeError, RecursionError):
        # Not of our layout, or against a rule: reading it properly will tell which.
        found = None
    return found or Outline.of(decode(data, limits, expected=manifest_id))


def _skim(data: bytes, manifest_id: Digest, limits: Limits) -> Outline | None:
    """The outline of what `write.readable` wrote; None, or nearly any error, for everything else.

    The rest of the text is read and checked as a checkpoint of empty files, so that all rules but those of
    chunk lists are applied where they are at home.
    """
    rest, cuts = _cut(data)
    if not cuts or len(data) > limits.manifest_bytes_max:
        return None
    if sum(each.count for each in cuts) > limits.manifest_chunks_max:
        return None
    document = strict_json.parse(rest, limits)
    files = _take_files(document, cuts)
    if files is None:
        return None
    manifest = read.read(document, limits)
    validate.check(manifest, limits)
    components = zip(manifest.components, files, strict=True)
    return Outline(
        manifest_id,
        manifest.name,
        manifest.revision,
        tuple(ComponentOutline(each.name, tuple(files), each.upstream) for each, files in components),
        manifest.chunking,
    )


@dataclass(frozen=True, slots=True)
class _Cut:
    """What stood between the brackets of one chunk list: `count` lines."""

    lines: memoryview
    count: int


def _cut(data: bytes) -> tuple[bytes, list[_Cut]]:
    """The text with NaN in place of each chunk list, and the lists; none where in doubt.

    NaN stands for nothing in a manifest (rule M3), so none of these can be mistaken for something else.

    What is taken out is whole lists and nothing more, if what is left is JSON. A JSON string holds no line
    feed (RFC 8259, section 7), so `_BEGIN` is a key and the start of its list, and the bracket in `_END`
    stands in no string. It ends that very list, since what could come between cannot: were the list to end
    before, the object would go on with another key and its colon; were another list inside still open, what
    is left would have a bracket too many.
    """
    view = memoryview(data)
    pieces: list[memoryview | bytes] = []
    cuts: list[_Cut] = []
    position = 0
    while (begin := data.find(_BEGIN, position)) >= 0:
        start = begin + len(_BEGIN)
        end = data.find(_END, start)
        if end < 0 or data.find(b":", start, end) >= 0:
            return b"", []
        pieces += view[position : start - len(b"[\n")], b"NaN"
        cuts.append(_Cut(view[start:end], data.count(b"\n", start, end) + 1))
        position = end + len(_END)
    pieces.append(view[position:])
    return b"".join(pieces), cuts


def _take_files(document: dict[str, Any], cuts: list[_Cut]) -> list[list[FileOutline]] | None:
    """Takes size, digests and chunks out of every file of a parsed document, which then is an empty one.

    Returns:
        The files of each component; None if a list is missing, or they contradict each other.
    """
    unused = iter(cuts)
    components: list[list[FileOutline]] = []
    seen: dict[Digest, tuple[int, Digest | None, memoryview | ChunkList]] = {}
    gits: dict[Digest, str] = {}
    for component in document["content"]["components"]:
        files: list[FileOutline] = []
        for file in component["files"]:
            cut = None
            if file["chunks"] != []:
                # What was not cut here takes the list of another file, for which there is none then; and what
                # was cut elsewhere left a number where the rules, which are applied next, allow none.
                cut = next(unused, None)
                if cut is None:
                    return None
            blake3 = parse_digest(file["blake3"])
            sha256 = parse_digest(file.pop("sha256")) if "sha256" in file else None
            git = ""
            if "git" in file:
                git = file.pop("git")
                if not is_git_id(git) or gits.setdefault(blake3, git) != git:
                    return None
            lines = cut.lines if cut else _NO_CHUNKS
            found = FileOutline(
                file["path"], file["size"], blake3, lines, sha256.hex() if sha256 else "", git
            )
            facts = found.size, sha256, found.lines
            if not _plausible(found, cut) or seen.setdefault(blake3, facts) != facts:
                return None
            file.update(size=0, blake3=_EMPTY.hex(), chunks=[])
            files.append(found)
        components.append(files)
    return components


def _plausible(file: FileOutline, cut: _Cut | None) -> bool:
    """Whether the chunk lines can be those of the file, as far as can be told without reading them."""
    if type(file.size) is not int:
        return False
    if cut is None:
        return file.size == 0 and file.blake3 == _EMPTY
    spread = cut.count * _LINE_BYTES_MIN <= len(cut.lines) + len(_SEPARATOR) <= cut.count * _LINE_BYTES_MAX
    alone = cut.count > 1 or bytes(cut.lines).endswith(f' "{file.blake3.hex()}"]'.encode("ascii"))
    return spread and alone and cut.count <= file.size <= cut.count * CHUNK_BYTES
