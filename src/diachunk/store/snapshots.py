"""The directories that programs are given: relative links to blobs under the checkpoint's own file names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from diachunk.digest import Digest
from diachunk.errors import os_errors
from diachunk.manifest import FileEntry, Manifest
from diachunk.store.blobs import Blobs, Presence
from diachunk.store.layout import Layout


class Snapshots:
    """`snapshots/<id>/<component>/<path>`, and `snapshots/<name>@<revision>` as a link to that.

    A ref that moves swaps one link, so that no program ever sees half of one version and half of another.
    """

    def __init__(self, layout: Layout, blobs: Blobs) -> None:
        self._layout = layout
        self._blobs = blobs

    def build(self, manifest: Manifest, components: frozenset[str] | None = None) -> Path:
        """Links every complete file of the (chosen) components. Idempotent; returns the directory."""
        root = self._layout.snapshot(manifest.id)
        files = self._layout.files
        changed: set[Path] = set()
        found: set[Path] = set()
        for component, file in manifest.walk():
            if components is not None and component.name not in components:
                continue
            holding = self._blobs.find(file.blake3, file.size, file.chunks)
            if holding.path is None or (holding.adopted and holding.presence is not Presence.PROVEN):
                continue  # not here; or a file of somebody else's that nobody has read yet: no program is led there
            link = root / component.name / file.path
            files.make_dirs(link.parent, self._layout.root)
            inside = holding.adopted is None
            target = os.path.relpath(holding.path, link.parent) if inside else str(holding.path)
            if files.replace_link(link, target):
                changed.add(link.parent)
            else:
                found.add(link.parent)
        for directory in changed:
            with os_errors("flush", directory):
                files.flush_dir(directory)
        for directory in found - changed:
            files.settle(directory)
        return root

    def name(self, name: str, revision: str, manifest_id: Digest) -> Path:
        """Points NAME@REV's directory at a manifest's snapshot."""
        link = self._layout.named_snapshot(name, revision)
        self._layout.files.make_dirs(link.parent, self._layout.root)
        target = self._layout.snapshot(manifest_id)
        if self._layout.files.replace_link(link, os.path.relpath(target, link.parent)):
            with os_errors("flush", link.parent):
                self._layout.files.flush_dir(link.parent)
        else:
            self._layout.files.settle(link.parent)
        return link

    def remove(self, manifest_id: Digest) -> None:
        shutil.rmtree(self._layout.snapshot(manifest_id), ignore_errors=True)

    def remove_name(self, name: str, revision: str) -> None:
        self._layout.files.unlink(self._layout.named_snapshot(name, revision))

    def complete(self, manifest: Manifest) -> bool:
        """Whether every file's blob is complete here."""
        return all(self.holds(file) for _, file in manifest.walk())

    def holds(self, file: FileEntry) -> bool:
        return self._blobs.find(file.blake3, file.size, file.chunks).path is not None
