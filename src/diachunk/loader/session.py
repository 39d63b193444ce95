"""load and stream, from open files on. What is public is in api.loading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape
from typing import Any

import torch

from diachunk.loader.ahead import Ahead
from diachunk.loader.blob import Blob
from diachunk.loader.contents import check_globs, pick
from diachunk.loader.dtypes import parse_dtype
from diachunk.loader.events import LoadListener, LoadPlan, LoadReport, silent
from diachunk.loader.finding import find_device
from diachunk.loader.job import Job, out_of_memory
from diachunk.loader.layout import Layout, View
from diachunk.loader.loaded import Loaded
from diachunk.loader.opening import Files, close_all, open_component
from diachunk.loader.plan import Wanted, check_room
from diachunk.loader.runner import TICK_S, Runner
from diachunk.loader.stream import AHEAD_BYTES, Outlet, iterate
from diachunk.manifest.model import Component


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for, checked before a file is opened.

    Attributes:
        label: how people know the component.
        order: names in the order in which they are wanted; those not listed come last.
        by_name: single tensors will be asked for, nobody knows which.
    """

    label: str
    component: Component
    wanted: Wanted
    tensors: tuple[str, ...] | None = None
    order: Sequence[str] | None = None
    repair: bool = False
    allow_code: bool = False
    by_name: bool = False

    @property
    def maps_all(self) -> bool:
        """Whether files that can be mapped will be, as a whole."""
        wanted = self.wanted
        return wanted.device.is_host and wanted.dtype is None and wanted.everything and not self.by_name


def make_request(
    label: str,
    component: Component,
    *,
    device: str | torch.device,
    dtype: str | torch.dtype | None,
    tensors: str | Iterable[str] | None,
    keep_dtype: str | Iterable[str],
    order: Sequence[str] | None = None,
    repair: bool = False,
    allow_code: bool = False,
    by_name: bool = False,
) -> Request:
    """Raises:
    UsageError: no such device or dtype.
    LoadError: the device is not here.
    """
    wanted = Wanted(
        label, component.name, find_device(device), parse_dtype(dtype), _names(keep_dtype), tensors is None
    )
    chosen = None if tensors is None else _names(tensors)
    return Request(label, component, wanted, chosen, order, repair, allow_code, by_name)


def _names(given: str | Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


class Loading:
    """Open files and a plan; then either `load` or `stream`, once."""

    def __init__(self, request: Request, files: Files, listener: LoadListener = silent) -> None:
        self._request = request
        self._files = files
        self._listener = listener
        self._views: dict[str, View] | None = None
        self._ahead = Ahead()
        self._blobs: list[Blob] = []
        try:
            self._blobs, contents = open_component(
                files,
                request.component,
                request.label,
                allow_code=request.allow_code,
                opened=self._ahead.follow if request.maps_all else lambda blob: None,
            )
            self.contents = contents
            self.layout = pick(contents, request.tensors, request.label, request.order)
            # What was to keep its dtype and is misspelt would be cast, and nobody would hear of it.
            check_globs(request.wanted.keep_dtype, contents.names, request.label)
        except BaseException:
            self.close()
            raise

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self.layout.metadata

    def narrow(self, layout: Layout) -> None:
        """Only these of the tensors."""
        self.layout = layout

    def _job(self, outlet: Outlet | None, result_bytes: int | None = None) -> Job:
        arrivals = self._files.arrivals(self._blobs)
        told = {} if outlet is None else {"told": outlet.told}
        job = Job(
            self._request.wanted,
            self.layout,
            self._blobs,
            listener=self._listener,
            arrivals=arrivals,
            **told,
        )
        check_room(job.plan, self._request.wanted, result_bytes)
        if job.work.jobs:
            self._ahead.stop()  # lanes touch the pages themselves, and each would wait for its map of memory
        job.hasten()
        self._listener(job.plan)
        return job

    @property
    def everything(self) -> bool:
        """Whether all tensors of the component were asked for."""
        return self._request.tensors is None

    def one(self, name: str) -> torch.Tensor:
        """A single tensor; the files stay open for more.

        Raises:
            UsageError: there is none of that name.
            LoadError, IntegrityError, StoreError.
        """
        wanted = replace(self._request.wanted, everything=False)
        job = Job(wanted, self._only(name), self._blobs)
        check_room(job.plan, wanted)
        self._run(job)
        job.check_unchanged()
        return next(tensor for found, tensor in job.tensors() if found == name)

    def outline(self, name: str) -> tuple[tuple[int, ...], torch.dtype]:
        """The shape and dtype that this tensor will have. Reads nothing.

        Raises:
            UsageError: there is none of that name.
        """
        view = self._only(name).views[0]
        return view.shape, self._request.wanted.becomes_of(view)

    def _only(self, name: str) -> Layout:
        contents = self.contents
        if self._views is None:
            self._views = {view.name: view for view in contents.views}
        view = self._views.get(name)
        if view is None:
            return pick(contents, (escape(name),), self._request.label)
        return Layout((contents.storages[view.storage],), (replace(view, storage=0),), contents.metadata)

    def load(self) -> Loaded:
        """All tensors at once.

        Raises:
            LoadError, IntegrityError, StoreError.
        """
        try:
            job = self._job(None)
            self._run(job)
            tensors = dict(job.tensors())
            report = job.finish()
            self._note_proven()
            return Loaded(tensors, self.metadata, report)
        finally:
            self.close()

    def _run(self, job: Job) -> None:
        runner = Runner(job, self._files, repair=self._request.repair)
        try:
            try:
                runner.start()
                while not runner.step(TICK_S):
                    pass
            finally:
                runner.stop()
            return
        except (MemoryError, RuntimeError) as error:
            refused = out_of_memory(job, error)
            if refused is None:
                raise
        raise refused

    def stream(self) -> Streaming:
        """Tensors one by one. Where that is refused, or nobody listens any more, this is closed."""
        outlet = Outlet(bounded=True)
        try:
            job = self._job(outlet, 2 * AHEAD_BYTES)
        except BaseException:
            self.close()
            raise
        return Streaming(self, job, outlet, Runner(job, self._files, repair=self._request.repair))

    def _note_proven(self) -> None:
        for blob in self._blobs:
            if not blob.trusted and len(blob.verified) == len(blob.facts.chunks) and not blob.changed():
                self._files.proven(blob)

    def finish(self, job: Job) -> LoadReport:
        """The end of a stream that was taken whole."""
        report = job.finish()
        self._note_proven()
        return report

    def close(self) -> None:
        self._ahead.stop()
        close_all(self._blobs)


class Streaming:
    """The tensors of a load that is under way. Iterate it once."""

    def __init__(self, loading: Loading, job: Job, outlet: Outlet, runner: Runner) -> None:
        self._loading = loading
        self._job = job
        self._outlet = outlet
        self._runner = runner

    @property
    def plan(self) -> LoadPlan:
        return self._job.plan

    @property
    def report(self) -> LoadReport:
        return self._job.report

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self._loading.metadata

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        try:
            yield from iterate(self._job, self._outlet, self._runner)
            self._loading.finish(self._job)
        finally:
            self.close()

    def stop(self) -> None:
        """Makes the one who waits for the next tensor give up; may be called on any thread."""
        self._outlet.stop()

    def close(self) -> None:
        self._outlet.stop()  # whoever asks for one more is told so
        self._runner.stop()
        self._loading.close()
