"""diachunk verify --cache: what it found in other programs' caches, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from diachunk.cli import text
from diachunk.cli.adopt import short
from diachunk.cli.talk import Talk, stopping_means

if TYPE_CHECKING:
    from diachunk.api.foreign.report import CacheFile, CacheReport

_CHUNKS_SHOWN = 20
_QUIET = ("ok",)
_TOLD_APART = ("unknown", "unfinished download", "names no snapshot", "link out of the cache")


def verify_caches(
    kinds: Sequence[str], talk: Talk, *, repair: bool, origins: Sequence[str], max_down_bps: int | None
) -> None:
    """Checks these caches and tells.

    Raises:
        typer.Exit: with 4 if something is damaged and was not repaired, 6 if it could not be read or replaced.
    """
    from diachunk.api.foreign import caches
    from diachunk.cli.progress import show_progress
    from diachunk.cli.tally import Tally

    kept = "what is verified is kept: run the same again to go on" if repair else "nothing was changed"
    with stopping_means(kept), show_progress(talk, Tally(), files=False) as listener:
        report = caches.verify_caches(
            kinds, repair=repair, origins=origins, max_down_bps=max_down_bps, progress=listener
        )
    for file in report.files:
        _tell(talk, file)
    words = [word for kind in kinds for word in ("--cache", kind)]
    origin_words = [word for origin in origins for word in ("--origin", origin)]
    _conclude(talk, report, text.command("verify", *words, "--repair", *origin_words), repairing=repair)
    if not report.ok:
        raise typer.Exit(report.exit_code)


def _tell(talk: Talk, file: CacheFile) -> None:
    talk.emit(
        "file",
        cache=file.cache,
        location=str(file.path),
        label=file.label,
        size_bytes=file.size,
        state=file.state.value,
        known_by=file.known_by,
        repaired=file.repaired,
        shared=None if file.shared is None else str(file.shared),
        why=file.why,
        damage=[
            {
                "chunk": each.chunk,
                "offset": each.offset,
                "size_bytes": each.size,
                "digest": each.digest.hex(),
                "tensors": list(each.tensors),
            }
            for each in file.damage
        ],
    )
    state = file.state.value
    if state in _QUIET and not file.why:
        if talk.verbose:
            by = f" (as {file.known_by} says)" if file.known_by else ""
            talk.say(f"{file.label}: ok{by}")
        return
    if state == "unknown" and not file.why and not talk.verbose:
        return
    bytes_too = f", {text.size(file.size)}" if state == "unfinished download" else ""
    why = f" ({file.why})" if file.why else ""
    say = talk.say if state in _TOLD_APART else talk.result
    say(f"{file.label}: {state}{bytes_too}{why}{', repaired' if file.repaired else ''}")
    if file.shared is not None and file.state.wrong and not file.repaired:
        talk.result(f"  it is a link to {file.shared}, which others may read")
    for each in file.damage[:_CHUNKS_SHOWN]:
        tensors = f"  {', '.join(each.tensors)}" if each.tensors else ""
        talk.result(f"  chunk {each.chunk}: {text.size(each.size)} at {each.offset:,}{tensors}")
    if len(file.damage) > _CHUNKS_SHOWN:
        talk.result(f"  + {len(file.damage) - _CHUNKS_SHOWN} more")


def _conclude(talk: Talk, report: CacheReport, repair_command: str, *, repairing: bool) -> None:
    """One line, and the command that cures."""
    states = Counter(each.state.value for each in report.files)
    repaired = sum(each.repaired for each in report.files)
    talk.emit(
        "done",
        ok=report.ok,
        exit_code=report.exit_code,
        caches=[{"kind": kind, "root": str(root), "there": there} for kind, root, there in report.roots],
        files=len(report.files),
        wrong=len(report.wrong),
        unknown=states["unknown"],
        leftover_bytes=_leftover_bytes(report),
        repaired=repaired,
        checked_bytes=report.checked_bytes,
        fetched_bytes=report.fetched_bytes,
        elapsed_s=round(report.elapsed_s, 3),
    )
    for kind, root, there in report.roots:
        if not there:
            talk.say(f"no {kind} cache here: {short(root)} is not there")
    if any(there for _, _, there in report.roots):
        _sum_up(talk, report, states, repaired, repair_command, repairing=repairing)


def _sum_up(
    talk: Talk,
    report: CacheReport,
    states: Counter[str],
    repaired: int,
    repair_command: str,
    *,
    repairing: bool,
) -> None:
    notes = []
    if states["unknown"]:
        notes.append(f"{states['unknown']:,} unknown")
    if left := _leftover_bytes(report):
        notes.append(f"{text.size(left)} in unfinished downloads")
    more = f"; {', '.join(notes)}" if notes else ""
    seconds = max(report.elapsed_s, 1e-3)
    read = f"{text.size(report.checked_bytes)} in {text.duration(report.elapsed_s)}"
    if report.wrong:
        kinds = Counter(each.state.value for each in report.wrong)
        listed = ", ".join(f"{number} {state}" for state, number in kinds.items())
        what_next = f"run {repair_command}"
        if repairing:
            error = report.repair_error
            what_next = "not repaired: nobody here knows what they should be"
            if error is not None:
                what_next = f"not repaired: {error.message}" + (f" ({error.hint})" if error.hint else "")
        talk.result(
            f"{len(report.wrong)} of {text.count(len(report.files), 'file')} not right ({listed}); {what_next}{more}"
        )
    elif repaired:
        fetched, reused = text.size(report.fetched_bytes), text.size(report.reused_bytes)
        talk.say(f"repaired {text.count(repaired, 'file')}: fetched {fetched}, reused {reused}{more}")
    else:
        talk.say(
            f"ok: {text.count(states['ok'], 'file')}, {read} ({text.rate(report.checked_bytes / seconds)}){more}"
        )


def _leftover_bytes(report: CacheReport) -> int:
    return sum(each.size for each in report.files if each.state.value == "unfinished download")
