"""The suite that every source must pass, built-in or plug-in.

Inherit in a pytest file, say how to make a source that serves a directory, and the tests run:

    class TestZipOrigin(SourceContract):
        def make_source(self, root: Path) -> Source:
            return ZipOrigin(...)

What is promised stands on `diachunk.sources.base.Source` and `Flow`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import ClassVar

import pytest

from diachunk.digest import digest_of
from diachunk.limits import CHUNK_BYTES, KiB
from diachunk.manifest import ChunkList
from diachunk.schedule.health import Fault, Tier
from diachunk.schedule.work import BlobFacts, Run, WorkList
from diachunk.sources.base import Source, SourceFault
from diachunk.testing.recording_flow import RecordingFlow, fault_of

_GUARD = b"\xa5" * 64
_PATIENCE_S = 20.0
_BLOCKS_S = 0.7
_WOKEN_S = 3.0


def _bytes_of(name: str, size: int) -> bytes:
    # Nothing in it repeats: who reads from the wrong place, or another file, has other bytes.
    return Random(name).randbytes(size)


def _content(blob: BlobFacts) -> bytes:
    return _bytes_of(f"{blob.component}/{blob.path}", blob.size)


def _facts(component: str, path: str, sizes: list[int]) -> BlobFacts:
    data = _bytes_of(f"{component}/{path}", sum(sizes))
    pieces, at = [], 0
    for size in sizes:
        pieces.append((size, digest_of(data[at : at + size])))
        at += size
    return BlobFacts(digest_of(data), len(data), ChunkList.of(pieces), component, path)


class SourceContract:
    """Inherit this, and override what is below.

    Attributes:
        secrets: credentials that the source was made with; its label must not show them.
        checks_file_size: whether it can tell that a file is longer than it should be.
        slack_bytes: the largest slice it reads although a smaller one was asked for. Files only.
    """

    secrets: ClassVar[tuple[str, ...]] = ()
    checks_file_size: ClassVar[bool] = True
    slack_bytes: ClassVar[int] = 0

    work: ClassVar[WorkList] = WorkList(
        [
            _facts("model", "weights.bin", [CHUNK_BYTES, CHUNK_BYTES // 4 + 13, 70_001, 1]),
            _facts("model", "deep/er/na me %é#?+&.bin", [1000, 3]),
            _facts("vocoder", "weights.bin", [300 * KiB]),
            _facts("", "config.json", [5]),
        ]
    )
    """The files that `make_source` has to serve."""

    def make_source(self, root: Path) -> Source:
        """A source that serves the files below `root`, which lie there as `<component>/<path>`."""
        raise NotImplementedError

    def make_stalled_source(self, root: Path) -> Source | None:
        """The same, but the other end falls silent in the midst of the first file, its connection open. None where no
        read can block for long; nobody then sees whether one is woken.
        """
        return None

    # --- helpers -------------------------------------------------------------------------------------------

    def _where(self, root: Path, blob: int) -> Path:
        facts = self.work.blobs[blob]
        return root / facts.component / facts.path

    def _write(self, root: Path) -> None:
        for number, facts in enumerate(self.work.blobs):
            path = self._where(root, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_content(facts))

    @contextmanager
    def _serving(self, root: Path, change: Callable[[Path], object] | None = None) -> Iterator[Source]:
        """The source over all files, after `change` was made to the file of blob 0."""
        self._write(root)
        if change:
            change(self._where(root, 0))
        source = self.make_source(root)
        try:
            yield source
        finally:
            source.close()

    def _runs(self) -> list[Run]:
        """Each item alone, and what follows on one another as far as one request goes."""
        runs = [self.work.run(item, 1) for item in range(len(self.work))]
        return [*runs, self.work.run(1, 3), self.work.run(4, 2)]

    def _wanted(self, run: Run) -> bytes:
        return _content(run.blob)[run.offset : run.offset + run.size]

    def _check_fill(self, source: Source, run: Run, start: int = 0) -> None:
        size = run.size - start
        buffer = bytearray(_GUARD + bytes(size) + _GUARD)
        flow = RecordingFlow(self.slack_bytes)
        what = f"{run.blob.path} at {run.offset} from {start}"
        wanted = self._wanted(run)[start:]
        told_bytes = 0

        def look() -> None:
            # Of a request that is cut off, what was told is kept.
            nonlocal told_bytes
            before, told_bytes = told_bytes, flow.advanced_bytes
            slice_ = buffer[len(_GUARD) + before : len(_GUARD) + told_bytes]
            assert slice_ == wanted[before:told_bytes], f"{what}: said what it had not read"

        flow.on_advance = look
        source.fill(run, start, memoryview(buffer)[len(_GUARD) : len(_GUARD) + size], flow)
        assert buffer[len(_GUARD) : -len(_GUARD)] == wanted, f"{what}: other bytes"
        assert buffer.startswith(_GUARD), f"{what}: wrote before the view"
        assert buffer.endswith(_GUARD), f"{what}: wrote past the view"
        assert flow.advanced_bytes == size, f"{what}: said {flow.advanced_bytes} of {size} bytes"

    # --- the bytes -----------------------------------------------------------------------------------------

    def test_a_run_is_filled_with_exactly_its_bytes_and_each_slice_is_told(self, tmp_path: Path) -> None:
        with self._serving(tmp_path) as source:
            for run in self._runs():
                self._check_fill(source, run)

    def test_a_resumed_run_goes_on_from_where_it_was(self, tmp_path: Path) -> None:
        with self._serving(tmp_path) as source:
            for run in self._runs():
                for start in {1, run.size // 2, run.size - 1} - {run.size, 0}:
                    self._check_fill(source, run, start)

    def test_many_threads_may_fill_at_once(self, tmp_path: Path) -> None:
        with self._serving(tmp_path) as source, ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(self._check_fill, source, run) for run in self._runs() * 4]
            for job in jobs:
                job.result(_PATIENCE_S)

    def test_bytes_are_not_judged(self, tmp_path: Path) -> None:
        wrong = _bytes_of("something else", self.work.blobs[0].size)
        with self._serving(tmp_path, lambda path: path.write_bytes(wrong)) as source:
            run = self.work.run(1, 2)
            buffer = bytearray(run.size)
            source.fill(run, 0, memoryview(buffer), RecordingFlow(self.slack_bytes))
            assert buffer == wrong[run.offset : run.offset + run.size]

    def test_a_whole_file_is_streamed_or_that_is_refused(self, tmp_path: Path) -> None:
        with self._serving(tmp_path) as source:
            run, flow = self.work.run(0, 4), RecordingFlow(self.slack_bytes)
            try:
                stream = source.stream(run, flow)
            except SourceFault:
                return
            data = bytearray(run.size)
            for ref in run.refs:
                stream.read_into(memoryview(data)[ref.offset : ref.end], flow)
            stream.close()
            assert data == self._wanted(run)
            assert flow.advanced_bytes == run.size

    # --- what is wrong at the other end --------------------------------------------------------------------

    def test_a_missing_file_is_missing_and_the_others_are_not(self, tmp_path: Path) -> None:
        with self._serving(tmp_path, lambda path: path.unlink()) as source:
            fault = fault_of(source, self.work.run(0, 1), self.slack_bytes)
            assert fault is not None, "filled from nothing"
            assert fault.fault is Fault.MISSING, fault.fault
            assert fault.detail, "no word for people"
            self._check_fill(source, self.work.run(4, 1))

    def test_a_shorter_file_is_a_fault(self, tmp_path: Path) -> None:
        short = bytes(CHUNK_BYTES + 5)
        with self._serving(tmp_path, lambda path: path.write_bytes(short)) as source:
            for first in (1, 2, 3):
                fault = fault_of(source, self.work.run(first, 1), self.slack_bytes)
                assert fault is not None, "filled with more than there is"
                assert fault.fault is not Fault.CANCELLED

    def test_a_longer_file_is_a_fault(self, tmp_path: Path) -> None:
        with self._serving(tmp_path, lambda path: path.write_bytes(path.read_bytes() + b"x")) as source:
            fault = fault_of(source, self.work.run(0, 1), self.slack_bytes)
            assert fault is not None or not self.checks_file_size, "took another file for this one"

    def test_a_directory_in_the_files_place_is_a_fault(self, tmp_path: Path) -> None:
        def replace(path: Path) -> None:
            path.unlink()
            path.mkdir()

        with self._serving(tmp_path, replace) as source:
            assert fault_of(source, self.work.run(0, 1), self.slack_bytes) is not None

    # --- stopping ------------------------------------------------------------------------------------------

    def test_a_cancelled_request_ends_with_that_very_fault_and_reads_no_more(self, tmp_path: Path) -> None:
        with self._serving(tmp_path) as source:
            run = self.work.run(0, 1)
            for wakes, stop_after in ((False, 1), (True, 1), (False, 500_000), (True, 500_000)):
                flow = RecordingFlow(self.slack_bytes, stop_after=stop_after, wakes=wakes)
                caught: SourceFault | None = None
                try:
                    source.fill(run, 0, memoryview(bytearray(run.size)), flow)
                except SourceFault as fault:
                    caught = fault
                assert caught is not None, "went on after it was cancelled"
                assert caught is flow.stopped, f"made {caught.fault} of it"
                assert not flow.advances_after_stop
                self._check_fill(source, self.work.run(1, 3))

    def test_waking_a_request_that_has_ended_does_nothing(self, tmp_path: Path) -> None:
        with self._serving(tmp_path) as source:
            run, flow = self.work.run(4, 2), RecordingFlow(self.slack_bytes)
            source.fill(run, 0, memoryview(bytearray(run.size)), flow)
            if flow.wake:
                flow.wake()
            self._check_fill(source, run)

    def test_closing_ends_requests_that_are_under_way_and_may_be_repeated(self, tmp_path: Path) -> None:
        with self._serving(tmp_path) as source:
            run, flow = self.work.run(0, 1), RecordingFlow(self.slack_bytes)
            flow.on_advance = source.close
            done = threading.Event()
            wrong: list[BaseException] = []

            def fill() -> None:
                buffer = bytearray(run.size)
                try:
                    source.fill(run, 0, memoryview(buffer), flow)
                    assert buffer == self._wanted(run), "other bytes after close"
                except SourceFault:
                    pass
                except BaseException as error:  # noqa: BLE001 - told on the test's own thread
                    wrong.append(error)
                done.set()

            threading.Thread(target=fill, daemon=True).start()
            assert done.wait(_PATIENCE_S), "still reads long after close"
            assert not wrong, wrong
            source.close()

    def test_a_read_that_blocks_ends_when_it_is_woken(self, tmp_path: Path) -> None:
        self._write(tmp_path)
        source = self.make_stalled_source(tmp_path)
        if source is None:
            pytest.skip("no make_stalled_source: nobody sees whether a read that blocks is woken")
        flow, done = RecordingFlow(self.slack_bytes), threading.Event()
        ended: list[BaseException | None] = []

        def fill() -> None:
            run = self.work.run(0, 1)
            try:
                source.fill(run, 0, memoryview(bytearray(run.size)), flow)
                ended.append(None)
            except BaseException as error:  # noqa: BLE001 - told on the test's own thread
                ended.append(error)
            done.set()

        threading.Thread(target=fill, daemon=True).start()
        try:
            assert not done.wait(_BLOCKS_S), f"does not block: {ended}"
            flow.stopped = SourceFault(Fault.CANCELLED, "")
            assert flow.wake is not None, "a read blocks, and nothing was registered that wakes it"
            flow.wake()
            assert done.wait(_WOKEN_S), "still blocks long after it was woken"
            assert isinstance(ended[0], SourceFault), f"ended with {ended[0]!r}"
        finally:
            source.close()

    # --- what people see -----------------------------------------------------------------------------------

    def test_its_label_is_short_and_shows_no_credentials(self, tmp_path: Path) -> None:
        with self._serving(tmp_path) as source:
            assert 0 < len(source.label) < 300
            assert source.label.isprintable()
            assert not [each for each in self.secrets if each in source.label]
            fault = fault_of(source, self.work.run(0, 1), self.slack_bytes)
            assert fault is None or not [each for each in self.secrets if each in fault.detail]

    def test_its_tier_says_what_a_chunk_costs(self, tmp_path: Path) -> None:
        with self._serving(tmp_path) as source:
            assert source.tier in tuple(Tier)
