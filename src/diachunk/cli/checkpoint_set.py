"""The set of checkpoints that settings name, on the command line: what `fetch` without TARGET and `run` share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from diachunk.api.sets.checkpoint_set import Planned, PreloadFailed, PreloadPlan
from diachunk.api.sets.preloader import Preloader
from diachunk.cli import pace, text
from diachunk.cli.fetch_lines import (
    Outlook,
    books,
    conclude,
    emit_plan,
    how_shared,
    opening,
    stay,
    tell_placed,
)
from diachunk.cli.progress import show_progress
from diachunk.cli.talk import Talk, report_error, to_stderr
from diachunk.cli.tally import Tally
from diachunk.cli.waiting import saying_who_is_asked
from diachunk.errors import DiachunkError, Interrupted

if TYPE_CHECKING:
    from diachunk.api.fetching import Snapshot
    from diachunk.api.sharing import Sharing

_EXAMPLE = "dia-1.6b"


def tell_how(talk: Talk, error: DiachunkError, names: Sequence[str] = ()) -> None:
    """That nothing is named, and a project file to paste.

    Args:
        names: known ones, of which the example is one.
    """
    report_error(error, as_json=talk.as_json)
    if not talk.as_json:
        example = _EXAMPLE if _EXAMPLE in names or not names else names[0]
        to_stderr(
            f"  {'or, ' if names else ''}for all that this directory's code needs:\n"
            "    cat > diachunk.toml <<'END'\n"
            f'    checkpoints = ["{example}"]\n'
            "    END"
        )


@dataclass(frozen=True)
class SetFetch:
    """One run over the set.

    Attributes:
        into: places for all of them, in place of what the settings say.
        hints: whether they are placed by their manifests' hints where nobody says.
        results: whether the directories go to stdout.
    """

    talk: Talk
    preloader: Preloader
    into: tuple[str, ...] = ()
    hints: bool = False
    results: bool = True
    failures: list[tuple[str, DiachunkError]] = field(default_factory=list)

    @property
    def outlook(self) -> Outlook:
        return Outlook(self.preloader.max_down_bps, pace.recall(self.preloader.config.home))

    def plan(self) -> PreloadPlan:
        targets = tuple(each.target for each in self.preloader.config.checkpoints)
        with saying_who_is_asked(self.talk, targets, company=bool(self.preloader.sharing.how)):
            return self.preloader.plan()

    def announce(self, plan: PreloadPlan, *, dry_run: bool = False) -> None:
        """Says for every checkpoint and in all what there is to fetch, and how long it takes.

        Raises:
            PreloadFailed: in a dry run, if some cannot be planned.
        """
        lines = _lines(plan, self.outlook, self.preloader.sharing)
        if dry_run:
            errors = [(each.wanted.target, each.error) for each in plan.checkpoints]
            lines += [f"{target}: {error.message}" for target, error in errors if error is not None]
            self.talk.result("\n".join(lines))
        else:
            self.talk.say("\n".join(lines))
        self._emit_set(plan)
        failures = [(each.wanted.target, each.error) for each in plan.checkpoints if each.error is not None]
        if dry_run and failures:
            raise PreloadFailed(failures, len(plan.checkpoints))
        if dry_run:
            self.talk.emit("done", dry_run=True)

    def carry_out(self, plan: PreloadPlan) -> None:
        """Fetches and places one after the other; goes on where one fails.

        Raises:
            PreloadFailed: some are not complete.
            StoreError: the lock could not be renewed.
        """
        for number, planned in enumerate(plan.checkpoints, 1):
            try:
                self._one(planned)
            except Interrupted:
                raise
            except DiachunkError as error:
                self._fail(planned.wanted.target, error, last=number == len(plan.checkpoints))
        if self.failures:
            raise PreloadFailed(self.failures, len(plan.checkpoints))
        self.preloader.close()

    def stay(self) -> None:
        """Stays for machines that are not done yet."""
        stay(self.talk, self.preloader.sharing, "")

    def done(self, plan: PreloadPlan) -> None:
        self.talk.emit("done", checkpoints=len(plan.checkpoints), total_bytes=plan.total_bytes)

    def _one(self, planned: Planned) -> None:
        target, plan = planned.wanted.target, planned.plan
        tally = Tally({each.name: each.total_bytes for each in plan.components} if plan else {})
        if plan is not None:
            if plan.fetch_bytes or plan.disk_bytes:
                self.talk.say(opening(plan, self.outlook, self.preloader.sharing)[0])
            emit_plan(self.talk, plan, self.outlook, self.preloader.sharing, target=target)
        with show_progress(self.talk, tally) as listener, self.preloader.sharing.telling(listener):
            names = self.preloader.goes_to_hub(planned.wanted, self.into, hints=self.hints)
            snapshot = self.preloader.fetch(planned, listener, names=names)
        if self.preloader.max_down_bps is None:
            pace.remember(
                self.preloader.config.home, snapshot.report.fetched_bytes, snapshot.report.elapsed_s
            )
        if snapshot.report.fetched_bytes or snapshot.report.reused_bytes:
            conclude(self.talk, snapshot.report)
        self._place(planned, snapshot)
        if self.results:
            self.talk.result(os.fspath(snapshot))
        self.talk.emit(
            "checkpoint",
            target=target,
            directory=os.fspath(snapshot),
            id=snapshot.manifest.hex_id,
            **books(snapshot.report),
        )

    def _place(self, planned: Planned, snapshot: Snapshot) -> None:
        with show_progress(self.talk, Tally(), files=False) as listener:
            placed = self.preloader.place(
                planned.wanted, snapshot.manifest, self.into, hints=self.hints, progress=listener
            )
        if placed is not None:
            tell_placed(self.talk, *placed, target=planned.wanted.target)

    def place_what_is_here(self, plan: PreloadPlan) -> None:
        """Shows what is complete, fetches nothing, and says what is missing."""
        for planned in plan.checkpoints:
            if planned.plan is not None and not planned.plan.fetch_bytes + planned.plan.disk_bytes:
                self._place(planned, self.preloader.fetch(planned))
                continue
            missing = planned.error.message if planned.error is not None else "not complete here"
            self.talk.say(f"{planned.wanted.target}: {missing}")

    def _fail(self, target: str, error: DiachunkError, *, last: bool) -> None:
        self.failures.append((target, error))
        self.talk.emit(
            "failed", target=target, message=error.message, hint=error.hint, exit_code=error.exit_code
        )
        if not last:
            self.talk.say(f"{target}: {error.message}; going on with the others")

    def _emit_set(self, plan: PreloadPlan) -> None:
        self.talk.emit(
            "set",
            named_by=plan.named_by,
            lock=None if plan.lock is None else str(plan.lock),
            checkpoints=[_facts(each) for each in plan.checkpoints],
            total_bytes=plan.total_bytes,
            present_bytes=plan.present_bytes,
            reuse_bytes=plan.reuse_bytes,
            fetch_bytes=plan.fetch_bytes,
            disk_bytes=plan.disk_bytes,
            free_bytes=plan.free_bytes,
            expected_s=self.outlook.expected_s(plan.fetch_bytes),
        )


def _facts(planned: Planned) -> dict[str, object]:
    plan, error = planned.plan, planned.error
    if plan is None:
        return {"target": planned.wanted.target, "error": error.message if error is not None else ""}
    return {
        "target": planned.wanted.target,
        "name": plan.name,
        "revision": plan.revision,
        "id": plan.hex_id,
        "directory": str(plan.directory),
        "total_bytes": plan.total_bytes,
        "present_bytes": plan.present_bytes,
        "reuse_bytes": plan.reuse_bytes,
        "fetch_bytes": plan.fetch_bytes,
        "disk_bytes": plan.disk_bytes,
    }


def _lines(plan: PreloadPlan, outlook: Outlook, sharing: Sharing) -> list[str]:
    head = ("checkpoint", "in all", "here", "reused", "to fetch")
    rows = [
        (
            text.ref(each.plan.ref),
            *map(
                text.size,
                (
                    each.plan.total_bytes,
                    each.plan.present_bytes,
                    each.plan.reuse_bytes,
                    each.plan.fetch_bytes,
                ),
            ),
        )
        for each in plan.checkpoints
        if each.plan is not None
    ]
    sums = (plan.total_bytes, plan.present_bytes, plan.reuse_bytes, plan.fetch_bytes)
    if len(rows) > 1:
        rows.append(("together, what they share once", *map(text.size, sums)))
    shared = f"; {how_shared(sharing)}" if sharing.port is not None else ""
    lines = [f"{text.count(len(plan.checkpoints), 'checkpoint')} of {plan.named_by}{shared}"]
    if rows:
        lines += text.columns([head, *rows], right=range(1, 5))
    if plan.fetch_bytes or plan.disk_bytes:
        lines.append(outlook.line(plan.fetch_bytes, plan.disk_bytes, plan.free_bytes))
    return lines
