"""The suite for sources accepts a good source and refuses each kind of bad one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from diachunk.schedule.health import Fault, Tier
from diachunk.schedule.work import Run
from diachunk.sources.base import Flow, Source, SourceFault, Stream
from diachunk.testing.source_contract import SourceContract
from fixtures.suites import run_suite


class Simple:
    """A good source over a directory: the base of the bad ones."""

    tier = Tier.NETWORK
    label = "simple"

    def __init__(self, root: Path) -> None:
        self.root = root

    def fill(self, run: Run, start: int, view: memoryview, flow: Flow) -> None:
        path = self.root / run.blob.component / run.blob.path
        if not path.is_file():
            raise SourceFault(Fault.MISSING, "no file")
        data = path.read_bytes()
        if len(data) != run.blob.size:
            raise SourceFault(Fault.GARBLED, "another file")
        self.copy(data[run.offset + start :], view, flow)

    def copy(self, data: bytes, view: memoryview, flow: Flow) -> None:
        position = 0
        while position < len(view):
            size = min(flow.slice_bytes(), len(view) - position)
            view[position : position + size] = data[position : position + size]
            flow.advance(size)
            position += size

    def stream(self, run: Run, flow: Flow) -> Stream:
        raise SourceFault(Fault.FAILED, "no streams")

    def close(self) -> None:
        return


class IgnoresStart(Simple):
    def fill(self, run: Run, start: int, view: memoryview, flow: Flow) -> None:
        super().fill(run, 0, view, flow)


class TellsNothing(Simple):
    def copy(self, data: bytes, view: memoryview, flow: Flow) -> None:
        view[:] = data[: len(view)]


class TellsBeforeItReads(Simple):
    def copy(self, data: bytes, view: memoryview, flow: Flow) -> None:
        position = 0
        while position < len(view):
            size = min(flow.slice_bytes(), len(view) - position)
            flow.advance(size)
            position += size
        view[:] = data[: len(view)]


class Gulps(Simple):
    def copy(self, data: bytes, view: memoryview, flow: Flow) -> None:
        flow.slice_bytes()
        view[:] = data[: len(view)]
        flow.advance(len(view))


class GoesOnWhenCancelled(Simple):
    def copy(self, data: bytes, view: memoryview, flow: Flow) -> None:
        try:
            super().copy(data, view, flow)
        except SourceFault:
            view[:] = data[: len(view)]


class RenamesTheFault(Simple):
    def copy(self, data: bytes, view: memoryview, flow: Flow) -> None:
        try:
            super().copy(data, view, flow)
        except SourceFault as fault:
            raise SourceFault(Fault.FAILED, "broke") from fault


class LetsErrorsThrough(Simple):
    def fill(self, run: Run, start: int, view: memoryview, flow: Flow) -> None:
        self.copy(
            (self.root / run.blob.component / run.blob.path).read_bytes()[run.offset + start :], view, flow
        )


class FailsWhenMissing(Simple):
    def fill(self, run: Run, start: int, view: memoryview, flow: Flow) -> None:
        try:
            super().fill(run, start, view, flow)
        except SourceFault as fault:
            raise (
                SourceFault(Fault.FAILED, fault.detail) if fault.fault is Fault.MISSING else fault
            ) from fault


class BreaksWhenClosedTwice(Simple):
    def close(self) -> None:
        del self.root


class ShowsItsSecret(Simple):
    label = "https://user:sEcret@host"


class Blocks(Simple):
    """Waits for bytes that never come, and may be woken."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.woken = threading.Event()

    def copy(self, data: bytes, view: memoryview, flow: Flow) -> None:
        flow.on_cancel(self.woken.set)
        assert self.woken.wait(30.0)
        flow.slice_bytes()


class BlocksForGood(Blocks):
    def copy(self, data: bytes, view: memoryview, flow: Flow) -> None:
        assert self.woken.wait(30.0)
        flow.slice_bytes()

    def close(self) -> None:
        self.woken.set()


class IsWokenInVain(BlocksForGood):
    def copy(self, data: bytes, view: memoryview, flow: Flow) -> None:
        flow.on_cancel(lambda: None)
        super().copy(data, view, flow)


class EndsAsIfAllWereWell(Blocks):
    def copy(self, data: bytes, view: memoryview, flow: Flow) -> None:
        flow.on_cancel(self.woken.set)
        assert self.woken.wait(30.0)


class Suite(SourceContract):
    secrets = ("sEcret",)

    def __init__(
        self, make: Callable[[Path], Source], make_stalled: Callable[[Path], Source] = Blocks
    ) -> None:
        self.make = make
        self.make_stalled = make_stalled

    def make_source(self, root: Path) -> Source:
        return self.make(root)

    def make_stalled_source(self, root: Path) -> Source:
        return self.make_stalled(root)


def test_the_suite_accepts_a_good_source(tmp_path: Path) -> None:
    run_suite(Suite(Simple), tmp_path)


@pytest.mark.parametrize("make", [Simple, BlocksForGood, IsWokenInVain, EndsAsIfAllWereWell])
def test_the_suite_refuses_one_that_is_not_woken(make: Callable[[Path], Source], tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        run_suite(Suite(Simple, make), tmp_path)


@pytest.mark.parametrize(
    "make",
    [
        IgnoresStart,
        TellsNothing,
        TellsBeforeItReads,
        Gulps,
        GoesOnWhenCancelled,
        RenamesTheFault,
        LetsErrorsThrough,
        FailsWhenMissing,
        BreaksWhenClosedTwice,
        ShowsItsSecret,
    ],
)
def test_the_suite_refuses_a_bad_source(make: Callable[[Path], Source], tmp_path: Path) -> None:
    with pytest.raises((AssertionError, OSError, AttributeError)):
        run_suite(Suite(make), tmp_path)
