"""Manifests, refs and pins: which checkpoints a store knows, and by which names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

from diachunk.digest import Digest, parse_digest
from diachunk.errors import ManifestError, StoreError, TrustError, UsageError, from_os_error, os_errors
from diachunk.limits import DEFAULT
from diachunk.manifest import Manifest, decode, encode
from diachunk.manifest.outline import Outline, outline
from diachunk.manifest.signed import Signature, with_signatures
from diachunk.store.files import read_small
from diachunk.store.layout import Layout
from diachunk.store.marks import Marks

_ANEW = "remove it and fetch again"


@dataclass(frozen=True, slots=True)
class Ref:
    """A local name and the manifest that it stands for."""

    name: str
    revision: str
    manifest_id: Digest

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}"


class Catalog(Marks):
    """What is known by name and by id, and which of it is not for everybody."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self._alive: WeakValueDictionary[Digest, Manifest] = WeakValueDictionary()

    # --- manifests -----------------------------------------------------------------------------------------

    def add(self, manifest: Manifest) -> None:
        """Keeps a manifest, in place of a damaged one of that id; a good one is left as it is."""
        with self._layout.guard(sweeping=False):
            path, text = self._layout.manifest(manifest.id), encode(manifest)
            same = read_small(path, len(text)) == text
            if not same and self._why_broken(manifest.id) is not None:
                self._layout.files.replace_text(path, text, durable=True)
            else:
                self._layout.files.settle(path.parent)
            self.touch(manifest.id)
        self._alive[manifest.id] = manifest

    def get(self, manifest_id: Digest) -> Manifest:
        """Reads a manifest back.

        Raises:
            UsageError: it is not here.
            StoreError: what lies under its name is something else.
        """
        manifest = self._alive[manifest_id] = self._read(manifest_id)
        return manifest

    def _read(self, manifest_id: Digest) -> Manifest:
        path = self._layout.manifest(manifest_id)
        try:
            manifest = decode(self._text(manifest_id))
        except ManifestError as error:
            raise StoreError(f"{path} is damaged: {error.message}", hint=_ANEW) from error
        if manifest.id != manifest_id:
            raise StoreError(f"{path} holds another manifest", hint=_ANEW)
        return manifest

    def _text(self, manifest_id: Digest) -> bytes:
        path = self._layout.manifest(manifest_id)
        data = read_small(path, DEFAULT.manifest_bytes_max)
        if data is None and os.path.lexists(path):
            raise StoreError(f"{path} is damaged: no file, or too large", hint=_ANEW)
        if data is None:
            raise UsageError(f"no manifest {manifest_id.hex()[:16]}… here")
        return data

    def ids(self) -> list[Digest]:
        """Ids of all manifests here, sorted."""
        found = []
        for entry in self._layout.names_in("manifests"):
            try:
                found.append(parse_digest(entry.removesuffix(".json")))
            except ValueError:
                continue
        return sorted(found)

    def by_prefix(self, prefix: str) -> Digest:
        """The one id that starts with these hex digits (8 or more).

        Raises:
            UsageError: none does, or several.
        """
        matches = [each for each in self.ids() if each.hex().startswith(prefix)]
        if len(matches) == 1:
            return matches[0]
        what = "no manifest here" if not matches else f"{len(matches)} manifests here"
        raise UsageError(f"{what} with an id that starts with {prefix}")

    def manifests(self) -> Iterator[Manifest]:
        """All readable manifests; those in `broken` are passed over.

        One that somebody holds in memory is not read again: what has this id can be nothing else.
        """
        for manifest_id in self.ids():
            try:
                yield self._alive.get(manifest_id) or self.get(manifest_id)
            except (StoreError, UsageError):
                continue

    def outlines(self) -> Iterator[Outline]:
        """What all manifests say, chunk lists aside: fast, and claims. Those that break a rule are passed over.

        In contrast to `manifests` nothing here is proven: not the ids, not the chunk lists.
        """
        for manifest_id in self.ids():
            manifest = self._alive.get(manifest_id)
            try:
                yield self._outline(manifest_id) if manifest is None else Outline.of(manifest)
            except (ManifestError, StoreError, UsageError):
                continue

    def _outline(self, manifest_id: Digest) -> Outline:
        return outline(self._text(manifest_id), manifest_id)

    def broken(self) -> list[tuple[Path, str]]:
        """Manifests that are no longer what their name says, and why."""
        return [
            (self._layout.manifest(manifest_id), why)
            for manifest_id in self.ids()
            if (why := self._why_broken(manifest_id)) is not None
        ]

    def _why_broken(self, manifest_id: Digest) -> str | None:
        try:
            self._read(manifest_id)
        except (StoreError, UsageError) as error:
            return str(error)
        return None

    def add_signatures(self, manifest_id: Digest, signatures: Iterable[Signature]) -> None:
        """Puts signatures on a stored manifest, in front of its own; `add` leaves a good one as it is.

        Raises:
            UsageError, StoreError: as `get`.
        """
        with self._layout.guard(sweeping=False):
            manifest = self._read(manifest_id)
            signed = with_signatures(manifest, signatures)
            if signed.signatures != manifest.signatures:
                path = self._layout.manifest(manifest_id)
                self._layout.files.replace_text(path, encode(signed), durable=True)
                self.touch(manifest_id)
        self._alive[manifest_id] = signed

    def remove(self, manifest_id: Digest) -> None:
        self._layout.files.unlink(self._layout.manifest(manifest_id))

    def touch(self, manifest_id: Digest) -> None:
        """Notes the time of use: the manifest file's own mtime, which means nothing else."""
        try:
            os.utime(self._layout.manifest(manifest_id))
        except OSError:
            return

    def used_at(self, manifest_id: Digest) -> float:
        try:
            return self._layout.manifest(manifest_id).stat().st_mtime
        except OSError:
            return 0.0

    # --- refs ----------------------------------------------------------------------------------------------

    def ref(self, name: str, revision: str) -> Digest | None:
        data = read_small(self._layout.ref(name, revision), 256)
        try:
            return parse_digest(data.decode("ascii").strip()) if data else None
        except (ValueError, UnicodeDecodeError):
            return None

    def check_ref(self, name: str, revision: str, manifest_id: Digest, *, force: bool = False) -> None:
        """Whether a name may be made to stand for a manifest.

        Raises:
            TrustError: it stands for another one and `force` is off.
        """
        current = self.ref(name, revision)
        if current is not None and current != manifest_id and not force:
            raise TrustError(
                f"{name}@{revision} already stands for {current.hex()[:16]}…",
                hint="choose another --revision, or --force to move the name",
            )

    def set_ref(self, name: str, revision: str, manifest_id: Digest, *, force: bool = False) -> None:
        """Makes a name stand for a manifest.

        Raises:
            TrustError: it stands for another one and `force` is off.
        """
        self.check_ref(name, revision, manifest_id, force=force)
        path = self._layout.ref(name, revision)
        if self.ref(name, revision) == manifest_id:
            self._layout.files.settle(path.parent)
            return
        self._layout.files.make_dirs(path.parent, self._layout.root / "refs")
        self._layout.files.replace_text(path, f"{manifest_id.hex()}\n".encode(), durable=True)

    def remove_ref(self, name: str, revision: str) -> None:
        """Durably: a name that comes back after a power cut without its manifest would stand in the way."""
        path = self._layout.ref(name, revision)
        if self._layout.files.unlink(path):
            with os_errors("flush", path.parent):
                self._layout.files.flush_dir(path.parent)

    def refs(self) -> list[Ref]:
        """All local names, sorted."""
        root = self._layout.root / "refs"
        found = []

        def refuse(error: OSError) -> None:
            # Passing over a directory would make `gc` take its checkpoints for nameless.
            raise from_os_error(error, "read", error.filename) from error

        for directory, _, files in os.walk(root, onerror=refuse):
            for file in files:
                name, _, revision = os.path.relpath(os.path.join(directory, file), root).rpartition("@")
                manifest_id = self.ref(name, revision) if name and not file.startswith(".") else None
                if manifest_id is not None:
                    found.append(Ref(name, revision, manifest_id))
        return sorted(found, key=str)

    def placed(self) -> set[Digest]:
        """Checkpoints that other programs are shown (`diachunk place`): links of theirs may lead to our blobs."""
        found = set()
        directory = self._layout.root / "placed"
        for entry in self._layout.names_in("placed") if directory.is_dir() else ():
            try:
                found.add(parse_digest(entry.removesuffix(".json")))
            except ValueError:
                continue
        return found

    # --- recipes -------------------------------------------------------------------------------------------

    def drawn(self, key: Digest) -> Digest | None:
        """The manifest that a recipe became on this machine. Its manifest may be gone since."""
        data = read_small(self._layout.recipe(key), 256)
        try:
            return parse_digest(data.decode("ascii").strip()) if data else None
        except (ValueError, UnicodeDecodeError):
            return None

    def set_drawn(self, key: Digest, manifest_id: Digest) -> None:
        """Notes what a recipe became. Only saves work, so it is not flushed."""
        path = self._layout.recipe(key)
        if self.drawn(key) != manifest_id:
            self._layout.files.replace_text(path, f"{manifest_id.hex()}\n".encode())

    # --- pins ----------------------------------------------------------------------------------------------

    def pin(self, manifest_id: Digest) -> None:
        """Keeps a checkpoint that no name stands for (fetched by id, file or URL) from `gc`."""
        path = self._layout.pin(manifest_id)
        if not os.path.lexists(path):  # who may only read a store can still use what is complete in it
            self._layout.files.replace_text(path, b"", durable=True)
        else:
            self._layout.files.settle(path.parent)

    def unpin(self, manifest_id: Digest) -> None:
        self._layout.files.unlink(self._layout.pin(manifest_id))

    def pins(self) -> set[Digest]:
        found = set()
        for entry in self._layout.names_in("pins"):
            try:
                found.add(parse_digest(entry))
            except ValueError:
                continue
        return found
