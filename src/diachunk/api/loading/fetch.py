"""Load while fetching: the fetch runs on a thread of its own, the loader follows the files that it fills."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diachunk.api.context import Context
from diachunk.api.loading.files import StoreFiles
from diachunk.api.loading.options import LoadSettings
from diachunk.api.loading.wishes import Wishes
from diachunk.digest import Digest
from diachunk.errors import Interrupted
from diachunk.loader.events import LoadEvent, LoadListener, LoadProgress
from diachunk.manifest import FileEntry, Manifest
from diachunk.schedule.work import BlobFacts
from diachunk.store.blobs import Presence
from diachunk.transfer.progress import Event, How, Progress

if TYPE_CHECKING:
    from diachunk.api.fetching import Snapshot
    from diachunk.loader.blob import Blob, Damaged
    from diachunk.loader.feed import Arrivals

_POLL_S = 0.02
_END_S = 15.0


class BackgroundFetch:
    """A fetch on a thread. Its events are passed on by whoever calls `tick`, on that thread."""

    def __init__(self, target: str, component: str, settings: LoadSettings, listener: LoadListener) -> None:
        self.snapshot: Snapshot | None = None
        self.fetched_bytes = 0
        self._target = target
        self._component = component
        self._settings = settings
        self._listener = listener
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._left = threading.Event()
        self._wishes = Wishes()
        self._thread = threading.Thread(target=self._run, name="diachunk-fetch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        from diachunk.api.fetching import fetch

        settings = self._settings
        try:
            self.snapshot = fetch(
                self._target,
                origins=settings.origins,
                components=[self._component] if self._component else (),
                patience_s=settings.patience_s,
                first=self._wishes,
                progress=self._listen,
                home=settings.home,
            )
        except BaseException as error:  # noqa: BLE001 - whatever it is belongs to whoever loads
            self._error = error

    def _listen(self, event: Event) -> None:
        if self._left.is_set():
            raise Interrupted("stopped", hint="what is verified is kept")
        self._events.put(event)

    def hasten(self, chunks: Sequence[Digest]) -> None:
        """These chunks are wanted before others, in this order."""
        self._wishes.add(chunks)

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def tick(self) -> None:
        """Passes on what the fetch told since.

        Raises:
            DiachunkError: what ended it.
        """
        over = self.over
        while not self._events.empty():
            event = told(self._events.get())
            self.fetched_bytes += event.fetched_bytes if isinstance(event, LoadProgress) else 0
            self._listener(event)
        error, self._error = (self._error, None) if over else (None, self._error)
        if error is not None:
            raise error

    def wait(self) -> None:
        """Until the checkpoint is complete and durable."""
        while not self.over:
            self.tick()
            self._thread.join(_POLL_S)
        self.tick()

    def stop(self) -> None:
        """Ends it. What is verified is kept."""
        self._left.set()
        self._thread.join(_END_S)


def told(event: Event) -> LoadEvent:
    """The fetch's event as the load tells it: bytes that came over the network are not yet on the device."""
    if isinstance(event, Progress):
        return LoadProgress(0, event.component, fetched_bytes=event.bytes if event.how is How.FETCHED else 0)
    return event


class FetchedFiles(StoreFiles):
    """Files that are, perhaps, still being fetched."""

    def __init__(
        self,
        context: Context,
        manifest: Manifest,
        component: str,
        target: str,
        fetch: BackgroundFetch,
        *,
        settings: LoadSettings,
    ) -> None:
        super().__init__(context, manifest, component, target, settings=settings)
        self._fetch = fetch
        self._layout = context.store.layout

    def open(self, entry: FileEntry) -> Blob:
        from diachunk.loader.blob import Blob

        facts = self.facts(entry)
        while not self._fetch.over:
            found = self._find(facts)
            if found is not None and found[1].presence is Presence.PROVEN:
                return self._open(facts, *found)
            located = self._locate(facts)
            if located is not None:
                return Blob(facts, located[0])
            self._pause()
        self._fetch.tick()
        return super().open(entry)

    def again(self, blob: Blob, damage: Damaged, tensors: Sequence[str]) -> Blob:
        """Not there yet, as long as the fetch goes on."""
        from diachunk.loader.blob import Blob

        over = self._fetch.over
        if not over:
            self._fetch.hasten([blob.facts.chunks.digest(damage.chunk)])
            self._pause()
        else:
            self._fetch.tick()
        located = self._locate(blob.facts)
        if located is not None and not _same(blob, located[0]):
            blob.close()
            return Blob(blob.facts, located[0])
        return super().again(blob, damage, tensors) if over else blob

    def _pause(self) -> None:
        self._fetch.tick()
        time.sleep(_POLL_S)

    def _locate(self, facts: BlobFacts) -> tuple[Path, bool] | None:
        """The complete file, else the partial."""
        found = self._find(facts)
        if found is not None and found[1].path is not None:
            return found[1].path, True
        partial = self._layout.partial(facts.digest, facts.chunks.id)
        return (partial, False) if partial.is_file() else None

    def arrivals(self, blobs: list[Blob]) -> Arrivals | None:
        from diachunk.loader.follow import Following

        if all(blob.trusted for blob in blobs):
            return None
        return Following(blobs, self._locate, self._fetch)


def _same(blob: Blob, path: Path) -> bool:
    try:
        now = os.stat(path)
    except OSError:
        return True
    return (now.st_dev, now.st_ino) == (blob.opened_as.st_dev, blob.opened_as.st_ino)
