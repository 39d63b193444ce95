"""A lane: one thread with one reused buffer. Reads, verifies, then writes once."""

from __future__ import annotations

import threading

from diachunk.chunking.verify import BadChunk, Chunk
from diachunk.limits import CHUNK_BYTES, KiB
from diachunk.schedule.health import Fault, Tier
from diachunk.sources.base import Source, SourceFault, Stream
from diachunk.transfer.desk import Desk, Seat
from diachunk.transfer.flow import LaneFlow
from diachunk.transfer.meter import Spent

_WORTH_RESUMING_BYTES = 64 * KiB


class Lane(threading.Thread):
    """Serves claims until the session ends."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(name="diachunk-lane", daemon=True)
        self.seat = Seat()
        self._desk = desk
        self._buffer: memoryview | None = None

    def run(self) -> None:
        desk = self._desk
        try:
            while (flow := desk.next_claim(self.seat)) is not None:
                try:
                    self._serve(flow)
                except SourceFault as fault:
                    desk.end(flow, flow.stopped or fault.fault, fault.detail, fault.retry_after_s)
                else:
                    desk.end(flow, None)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the session must end with it, not hang
            desk.fail(error)

    def _serve(self, flow: LaneFlow) -> None:
        if self._buffer is None:
            self._buffer = memoryview(bytearray(CHUNK_BYTES))
        source = self._desk.sources[flow.claim.source]
        if flow.claim.stream:
            self._follow(source, flow, self._buffer)
        else:
            self._fill(source, flow, self._buffer)

    # --- a run by Range ------------------------------------------------------------------------------------

    def _fill(self, source: Source, flow: LaneFlow, buffer: memoryview) -> None:
        """Fills the run, going on after a cut as long as each attempt brings something; settles what came."""
        claim = flow.claim
        broken: SourceFault | None = None
        started_at = self._desk.clock()
        flow.begin_read()
        while claim.received_bytes < claim.size:
            before = claim.received_bytes
            try:
                source.fill(claim.run, before, buffer[before : claim.size], flow)
            except SourceFault as fault:
                if (
                    fault.resumable
                    and claim.received_bytes - before >= _WORTH_RESUMING_BYTES
                    and not flow.stopped
                ):
                    continue
                broken = fault
            break
        self._spend(flow, source.tier, started_at)
        if flow.stopped is not None or (broken is not None and not broken.resumable):
            raise broken or SourceFault(flow.stopped or Fault.CANCELLED, "")
        flow.detach()
        base = claim.run.offset
        for item, ref in zip(claim.run.items, claim.run.refs, strict=True):
            if ref.end - base > claim.received_bytes:
                break
            self._settle(flow, item, buffer[ref.offset - base : ref.end - base])
        if broken is not None:
            raise broken

    def _settle(self, flow: LaneFlow, item: int, view: memoryview) -> None:
        """Verifies one chunk and, if it is the first copy, writes it to each of its places."""
        desk = self._desk
        local = desk.schedule.health(flow.claim.source).tier is Tier.LOCAL
        started_at = desk.clock()
        try:
            chunk = desk.sinks[desk.work.blob_of(item)].judge(desk.work.ref(item), view, local=local)
        except BadChunk:
            flow.claim.settled_bytes += len(view)
            with desk.changed:
                desk.schedule.bad(flow.claim, item)
            return
        finally:
            desk.meter.add(Spent.HASHING, desk.clock() - started_at)
        if desk.accept(flow, item):
            self._write(flow, item, chunk, local=local)
        flow.claim.settled_bytes += len(view)

    def _write(self, flow: LaneFlow, item: int, chunk: Chunk, *, local: bool) -> None:
        desk = self._desk
        started_at = desk.clock()
        for place in desk.work.places(item):
            sink = desk.sinks[place.blob]
            if not (local and sink.holds(chunk, place.offset)):
                sink.write(chunk, place.offset)
                desk.flusher.wrote(sink, chunk.ref.size)
        desk.meter.add(Spent.WRITING, desk.clock() - started_at)
        desk.wrote(flow.claim, item)

    def _spend(self, flow: LaneFlow, tier: Tier, started_at: float) -> None:
        elapsed = self._desk.clock() - started_at
        self._desk.meter.add(Spent.CAP, flow.capped_s)
        self._desk.meter.add(Spent.NETWORK if tier else Spent.READING, max(0.0, elapsed - flow.capped_s))
        flow.capped_s = 0.0

    # --- a whole file, from an origin without ranges -------------------------------------------------------

    def _follow(self, source: Source, flow: LaneFlow, buffer: memoryview) -> None:
        """Reads the file once from its start and keeps each chunk that nobody else has by then."""
        desk, claim = self._desk, flow.claim
        flow.begin_read()
        stream = source.stream(claim.run, flow)
        position = 0
        try:
            for item, ref in zip(claim.run.items, claim.run.refs, strict=True):
                self._skip(stream_gap := ref.offset - position, stream, flow, buffer)
                position += stream_gap
                with desk.changed:
                    wanted = desk.schedule.take(claim, item)
                started_at = desk.clock()
                flow.begin_read()
                stream.read_into(buffer[: ref.size], flow)
                flow.end_read()
                self._spend(flow, source.tier, started_at)
                position += ref.size
                flow.check()
                if wanted:
                    self._settle(flow, item, buffer[: ref.size])
                else:
                    claim.settled_bytes += ref.size
        finally:
            stream.close()

    def _skip(self, size_bytes: int, stream: Stream, flow: LaneFlow, buffer: memoryview) -> None:
        while size_bytes > 0:
            piece = min(size_bytes, len(buffer))
            stream.read_into(buffer[:piece], flow)
            flow.claim.settled_bytes += piece
            size_bytes -= piece
