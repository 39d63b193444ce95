"""publish: files that lie here, or a recipe's -> a manifest. Nothing leaves this machine."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diachunk.api.context import Context
from diachunk.api.publishing_recipes import Published, is_recipe, publish_recipe, write_out
from diachunk.api.publishing_signed import publish_signed
from diachunk.api.several import Several, several
from diachunk.chunking.hashing import HashedFile, hash_files
from diachunk.errors import StoreError, UsageError, from_os_error, os_errors
from diachunk.manifest import ChunkList, Component, FileEntry, Manifest, build
from diachunk.manifest.model import DEFAULT_REVISION, RULE
from diachunk.manifest.names import is_component, parse_ref
from diachunk.store.adopted import AdoptedFile
from diachunk.store.ingest import ingest
from diachunk.store.stamps import Stamp
from diachunk.store.store import Store
from diachunk.transfer.progress import How, Listener, Progress, Status, silent

__all__ = ["Published", "publish"]

_LEFT_OUT = (".",)


@dataclass(frozen=True, slots=True)
class _Source:
    component: str
    path: str
    file: Path


def publish(
    sources: Several,
    *,
    name: str | None = None,
    revision: str | None = None,
    origins: Sequence[str] = (),
    out: str | os.PathLike[str] | None = None,
    copy: bool = False,
    store: bool = True,
    force: bool = False,
    upstream: Mapping[str, Mapping[str, str]] | None = None,
    private: bool = False,
    sign: str | os.PathLike[str] | None = None,
    progress: Listener = silent,
    home: str | os.PathLike[str] | None = None,
) -> Published:
    """Makes a manifest of files and, unless `store` is off, adopts them where they lie.

    Args:
        sources: files, directories, or `component=PATH`; or one recipe (`./dia.toml`) or `hub:ORG/REPO[@REV]`, whose
            files are then fetched into the store and published while they arrive. With `sign`, also a name or id of
            what is in the store: then nothing is read, and no name is needed.
        name, revision: what it is called; a recipe says that itself.
        origins: http(s) URL prefixes to write into the manifest as hints.
        out: also write the manifest to this file.
        copy: take the files into the store, by reflink where the file system can, else by copying.
        store: whether the store should know the files and the name; off, nothing but `out` is written.
        force: move NAME@REV if it already stands for another manifest.
        progress: first told the bytes there are to hash (Status), then what was hashed.
        upstream: for each component, where its files came from (kind, repository, commit); inside the id.
        private: machines that share it do so only under the lab's secret.
        sign: a key of SSH: a private key's file, or a public key's whose other half an agent or a security key has.

    Raises:
        UsageError: no such file, no such name grammar, two files for one path, no name.
        TransferIncomplete: a recipe's files could not be had.
        IntegrityError: a file changed while it was read.
        ManifestError: the names cannot stand in a manifest.
        TrustError: NAME@REV stands for another manifest and `force` is off; or it was published and not signed.
        StoreError: the disk refused.
    """
    texts = several(sources)
    order = _Order(
        name, revision, several(origins), out, copy, store, force, upstream or {}, private, progress, home
    )
    if sign is None:
        return _publish(texts, order)
    return publish_signed(
        texts,
        sign,
        lambda: _publish(texts, replace(order, out=None)),
        name=name,
        out=out,
        context=Context.make(home) if store else None,
        private=private,
    )


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be published, and how: arguments of `publish`."""

    name: str | None
    revision: str | None
    origins: tuple[str, ...]
    out: str | os.PathLike[str] | None
    copy: bool
    store: bool
    force: bool
    upstream: Mapping[str, Mapping[str, str]]
    private: bool
    progress: Listener
    home: str | os.PathLike[str] | None


def _publish(texts: Sequence[str], order: _Order) -> Published:
    if order.private and not order.store:
        raise UsageError("private is what a store shares: with --no-store there is none")
    if not is_recipe(texts):
        return _publish_files(texts, order)
    if order.copy or not order.store or order.upstream:
        raise UsageError("a recipe's files go into the store: there is nothing to copy, and no way around it")
    return publish_recipe(
        texts[0],
        Context.make(order.home),
        name=order.name,
        revision=order.revision,
        origins=order.origins,
        out=order.out,
        force=order.force,
        private=order.private,
        progress=order.progress,
    )


def _publish_files(texts: Sequence[str], order: _Order) -> Published:
    found, left_out = _collect(texts)
    if order.name is None:
        raise UsageError(
            "what is it called?", hint=f"diachunk publish {' '.join(texts)[:80]} --name org/checkpoint"
        )
    name, revision = parse_ref(f"{order.name}@{order.revision or DEFAULT_REVISION}")
    # `--no-store` must work where there is no store and no place for one.
    context = Context.make(order.home) if order.store else None
    paths = list(dict.fromkeys(each.file for each in found))
    order.progress(Status(_total_bytes(paths), 0.0, None, "", ()))
    inside: dict[Path, Path] = {}
    try:
        if order.copy and context is not None:
            for path in paths:
                inside[path] = ingest(context.store, path)
        component_of = {inside.get(each.file, each.file): each.component for each in found}
        tell = _teller(order.progress, component_of)
        read = hash_files([inside.get(path, path) for path in paths], read=tell)
        hashed = dict(zip(paths, read, strict=True))
        components = _components(found, hashed, order.upstream)
        manifest = build(name, revision, components, chunking=_rule(read), origins=order.origins)
        if context is not None:
            _keep(context.store, manifest, hashed, order)
    finally:
        for temporary in inside.values():
            with contextlib.suppress(OSError):  # left behind, `gc` removes it
                temporary.unlink()
    return Published(manifest, write_out(manifest, order.out), left_out)


def _total_bytes(paths: Iterable[Path]) -> int:
    try:
        return sum(path.stat().st_size for path in paths)
    except OSError as error:
        raise from_os_error(error, "read") from error


def _teller(progress: Listener, component_of: Mapping[Path, str]) -> Callable[[Path, int], None]:
    return lambda path, size: progress(Progress(size, component_of[path], How.HASHED))


def _collect(sources: Sequence[str]) -> tuple[list[_Source], tuple[Path, ...]]:
    """Lists the files of all sources in manifest order, and what was left out."""
    if not sources:
        raise UsageError("nothing to publish", hint="give files, directories or component=PATH")
    found: dict[tuple[str, str], _Source] = {}
    left_out: list[Path] = []
    for text in sources:
        component, path = _split(text)
        with os_errors("read", path):
            listed = _walk(path, left_out)
        for relative, file in listed:
            if not relative.isprintable():
                _refuse_unspeakable(relative)
            each = _Source(component, unicodedata.normalize("NFC", relative), file)
            if (component, each.path) in found:
                raise UsageError(f"two files for {component or 'the checkpoint'}: {each.path}")
            found[component, each.path] = each
    if not found:
        raise UsageError(f"no files in {sources[0]}")
    return sorted(found.values(), key=lambda each: (each.component, each.path.encode())), tuple(left_out)


def _refuse_unspeakable(relative: str) -> None:
    """Bytes that are not UTF-8 reach Python as lone surrogates (PEP 383), which nothing else can print."""
    try:
        relative.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{relative!a}: this file name is not UTF-8", hint="rename the file") from error


def _split(text: str) -> tuple[str, Path]:
    component, equals, rest = text.partition("=")
    if equals and is_component(component) and component and not os.path.lexists(text):
        return component, Path(rest)
    return "", Path(text)


def _walk(path: Path, left_out: list[Path]) -> list[tuple[str, Path]]:
    """(path in the checkpoint, file) for a file or a directory. Names that start with "." are left out."""
    if path.is_file():
        return [(path.name, Path(os.path.abspath(path)))]
    if not path.is_dir():
        if path.exists():
            raise UsageError(f"{path}: no regular file")
        raise UsageError(
            f"{path}: no such file or directory",
            hint="of what is in the store already: --sign KEY publishes it",
        )
    root = Path(os.path.abspath(path))
    found: list[tuple[str, Path]] = []

    def refuse(error: OSError) -> None:
        raise from_os_error(error, "read", error.filename)

    for directory, directories, files in os.walk(root, onerror=refuse):
        here = Path(directory)
        hidden = [each for each in (*directories, *files) if each.startswith(_LEFT_OUT)]
        left_out += [here / each for each in hidden]
        links = [each for each in directories if (here / each).is_symlink()]
        left_out += [here / each for each in links if each not in hidden]
        directories[:] = sorted(each for each in directories if each not in hidden and each not in links)
        for each in sorted(set(files) - set(hidden)):
            file = here / each
            if not file.is_file():
                raise UsageError(f"{file}: no regular file (a dangling link, a device or a socket)")
            found.append((file.relative_to(root).as_posix(), file))
    return found


def _components(
    found: Sequence[_Source], hashed: Mapping[Path, HashedFile], upstream: Mapping[str, Mapping[str, str]]
) -> list[Component]:
    files: dict[str, list[FileEntry]] = {}
    for each in found:
        one = hashed[each.file]
        entry = FileEntry(each.path, one.size, one.blake3, ChunkList(one.digests, one.sizes), one.sha256)
        files.setdefault(each.component, []).append(entry)
    return [Component(name, tuple(entries), dict(upstream.get(name, {}))) for name, entries in files.items()]


def _rule(hashed: Iterable[HashedFile]) -> str:
    """The chunking that the manifest names: a plug-in's rule as soon as one file was cut by it."""
    rules = {each.rule for each in hashed} - {RULE}
    return min(rules) if rules else RULE


def _keep(store: Store, manifest: Manifest, hashed: Mapping[Path, HashedFile], order: _Order) -> None:
    store.catalog.check_ref(manifest.name, manifest.revision, manifest.id, force=order.force)
    if order.private:
        store.catalog.mark_private(manifest.id)  # before anybody could ask for it
    store.catalog.add(manifest)
    for original, one in hashed.items():
        chunk_list = ChunkList(one.digests, one.sizes).id
        stamp = Stamp.of(one.status).adding(chunk_list=chunk_list, blake3=one.blake3.hex(), sha256=one.sha256)
        if order.copy:
            store.blobs.take_in(one.blake3, one.path, stamp)
        elif not original.is_relative_to(store.root):
            store.blobs.adopted.put(one.blake3, AdoptedFile(original, stamp))
    for _, file in manifest.walk():
        if store.blobs.find(file.blake3, file.size, file.chunks).path is None:
            raise StoreError(f"{file.path} changed right after it was published", hint="publish it again")
    store.snapshots.build(manifest)
    # The name moves last: until then it stands for what it stood for, whatever fails.
    store.catalog.set_ref(manifest.name, manifest.revision, manifest.id, force=order.force)
    store.snapshots.name(manifest.name, manifest.revision, manifest.id)
