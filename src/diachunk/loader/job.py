"""One load, from open files to tensors: plan, refuse what cannot fit, run the lanes, tell, hand out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import torch

from diachunk.errors import LoadError
from diachunk.loader.blob import Blob
from diachunk.loader.device import check_dtypes
from diachunk.loader.events import LoadListener, LoadProgress, LoadReport, LoadStatus, silent
from diachunk.loader.feed import Arrivals, Feed
from diachunk.loader.landing import Landing, target_dtypes
from diachunk.loader.lanes import Pipeline
from diachunk.loader.layout import Layout
from diachunk.loader.memory import own_bytes
from diachunk.loader.meter import Counts, Meter, Stage
from diachunk.loader.plan import Wanted, list_work, make_plan

_STATUS_S = 0.25
_TICK_S = 0.1


class Job:
    """See above. `told` is called, on any thread, with the number of each storage that is complete."""

    def __init__(
        self,
        wanted: Wanted,
        layout: Layout,
        blobs: list[Blob],
        *,
        listener: LoadListener = silent,
        told: Callable[[int], None] = lambda storage: None,
        arrivals: Arrivals | None = None,
    ) -> None:
        self.wanted = wanted
        self.layout = layout
        self.blobs = blobs
        self.meter = Meter()
        self.device = wanted.device
        dtypes = target_dtypes(layout, wanted.becomes_of)
        check_dtypes(self.device, dtypes)
        self.landing = Landing(layout, dtypes, self.device, told)
        self._listener = listener
        self.arrivals = arrivals
        self.work = list_work(wanted, layout, blobs, self.landing)
        self.plan = make_plan(wanted, layout, blobs, self.landing, self.work)
        self._told = Counts()
        self._status_at = self._started_at = time.monotonic()
        self._window: list[tuple[float, int, dict[Stage, float]]] = []
        self.report = self._new_report()
        self.feed: Feed | None = None

    def hasten(self) -> None:
        """Tells the fetch in which order chunks are wanted, unless it is that of the files: so they come anyway."""
        if self.arrivals is None:
            return
        wanted = [each[1:] for each in self.work.jobs]
        missing = sum(len(blob.facts.chunks) - len(blob.verified) for blob in self.blobs if not blob.trusted)
        if len(wanted) < missing or wanted != sorted(wanted):
            self.arrivals.hasten(wanted)

    def _new_report(self) -> LoadReport:
        return LoadReport(
            component=self.wanted.component,
            device=self.device.label,
            dtype=self.plan.dtype,
            tensors=self.plan.tensors,
            total_bytes=self.plan.total_bytes,
            mapped_bytes=self.plan.mapped_bytes,
            result_bytes=self.plan.result_bytes,
            host_before_bytes=own_bytes(),
        )

    # --- running -------------------------------------------------------------------------------------------

    def map_files(self) -> None:
        """Maps what is to be mapped: what is trusted is complete with that, the rest once it is hashed."""
        self.check_unchanged()
        for number in sorted(self.work.mapped):
            self._map(number)

    def _map(self, number: int) -> None:
        storage = self.layout.storages[number]
        blob = self.blobs[storage.file]
        flat = torch.frombuffer(blob.window(), dtype=torch.uint8, count=storage.size, offset=storage.offset)
        self.landing.lend(number, flat)
        if blob.trusted:
            self.meter.count(landed=self.landing.complete(number))

    def remap(self, file: int) -> None:
        """A file that was hashed in place and damaged is another one now, whose every chunk was verified.

        Raises:
            LoadError: it is not proven after all.
        """
        if not self.blobs[file].trusted:
            raise changed_meanwhile(self.blobs[file])
        for number in sorted(self.work.mapped):
            if self.layout.storages[number].file == file and not self.landing.is_complete(number):
                self._map(number)

    def pipeline(self, only: Sequence[tuple[int, int]] | None = None, *, collect: bool = False) -> Pipeline:
        """The lanes over all jobs, or `only` over some (file, chunk)."""
        chosen = None if only is None else set(only)
        jobs = [each for each in self.work.jobs if chosen is None or each[1:] in chosen]
        feed = Feed(
            [file for _, file, _ in jobs],
            [chunk for *_, chunk in jobs],
            [rank for rank, *_ in jobs],
            self.arrivals,
        )
        self.feed = feed
        lanes = Pipeline(
            feed,
            self.blobs,
            self.landing,
            self.device,
            self.meter,
            arrivals=self.arrivals,
            collect=collect,
            in_place=self.work.in_place,
        )
        self.report.lanes = max(self.report.lanes, lanes.lanes if len(feed) else 0)
        return lanes

    def tick(self, *, last: bool = False) -> None:
        """Tells what is new. Call about ten times a second, always on one thread.

        Raises:
            DiachunkError: what ended the fetch that this load follows.
        """
        if self.arrivals is not None:
            self.arrivals.tick()
        now, counts, before = time.monotonic(), self.meter.counts, self._told
        landed = counts.landed - before.landed
        read, verified = counts.read - before.read, counts.verified - before.verified
        self._told = counts
        if landed or read or verified:
            self._listener(LoadProgress(landed, self.wanted.component, read, verified))
        host, device = own_bytes(), 0 if self.device.is_host else self.device.used_bytes()
        # What was there before counts, too: a page that goes meanwhile must not make the peak the smaller of both.
        self.report.host_peak_bytes = max(self.report.host_peak_bytes, self.report.host_before_bytes, host)
        self.report.device_peak_bytes = max(self.report.device_peak_bytes, device)
        if last or now - self._status_at >= _STATUS_S:
            self._status_at = now
            self._listener(self._status(now, counts.landed, host, device))

    def _status(self, now: float, landed: int, host: int, device: int) -> LoadStatus:
        self._window.append((now, landed, dict(self.meter.seconds)))
        del self._window[:-20]
        then, landed_then, spent_then = self._window[0]
        rate = (landed - landed_then) / (now - then) if now > then else 0.0
        spent = {stage: self.meter.seconds[stage] - spent_then[stage] for stage in Stage}
        most = max(spent, key=lambda stage: spent[stage])
        left = self.plan.total_bytes - landed
        return LoadStatus(
            self.wanted.component, max(0, left), rate, _LIMITS[most] if spent[most] > 0 else "", host, device
        )

    def finish(self) -> LoadReport:
        """The last ticks, and the report.

        Raises:
            LoadError: a file that was not hashed changed while it was read.
        """
        self.check_unchanged()
        self.tick(last=True)
        report, seconds, counts = self.report, self.meter.seconds, self.meter.counts
        report.read_bytes, report.verified_bytes = counts.read, counts.verified
        report.read_s, report.verify_s = seconds[Stage.READ], seconds[Stage.VERIFY]
        report.cast_s, report.copy_s = seconds[Stage.CAST], seconds[Stage.COPY]
        report.network_s = seconds[Stage.NETWORK]
        report.elapsed_s = time.monotonic() - self._started_at
        return report

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All tensors, complete."""
        for name, tensor in self.layout.ready.items():
            yield name, self.ready_tensor(name, tensor)
        for view in self.layout.views:
            yield view.name, self.landing.tensor(view)

    def tensors_in(self, file: int, chunk: int) -> list[str]:
        """The names of the tensors that a chunk holds parts of."""
        offsets = self.blobs[file].facts.chunks.offsets
        inside = set(self.landing.storages_in(file, offsets[chunk], offsets[chunk + 1]))
        return [view.name for view in self.layout.views if view.storage in inside]

    def ready_tensor(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """One that came with its header."""
        return tensor.to(torch.device(self.device.label), self.wanted.becomes(name, tensor.dtype))

    def check_unchanged(self, storage: int | None = None) -> None:
        """Whether the files that were not copied, or not hashed, are still what they were; only that of one storage,
        if given.

        Raises:
            LoadError: one is not.
        """
        files = range(len(self.blobs)) if storage is None else (self.layout.storages[storage].file,)
        for file in files:
            mapped = self.blobs[file].trusted or file in self.work.in_place
            if mapped and self.blobs[file].changed():
                raise changed_meanwhile(self.blobs[file])


_LIMITS = {
    Stage.READ: "reading the files",
    Stage.VERIFY: "hashing",
    Stage.CAST: "casting",
    Stage.COPY: "copying",
    Stage.NETWORK: "the fetch",
}


def changed_meanwhile(blob: Blob) -> LoadError:
    return LoadError(
        f"{blob.path} changed while it was loaded; nothing of it was handed out",
        hint="`diachunk verify`, then load again",
    )


def out_of_memory(job: Job, error: MemoryError | RuntimeError) -> LoadError | None:
    """What to raise instead; None if memory is not what it is about. Frees all of the load.

    To be raised once the handler is left, and by no context manager: an error that refers to this one would hold the
    lanes' frames, and with them tensors, for as long as somebody holds it.
    """
    job.landing.release()
    # Pinned memory, streams and contexts: CUDA says so in words alone.
    told = any(words in str(error) for words in ("allocate", "out of memory"))
    if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not told:
        return None
    what = (str(error).splitlines() or ["out of memory"])[0]
    done, total = job.meter.counts.landed, job.plan.total_bytes
    return LoadError(
        f"{job.device.label} ran out of memory after {done:,} of {total:,} bytes of {job.wanted.label}: {what:.160}",
        hint="a smaller --dtype, --tensors to load part of it, or another --device; all of it was freed again",
    )
