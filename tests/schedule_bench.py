"""A Schedule run without sockets, threads or real time.

Rates are fluid: the requests that a source serves share its rate. Time jumps from event to event, so a run of
an hour takes milliseconds, and the same arguments give the same run. Every step is checked against the rules
that hold for any schedule (`_check_claim`, `_check_end`); tests add what is special to them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from diachunk.bitmap import Bitmap
from diachunk.limits import CHUNK_BYTES, DEFAULT, Limits
from diachunk.schedule.claims import Claim, Ended, Pause
from diachunk.schedule.health import Fault, Health, Tier
from diachunk.schedule.schedule import Schedule
from diachunk.schedule.work import WorkList
from schedule_world import EPSILON, Answer, Request, Sim, Transfer

_EVENTS_MAX = 200_000


class Bench:
    """Drives one Schedule with simulated sources and lanes until it ends."""

    def __init__(
        self,
        work: WorkList,
        sims: Sequence[Sim],
        *,
        limits: Limits = DEFAULT,
        seed: int = 1,
        done: Sequence[int] = (),
    ) -> None:
        self.now = 0.0
        self.work = work
        self.limits = limits
        self.sims = list(sims)
        self.schedule = Schedule(work, limits, lambda: self.now, random.Random(seed))
        self.requests: list[Request] = []
        self.wasted_bytes = 0
        self.why: str | None = None
        self._transfers: list[Transfer] = []
        self._wake_at: list[float | None] = [0.0] * limits.lanes
        self._banned: set[tuple[int, int]] = set()
        self.first_copies: dict[int, Request] = {}
        self.schedule.mark_done(done)
        for sim in self.sims:
            has = None if sim.has is None else Bitmap(len(work), sim.has)
            self.schedule.add(sim.name, sim.tier, has=has, at_once=sim.at_once)

    # --- what tests ask ------------------------------------------------------------------------------------

    def health(self, name: str) -> Health:
        return next(each for each in self.schedule.healths() if each.label == name)

    def of(self, name: str) -> list[Request]:
        return [each for each in self.requests if each.source == name]

    def brought_bytes(self, name: str) -> int:
        return sum(self.work.size(item) for each in self.of(name) for item in each.first_copies)

    @property
    def hedges(self) -> list[Request]:
        return [each for each in self.requests if each.claim.hedge]

    # --- running -------------------------------------------------------------------------------------------

    def run(self, until_s: float = 7200.0) -> Bench:
        """To the end. AssertionError when it does not end, or breaks a rule."""
        for _ in range(_EVENTS_MAX):
            self._ask()
            if self.why is not None and not self._transfers:
                self._check_end()
                return self
            self._advance(self._next_event())
            assert self.now <= until_s, f"not ended after {until_s} s: {self.schedule.done_bytes} bytes done"
            for transfer in list(self._transfers):
                if transfer in self._transfers:
                    self._step(transfer)
                    self._stop_losers()
                    self._ask()
        raise AssertionError(f"not ended after {_EVENTS_MAX} events, at {self.now:.3f} s")

    def _ask(self) -> None:
        """Every idle lane whose pause is over asks for work."""
        for lane in range(self.limits.lanes - len(self._transfers)):
            wake_at = self._wake_at[lane]
            if self.why is not None or wake_at is None or wake_at > self.now + 1e-9:
                continue
            step = self.schedule.claim()
            if isinstance(step, Ended):
                self.why = step.why
            elif isinstance(step, Pause):
                assert step.until > self.now - 1e-9, "a pause that is over"
                self._wake_at[lane] = max(step.until, self.now + 0.001)
            else:
                self._start(step)

    def _start(self, claim: Claim) -> None:
        sim = self.sims[claim.source]
        number = 1 + sum(1 for each in self.requests if each.source == sim.name)
        request = Request(sim.name, number, claim, self.now)
        self._check_claim(claim)
        answer = sim.script(request)
        if not sim.ranges and not claim.stream:
            answer = Answer(Fault.NO_RANGES)
        self.requests.append(request)
        self._transfers.append(
            Transfer(request, sim, answer, self.now + sim.latency_s, last_byte_at=self.now)
        )

    def _next_event(self) -> float:
        times = []
        for transfer in self._transfers:
            if self.now < transfer.flows_at:
                times.append(transfer.flows_at)
            elif transfer.flowing:
                times.append(self.now + (transfer.goal - transfer.position) / self._rate(transfer.sim))
            elif transfer.answer.silent:
                times.append(transfer.last_byte_at + self.limits.stall_s)
                for wait_s in (self.limits.first_byte_s / 2, self.limits.first_byte_s):
                    impatient_at = transfer.claim.started_at + wait_s
                    times += [impatient_at] if impatient_at > self.now else []
            else:
                times.append(self.now)
        if self.why is None:
            idle = self._wake_at[: self.limits.lanes - len(self._transfers)]
            times += [at for at in idle if at is not None]
        assert times, "every lane waits for nothing"
        return max(self.now, min(times))

    def _rate(self, sim: Sim) -> float:
        active = sum(1 for each in self._transfers if each.sim is sim and self._is_flowing(each))
        return min(sim.request_bps, sim.rate_bps / max(1, active))

    def _is_flowing(self, transfer: Transfer) -> bool:
        return self.now >= transfer.flows_at and transfer.flowing

    def _advance(self, to: float) -> None:
        rates = [(each, self._rate(each.sim)) for each in self._transfers if self._is_flowing(each)]
        seconds, self.now = to - self.now, to
        for transfer, rate in rates:
            transfer.position = min(transfer.goal, transfer.position + rate * seconds)
            if transfer.goal - transfer.position < 1e-3:
                transfer.position = transfer.goal
            self._tell(transfer)

    def _tell(self, transfer: Transfer) -> None:
        size = int(transfer.position + EPSILON) - transfer.told
        if size > 0:
            transfer.told += size
            transfer.last_byte_at = self.now
            self.schedule.received(transfer.claim, size, self.now)

    def _step(self, transfer: Transfer) -> None:
        """What happens to one request at this moment: it gets on, ends, or was cancelled."""
        if self.now < transfer.flows_at:
            return
        if transfer.claim.stream and transfer.keeps is None:
            self._reach_item(transfer)
        if transfer.flowing:
            return
        if transfer.claim.stream and self._passes_item(transfer):
            return
        if transfer.answer.silent and transfer.position < transfer.claim.size:
            stalled = self.now - transfer.last_byte_at >= self.limits.stall_s - EPSILON
            if stalled or self.schedule.overdue(transfer.claim, self.now):
                self._end(transfer, Fault.STALLED)
        else:
            if not transfer.claim.stream:
                self._settle_run(transfer)
            self._end(transfer, transfer.answer.fault)

    def _stop_losers(self) -> None:
        for transfer in [each for each in self._transfers if each.claim.cancelled]:
            self._end(transfer, Fault.CANCELLED)

    def _passes_item(self, transfer: Transfer) -> bool:
        """A stream came to the end of an item: it is kept, or was not wanted."""
        refs = transfer.claim.run.refs
        if transfer.at_item >= len(refs) or transfer.position < refs[transfer.at_item].end - EPSILON:
            return False
        if transfer.keeps:
            self._settle(transfer, transfer.claim.run.first + transfer.at_item)
        transfer.at_item += 1
        self._reach_item(transfer)
        return transfer.flowing

    def _reach_item(self, transfer: Transfer) -> None:
        """As a lane does it: asks whether to keep an item before it is read."""
        transfer.keeps = False
        if transfer.at_item < len(transfer.claim.run.refs):
            item = transfer.claim.run.first + transfer.at_item
            transfer.keeps = self.schedule.take(transfer.claim, item)
            again = transfer.keeps and (transfer.claim.source, item) in self._banned
            assert not again, "took what it gave wrongly before"

    def _settle_run(self, transfer: Transfer) -> None:
        """As a lane does it: whole chunks that came before a cut are good."""
        cut = transfer.answer.fault in (None, Fault.FAILED)
        for item, ref in zip(transfer.request.items, transfer.claim.run.refs, strict=True):
            if cut and ref.end - transfer.claim.run.offset <= transfer.position + EPSILON:
                self._settle(transfer, item)

    def _settle(self, transfer: Transfer, item: int) -> None:
        if item in transfer.answer.bad:
            self._banned.add((transfer.claim.source, item))
            self.schedule.bad(transfer.claim, item)
        elif self.schedule.verified(transfer.claim, item):
            assert item not in self.first_copies, f"item {item} was written twice"
            self.first_copies[item] = transfer.request
            transfer.request.first_copies.append(item)

    def _end(self, transfer: Transfer, fault: Fault | None) -> None:
        claim, request = transfer.claim, transfer.request
        undone = [item for item in request.items if not self.schedule.is_done(item)]
        if fault is Fault.GARBLED:
            self._banned.update((claim.source, item) for item in request.items)
        elif fault is not None and fault is not Fault.CANCELLED and transfer.sim.tier is Tier.LOCAL:
            self._banned.update((claim.source, item) for item in undone)
        self._transfers.remove(transfer)
        brought = sum(self.work.size(item) for item in request.first_copies)
        self.wasted_bytes += transfer.told - brought if transfer.sim.tier is Tier.NETWORK else 0
        self.schedule.finish(claim, fault, "scripted" if fault else "", transfer.answer.retry_after_s)
        request.ended_at, request.ended = self.now, fault
        self._wake_at = [self.now] * self.limits.lanes

    # --- rules that always hold ----------------------------------------------------------------------------

    def _check_claim(self, claim: Claim) -> None:
        health = self.schedule.health(claim.source)
        work, items = self.work, claim.run.items
        assert not health.out, "asked a source that is out"
        assert self.now >= health.retry_at, "asked a source that has to be left alone"
        assert health.in_flight <= health.concurrency.limit, "more at once than the source bears"
        assert len({work.blob_of(item) for item in items}) == 1, "a run over two blobs"
        assert all(work.adjacent(item) for item in items[:-1]) or claim.stream
        assert work.blob_of(items[0]) not in health.missing_blobs, "asked for what it does not have"
        if claim.stream:
            return
        assert sum(work.size(item) for item in items) == claim.size <= CHUNK_BYTES
        has = self.sims[claim.source].has
        assert has is None or all(item in has for item in items), "asked for what it never had"
        banned = [item for item in items if (claim.source, item) in self._banned]
        assert not banned, f"asked {health.label} again for {banned}"
        others = [each for each in self.schedule.claims if each is not claim]
        covered = {item for each in others for item in each.run.items}
        if not claim.hedge:
            assert not any(self.schedule.is_done(item) for item in items), "asked for what is there"
            ranges = {item for each in others if not each.stream for item in each.run.items}
            assert not ranges.intersection(items), "asked twice at once, and no hedge"
        else:
            open_items = {item for item in range(len(work)) if not self.schedule.is_done(item)}
            assert open_items <= covered, "a hedge while something is unassigned"
            budget = max(
                self.limits.hedge_fraction * work.total_bytes, self.limits.hedge_chunks_min * CHUNK_BYTES
            )
            assert self.schedule.hedged_bytes <= budget

    def _check_end(self) -> None:
        missing = set(self.schedule.missing())
        assert not self.schedule.claims
        assert all(not each.in_flight for each in self.schedule.healths())
        assert (self.why == "") == (not missing) == self.schedule.complete
        assert self.schedule.done_bytes == sum(
            self.work.size(item) for item in range(len(self.work)) if item not in missing
        )
        if self.why == "no source has what is left":
            able = [
                (self.sims[n].name, item)
                for n, _ in enumerate(self.sims)
                for item in missing
                if self._able(n, item)
            ]
            assert not able, f"gave up although these could still be asked: {able[:5]}"

    def _able(self, source: int, item: int) -> bool:
        health, has = self.schedule.health(source), self.sims[source].has
        gone = health.out or self.work.blob_of(item) in health.missing_blobs
        return not gone and (source, item) not in self._banned and (has is None or item in has)
