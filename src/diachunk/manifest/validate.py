"""The rules of docs/manifest.md that concern what a manifest says, checked on the model.

`codec.decode` and `codec.build` both end here, so what this machine publishes is what others accept. The
rules on form (JSON, keys and types) are in `strict_json` and `read`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise

from diachunk.digest import DIGEST_BYTES, Digest, digest_of, is_git_id
from diachunk.errors import ManifestError
from diachunk.limits import CHUNK_BYTES, Limits
from diachunk.manifest import names, strict_json
from diachunk.manifest.model import Component, FileEntry, Manifest
from diachunk.manifest.paths import fold, path_fault
from diachunk.manifest.strict_json import quote

HINTS_KEYS = frozenset({"origins", "places"})
CONTENT_KEYS = frozenset({"name", "revision", "chunking", "components"})
COMPONENT_KEYS = frozenset({"name", "upstream", "files"})
FILE_KEYS = frozenset({"path", "size", "blake3", "sha256", "git", "chunks"})

REQUIRES_KNOWN: frozenset[str] = frozenset()
"""What `requires` may ask of this version."""

_EMPTY = digest_of(b"")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ORIGIN = re.compile(r"https?://[!-.0-~]+(/[!-~]*)?")
_ORIGIN_CHARS_MAX = 2048


def check(manifest: Manifest, limits: Limits) -> None:
    """Checks everything but the id, which follows from what is checked here.

    Raises:
        ManifestError: the first rule that is broken.
    """
    check_requires(manifest.extra)
    _check_names(manifest, limits)
    _check_components(manifest.components, limits)
    for component in manifest.components:
        _check_paths(component, limits)
        for file in component.files:
            _check_file(file, _where(component, file))
    _check_agreement(manifest)
    _check_origins(manifest.origins, limits)
    for value, where, depth, known in _unknown(manifest):
        if known & value.keys():
            raise ManifestError(f"{where}: extra keys {sorted(known & value.keys())} are taken", rule="M2")
        # A mapping of extra keys is part of the object that has them, so it adds no depth of its own.
        strict_json.check_keys(value, where)
        for each in value.values():
            strict_json.check(each, where, depth, limits)


def check_requires(content: Mapping[str, object]) -> None:
    """Refuses what only a newer version understands; goes first, since that may break any later rule.

    Raises:
        ManifestError: M6 or M7.
    """
    requires = content.get("requires", [])
    if type(requires) is not list or not all(type(each) is str for each in requires):
        raise ManifestError("content.requires must be a list of strings", rule="M6")
    if unknown := sorted(set(requires) - REQUIRES_KNOWN):
        needs = ", ".join(quote(each, 40) for each in unknown[:5])
        raise ManifestError(
            f"the manifest was made by a newer diachunk: needs {needs}", rule="M7", hint="update diachunk"
        )


def _where(component: Component, file: FileEntry) -> str:
    return "file " + quote(f"{component.name}/{file.path}".lstrip("/"), 120)


def _check_names(manifest: Manifest, limits: Limits) -> None:
    longest = limits.name_chars_max
    for word, text, good in (
        ("name", manifest.name, names.is_name),
        ("revision", manifest.revision, names.is_revision),
        ("chunking rule", manifest.chunking, names.is_rule),
    ):
        if not good(text, longest):
            raise ManifestError(f"{quote(text)} is not a {word}", rule="M8")
    for component in manifest.components:
        if not names.is_component(component.name, longest):
            raise ManifestError(f"{quote(component.name)} is not a component's name", rule="M8")


def _check_components(components: tuple[Component, ...], limits: Limits) -> None:
    if not components:
        raise ManifestError("the manifest has no component", rule="M9")
    for component in components:
        if not component.files:
            raise ManifestError(f"component {component.name!r} has no file", rule="M9")
        if component.name == "" and len(components) > 1:
            # Its files lie where the other components' directories are.
            raise ManifestError("an unnamed component must be the only one", rule="M9")
    folded = sorted(component.name.casefold() for component in components)
    for name, following in pairwise(folded):
        if name == following:
            raise ManifestError(f"two components are called {name!r}, but for case", rule="M9")
    files = sum(len(component.files) for component in components)
    if files > limits.manifest_files_max:
        raise ManifestError(f"{files} files are more than {limits.manifest_files_max}", rule="M12")
    chunks = sum(len(file.chunks) for component in components for file in component.files)
    if chunks > limits.manifest_chunks_max:
        raise ManifestError(f"{chunks} chunks are more than {limits.manifest_chunks_max}", rule="M12")


def _check_paths(component: Component, limits: Limits) -> None:
    for file in component.files:
        if fault := path_fault(file.path, limits):
            raise ManifestError(f"{_where(component, file)}: the path {fault}", rule="M10")
    # With NUL (no path has it) for "/", a directory sorts right before what lies in it: neighbours tell all.
    folded = sorted(fold(file.path).replace("/", "\0") for file in component.files)
    for path, following in pairwise(folded):
        shown = quote(path.replace("\0", "/"))
        if path == following:
            raise ManifestError(f"two files have the path {shown}, but for case", rule="M11")
        if following.startswith(path + "\0"):
            raise ManifestError(f"the path {shown} is a file and a directory", rule="M11")


def _check_file(file: FileEntry, where: str) -> None:
    if len(file.blake3) != DIGEST_BYTES:
        raise ManifestError(f"{where}: blake3 is not {DIGEST_BYTES} bytes", rule="M13")
    if file.sha256 and not _SHA256.fullmatch(file.sha256):
        raise ManifestError(f"{where}: sha256 is not 64 lower-case hex digits", rule="M13")
    if file.git and not is_git_id(file.git):
        raise ManifestError(f"{where}: git is not 40 lower-case hex digits", rule="M13")
    sizes = file.chunks.sizes
    if sizes and (min(sizes) < 1 or max(sizes) > CHUNK_BYTES):
        index = next(i for i, size in enumerate(sizes) if not 1 <= size <= CHUNK_BYTES)
        raise ManifestError(
            f"{where}: chunk {index} has {sizes[index]} bytes, not 1 to {CHUNK_BYTES}", rule="M14"
        )
    if file.size == 0 and (sizes or file.blake3 != _EMPTY):
        raise ManifestError(f"{where} is empty, but not its chunks or digest", rule="M16")
    if (total := sum(sizes)) != file.size:
        size = strict_json.describe(file.size)
        raise ManifestError(f"{where}: its chunks sum to {total} bytes, its size is {size}", rule="M15")


def _check_agreement(manifest: Manifest) -> None:
    """A digest names one string of bytes, whether it is a file's or a chunk's: M17 and M18."""
    blobs: dict[Digest, FileEntry] = {}
    sizes: dict[Digest, int] = {}
    for component, file in manifest.walk():
        first = blobs.setdefault(file.blake3, file)
        if first is not file:
            if (first.size, first.sha256, first.chunks) != (file.size, file.sha256, file.chunks):
                raise ManifestError(
                    f"{_where(component, file)} has the digest of {quote(first.path)}, but not its size,"
                    " sha256 and chunks",
                    rule="M17",
                )
            # Only where a hub keeps the file under it is it stated at all.
            if first.git and file.git and first.git != file.git:
                raise ManifestError(f"{_where(component, file)}: one digest, two git ids", rule="M17")
            continue
        if len(file.chunks) == 1 and file.chunks.digests != file.blake3:
            raise ManifestError(
                f"{_where(component, file)} is one chunk, but has another digest than it", rule="M17"
            )
        if sizes.setdefault(file.blake3, file.size) != file.size:
            raise ManifestError(f"{_where(component, file)}: one digest, two sizes", rule="M18")
        for size, digest in file.chunks:
            if sizes.setdefault(digest, size) != size:
                raise ManifestError(
                    f"{_where(component, file)}: chunk {digest.hex()} has two sizes", rule="M18"
                )


def _check_origins(origins: tuple[str, ...], limits: Limits) -> None:
    if len(origins) > limits.origins_max:
        raise ManifestError(f"{len(origins)} origins are more than {limits.origins_max}", rule="M19")
    for origin in origins:
        if len(origin) > _ORIGIN_CHARS_MAX:
            raise ManifestError(f"an origin has more than {_ORIGIN_CHARS_MAX} characters", rule="M19")
        authority = origin.partition("://")[2].partition("/")[0].partition("?")[0].partition("#")[0]
        # URL parsers disagree on where a host with a backslash ends: one would be checked, another dialled.
        if not _ORIGIN.fullmatch(origin) or not authority or "\\" in origin:
            raise ManifestError(f"the origin {quote(origin)} is not an http or https URL", rule="M19")
        if "@" in authority:
            raise ManifestError("an origin holds a user name or password", rule="M19")


def _unknown(manifest: Manifest) -> Iterator[tuple[Mapping[str, object], str, int, frozenset[str]]]:
    """What is kept without being understood: (mapping, where, depth of its values, keys it may not have)."""
    none: frozenset[str] = frozenset()
    yield manifest.extra, "content", 2, CONTENT_KEYS
    for component in manifest.components:
        yield component.extra, f"component {component.name!r}", 4, COMPONENT_KEYS
        yield component.upstream, f"the upstream of component {component.name!r}", 5, none
        for file in component.files:
            if file.extra:
                yield file.extra, _where(component, file), 6, FILE_KEYS
    yield manifest.hints_extra, "hints", 2, HINTS_KEYS
    yield {"places": list(manifest.places)}, "hints.places", 2, none
    yield {"signatures": list(manifest.signatures)}, "signatures", 1, none
