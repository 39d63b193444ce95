"""The store's files for the loader: where they lie, what proves them, how a damaged one is mended."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diachunk.api.context import Context
from diachunk.api.loading.options import LoadSettings
from diachunk.api.several import several
from diachunk.api.targets import look_up
from diachunk.digest import Digest
from diachunk.errors import DiachunkError, IntegrityError, LoadError
from diachunk.manifest import FileEntry, Manifest
from diachunk.schedule.work import BlobFacts
from diachunk.store.blobs import Holding, Presence
from diachunk.store.files import read_hint
from diachunk.store.stamps import Stamp, read_stamp
from diachunk.store.store import Store

if TYPE_CHECKING:
    from diachunk.loader.blob import Blob, Damaged
    from diachunk.loader.feed import Arrivals
    from diachunk.transfer.check import Checked

_TENSORS_NAMED_MAX = 8


class StoreFiles:
    """`loader.opening.Files` over complete files of the store and the stores below it.

    Args:
        component: its name, for messages.
        target: as the user wrote it, for the commands in messages.

    Attributes:
        mended: labels of the files that were.
    """

    def __init__(
        self,
        context: Context,
        manifest: Manifest,
        component: str,
        target: str,
        *,
        settings: LoadSettings,
        url: str = "",
    ) -> None:
        self._context = context
        self._manifest = manifest
        self._component = component
        self._target = target
        self._settings = settings
        self._url = url
        self.mended: list[str] = []
        self._lies_in: dict[Digest, Store] = {}

    def facts(self, entry: FileEntry) -> BlobFacts:
        return BlobFacts(entry.blake3, entry.size, entry.chunks, self._component, entry.path, entry.sha256)

    def holds(self, entry: FileEntry) -> bool:
        """Whether the complete file is here, proven or not."""
        return self._find(self.facts(entry)) is not None

    def open(self, entry: FileEntry) -> Blob:
        facts = self.facts(entry)
        found = self._find(facts)
        if found is None and self._settings.repair and self._context.store.layout.partials(facts.digest):
            # Also what is begun: a repair that failed has set aside what was damaged.
            self._complete(facts, [])
            self.mended.append(facts.label)
            found = self._find(facts)
        if found is None:
            what = self._command("fetch", self._fetchable(), *self._chosen())
            raise LoadError(
                f"{facts.label} of {self._manifest.ref} is not here{self._lost(facts)}",
                hint=f"`{what}`, or load that with fetch=True (--fetch)",
            )
        return self._open(facts, *found)

    def _chosen(self) -> list[str]:
        return ["--component", self._component] if len(self._manifest.components) > 1 else []

    def _command(self, *words: str) -> str:
        """A command line for people, with what this call was told besides."""
        origins = several(self._settings.origins)
        return shlex.join(
            ("diachunk", *words, *(word for each in origins for word in ("--origin", str(each))))
        )

    def _lost(self, facts: BlobFacts) -> str:
        """Which file of the user's it was: who published it an hour ago, and saved over it, would not think of that."""
        for file in self._context.store.blobs.adopted.get(facts.digest):
            if not file.spoiled and file.unchanged() is None:
                what = "was changed since" if os.path.lexists(file.path) else "is gone"
                return f": {file.path}, where it was, {what}"
        return ""

    def _fetchable(self) -> str:
        """What `fetch` takes for it. A name that only the manifest itself claims is enough to load what is here."""
        if "://" in self._target or self._target.endswith(".json"):
            return self._target
        try:
            look_up(self._target, self._context)
        except DiachunkError:
            return self._manifest.id.hex()[:16]
        return self._target

    def _open(self, facts: BlobFacts, store: Store, holding: Holding) -> Blob:
        from diachunk.loader.blob import Blob

        assert holding.path is not None
        self._lies_in[facts.digest] = store
        if self._settings.verify == "always":
            return Blob(facts, holding.path)
        # A file of the user's may be saved over, in place: mapped tensors would change, or the process die of SIGBUS.
        mappable = holding.adopted is None
        return Blob(facts, holding.path, _stamp_of(store, facts, holding), mappable=mappable)

    def _find(self, facts: BlobFacts) -> tuple[Store, Holding] | None:
        """The complete file: one that is proven before one that is only claimed."""
        claimed: tuple[Store, Holding] | None = None
        for store in (self._context.store, *self._context.lower_stores):
            holding = store.blobs.find(facts.digest, facts.size, facts.chunks)
            if holding.presence is Presence.PROVEN:
                return store, holding
            if holding.path is not None and claimed is None:
                claimed = store, holding
        return claimed

    def again(self, blob: Blob, damage: Damaged, tensors: Sequence[str]) -> Blob:
        facts = blob.facts
        error = self._error(facts, blob.path, damage.chunk, tensors)
        if not self._settings.repair:
            raise error
        try:
            self._mend(facts, blob.path)
        except DiachunkError as failed:
            raise IntegrityError(
                f"{error.message}; not mended: {failed.message}", hint=failed.hint
            ) from failed
        found = self._find(facts)
        if found is None or found[1].presence is not Presence.PROVEN:
            raise error
        self.mended.append(facts.label)
        blob.close()
        return self._open(facts, *found)

    def _error(self, facts: BlobFacts, path: Path, chunk: int, tensors: Sequence[str]) -> IntegrityError:
        start, size = facts.chunks.offsets[chunk], facts.chunks.sizes[chunk]
        named = ", ".join(tensors[:_TENSORS_NAMED_MAX])
        more = f" and {len(tensors) - _TENSORS_NAMED_MAX} more" if len(tensors) > _TENSORS_NAMED_MAX else ""
        holds = f", which holds {named}{more}," if tensors else ""
        command = self._command("verify", self._target, "--repair")
        return IntegrityError(
            f"{facts.label} of {self._manifest.ref}: chunk {chunk} ({size:,} bytes at {start:,}){holds} is damaged in "
            f"{path}; nothing was loaded",
            hint=f"`{command}`, or load with repair=True (--repair)",
        )

    def _mend(self, facts: BlobFacts, path: Path) -> None:
        """What `verify --repair` does, for one file."""
        from diachunk.transfer.check import check_files

        checked = check_files([(facts, path)], self._context.config.limits)[0]
        self._complete(facts, [] if checked.right else [checked])

    def _complete(self, facts: BlobFacts, damaged: Sequence[Checked]) -> None:
        """Makes one file whole.

        Raises:
            TransferIncomplete, StoreError, IntegrityError: it could not be.
        """
        destination = self._context.destination(None, force=False)
        assembly = self._context.assembly(
            self._manifest,
            destination,
            several(self._settings.origins),
            None,
            self._settings.progress,
            manifest_url=self._url,
        )
        assembly.make_present([facts], damaged)
        self._context.store.snapshots.build(self._manifest)

    def arrivals(self, blobs: list[Blob]) -> Arrivals | None:
        return None

    def proven(self, blob: Blob) -> None:
        """Stamps it, so that the next load need not hash. Best effort: the store may be another's."""
        facts = blob.facts
        store = self._context.store
        holding = store.blobs.find(facts.digest, facts.size, facts.chunks)
        if holding.path != blob.path:
            return
        try:
            store.blobs.prove(facts.digest, holding, facts.chunks.id, Stamp.of(blob.opened_as))
        except (DiachunkError, OSError):
            return

    def recall(self, blob: Blob) -> bytes | None:
        from diachunk.loader.kept import KEPT_BYTES_MAX

        # Of the store that proves the file, and of one's own: another could say of right bytes what they are not.
        own, digest = self._context.store, blob.facts.digest
        for store in dict.fromkeys((own, self._lies_in.get(digest, own))):
            data = read_hint(store.layout.tensors(digest), KEPT_BYTES_MAX)
            if data is not None:
                return data
        return None

    def keep(self, blob: Blob, data: bytes) -> None:
        layout = self._context.store.layout
        path = layout.tensors(blob.facts.digest)
        try:
            with contextlib.suppress(FileExistsError):  # it is made durable by whoever puts a blob into it
                os.mkdir(path.parent)
                os.chmod(path.parent, layout.files.dir_mode)
            layout.files.replace_text(path, data)
        except (DiachunkError, OSError):
            return


def _stamp_of(store: Store, facts: BlobFacts, holding: Holding) -> Stamp | None:
    if holding.presence is not Presence.PROVEN:
        return None
    return holding.adopted.stamp if holding.adopted else read_stamp(store.layout.stamp(facts.digest))
