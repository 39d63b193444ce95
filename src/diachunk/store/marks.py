"""What a store remembers of checkpoints beside their manifests: which are private, which signed version was latest."""

from __future__ import annotations

import os
from dataclasses import dataclass

from diachunk.digest import Digest, parse_digest
from diachunk.store.files import read_small
from diachunk.store.layout import Layout


@dataclass(frozen=True, slots=True)
class Seen:
    """The latest version of a name that a trusted signer vouched for.

    Attributes:
        serial: of its signature: Unix seconds.
    """

    serial: int
    manifest_id: Digest


class Marks:
    """Marks that outlive what they are about: a version once seen is never new again, also when it was removed."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    # --- signed versions -----------------------------------------------------------------------------------

    def seen(self, name: str, revision: str) -> Seen | None:
        """The latest version that a trusted signer vouched for, of those that were ever offered here."""
        data = read_small(self._layout.seen(name, revision), 256)
        try:
            serial, _, manifest_id = (data or b"").decode("ascii").strip().partition(" ")
            return Seen(int(serial), parse_digest(manifest_id))
        except ValueError:
            return None

    def note_seen(self, name: str, revision: str, serial: int, manifest_id: Digest) -> None:
        """Remembers a version, durably, unless a later one is known."""
        before = self.seen(name, revision)
        path = self._layout.seen(name, revision)
        if before is not None and before.serial >= serial:
            self._layout.files.settle(path.parent)
            return
        self._layout.files.make_dirs(path.parent, self._layout.root)
        self._layout.files.replace_text(path, f"{serial} {manifest_id.hex()}\n".encode(), durable=True)

    # --- private -------------------------------------------------------------------------------------------

    def mark_private(self, manifest_id: Digest) -> None:
        """Says that a checkpoint is not for everybody, durably; also of one whose manifest is yet to come."""
        path = self._layout.private(manifest_id)
        if self.is_private(manifest_id):
            self._layout.files.settle(path.parent)
            return
        self._layout.files.make_dirs(path.parent, self._layout.root)
        self._layout.files.replace_text(path, b"", durable=True)

    def is_private(self, manifest_id: Digest) -> bool:
        """Whether it may be shared only with those who know the lab's secret; also where nobody can tell."""
        try:
            os.lstat(self._layout.private(manifest_id))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return True

    def private_ids(self) -> set[Digest]:
        """All that are marked, those of manifests yet to come included.

        Raises:
            StoreError: nobody can tell.
        """
        found = set()
        for entry in self._layout.names_in("private") if (self._layout.root / "private").is_dir() else ():
            try:
                found.add(parse_digest(entry))
            except ValueError:
                continue
        return found

    def forget_private(self, manifest_id: Digest) -> None:
        """Removes the mark of a checkpoint that is gone."""
        self._layout.files.unlink(self._layout.private(manifest_id))
