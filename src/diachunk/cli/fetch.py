"""diachunk fetch: the verb. What it does is diachunk.fetch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from diachunk.cli import text
from diachunk.cli.complete import known_names
from diachunk.cli.options import (
    Components,
    Directory,
    DryRun,
    Json,
    MaxDown,
    OptionalTarget,
    Origins,
    Quiet,
    Verbose,
    rate_of,
    seconds_of,
)
from diachunk.cli.talk import Talk, stopping_means
from diachunk.errors import UsageError, redact

if TYPE_CHECKING:
    from diachunk.transfer.assemble import Report
    from diachunk.transfer.plan import Plan

_LATER = "For peers; this version has none yet."
_Force = Annotated[
    bool, typer.Option("--force", help="With --to: replace files that differ and are not diachunk's.")
]
_Patience = Annotated[
    str | None,
    typer.Option("--patience", metavar="T", help="Give up so long after no source is usable (30s)."),
]


def fetch(
    target: OptionalTarget = None,
    origin: Origins = None,
    component: Components = None,
    to: Directory = None,
    force: _Force = False,
    max_down: MaxDown = None,
    patience: _Patience = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    max_up: Annotated[str | None, typer.Option("--max-up", metavar="RATE", help=_LATER)] = None,
    no_discover: Annotated[bool, typer.Option("--no-discover", help=_LATER)] = False,
    no_share: Annotated[bool, typer.Option("--no-share", help=_LATER)] = False,
    linger: Annotated[str | None, typer.Option("--linger", metavar="T", help=_LATER)] = None,
) -> None:
    """Get a checkpoint: all of it, verified and resumable.

    TARGET is NAME[@REV], an id or 8 or more of its first digits, a manifest file, or its URL.

    Prints the checkpoint's directory, and nothing else, on stdout. Stopped or failed, it loses nothing: run
    the same again and it resumes.
    """
    talk = Talk(as_json=as_json, quiet=quiet, verbose=verbose)
    if target is None:
        raise _no_target()
    max_down_bps, patience_s = rate_of(max_down), seconds_of(patience)
    rate_of(max_up), seconds_of(linger)

    import diachunk
    from diachunk.cli import pace
    from diachunk.cli.progress import show_progress
    from diachunk.cli.tally import Tally
    from diachunk.config import load_config

    config = load_config()
    origins, components = origin or (), component or ()
    with stopping_means("what is verified is kept: run the same again to resume"):
        plan = diachunk.plan(target, origins=origins, components=components, to=to)
        cap_bps = max_down_bps or config.max_down_bps
        _announce(talk, plan, cap_bps, pace.recall(config.home), dry_run=dry_run)
        if dry_run:
            return
        tally = Tally({each.name: each.total_bytes for each in plan.components})
        with show_progress(talk, tally) as listener:
            snapshot = diachunk.fetch(
                plan,
                origins=origins,
                components=components,
                to=to,
                force=force,
                max_down_bps=max_down_bps,
                patience_s=patience_s,
                progress=listener,
            )
    if cap_bps is None:
        pace.remember(config.home, snapshot.report.fetched_bytes, snapshot.report.elapsed_s)
    _conclude(talk, snapshot.report)
    talk.result(os.fspath(snapshot))
    talk.emit("done", directory=os.fspath(snapshot), id=snapshot.manifest.hex_id, **_books(snapshot.report))


def _no_target() -> UsageError:
    names = known_names()
    known = f"known here: {', '.join(names[:6])}{', …' if len(names) > 6 else ''}" if names else ""
    return UsageError(
        "name a checkpoint to fetch", hint=known or "a manifest file or its URL: diachunk fetch ./dia.json"
    )


def _announce(
    talk: Talk, plan: Plan, max_down_bps: int | None, pace_bps: int | None, *, dry_run: bool
) -> None:
    """Says what is to be done, and about how long it takes."""
    rate_bps = min(filter(None, (max_down_bps, pace_bps)), default=None)
    eta_s = plan.fetch_bytes / rate_bps if rate_bps else None
    if dry_run and not talk.as_json:
        talk.result("\n".join([*_opening(plan, rate_bps, max_down_bps), *_parts(plan)]))
    else:
        talk.say("\n".join(_opening(plan, rate_bps, max_down_bps)))
    talk.emit(
        "plan",
        name=plan.manifest.name,
        revision=plan.manifest.revision,
        id=plan.manifest.hex_id,
        directory=str(plan.directory),
        components=[
            {
                "name": each.name,
                "files": each.files,
                "total_bytes": each.total_bytes,
                "present_bytes": each.present_bytes,
                "reuse_bytes": each.reuse_bytes,
                "fetch_bytes": each.fetch_bytes,
            }
            for each in plan.components
        ],
        total_bytes=plan.total_bytes,
        present_bytes=plan.present_bytes,
        reuse_bytes=plan.reuse_bytes,
        fetch_bytes=plan.fetch_bytes,
        disk_bytes=plan.disk_bytes,
        free_bytes=plan.free_bytes,
        origins=[redact(each) for each in plan.origins],
        expected_s=None if eta_s is None else round(eta_s, 1),
        sharing=False,
    )
    if dry_run:
        talk.emit("done", dry_run=True)


def _opening(plan: Plan, rate_bps: int | None, max_down_bps: int | None) -> list[str]:
    here = plan.present_bytes + plan.reuse_bytes
    parts = [f"{text.size(plan.fetch_bytes)} to fetch"]
    if here:
        parts.append(f"{text.size(here)} here already")
    first = f"{plan.manifest.ref}: {', '.join(parts)}; not sharing"
    if not plan.fetch_bytes and not plan.disk_bytes:
        return [first]
    if not plan.fetch_bytes:
        time = "nothing to wait for but the disk"
    elif rate_bps is None:
        time = "time unknown until it starts"
    else:
        why = "--max-down" if rate_bps == max_down_bps else "the last fetch's rate"
        time = f"{text.about(plan.fetch_bytes / rate_bps)} at {text.rate(rate_bps)} ({why})"
    return [first, f"{time}; takes {text.size(plan.disk_bytes)} of disk, {text.size(plan.free_bytes)} free"]


def _parts(plan: Plan) -> list[str]:
    head = ("component", "files", "in all", "here", "reused", "to fetch")
    rows = [
        (
            each.name or "all files",
            f"{each.files:,}",
            text.size(each.total_bytes),
            text.size(each.present_bytes),
            text.size(each.reuse_bytes),
            text.size(each.fetch_bytes),
        )
        for each in plan.components
    ]
    origins = [f"origin: {redact(each)}" for each in plan.origins] or [
        "no origin is known: name one with --origin URL"
    ]
    return [*text.columns([head, *rows], right=range(1, 6)), *origins, f"into: {plan.directory}"]


def _conclude(talk: Talk, report: Report) -> None:
    """The closing line, and one for each source that lied or failed."""
    gave = [each for each in report.sources if each.verified_bytes]
    if not report.fetched_bytes and not report.reused_bytes:
        talk.say(f"all here: {text.size(report.present_bytes)}, verified before and untouched since")
    else:
        seconds = max(report.elapsed_s, 1e-3)
        line = f"fetched {text.size(report.fetched_bytes)} in {text.duration(report.elapsed_s)}"
        if report.fetched_bytes:
            line += f" ({text.rate(report.fetched_bytes / seconds)})"
        line += f", reused {text.size(report.reused_bytes + report.present_bytes)}"
        talk.say(f"{line}; {text.count(len(gave), 'source')}")
    for each in report.sources:
        if each.out or each.bad_chunks:
            talk.say(f"  {each.label}: {each.out or each.last_fault}; do not trust it")
        elif each.faults or each.last_fault:
            failures = f" ({text.count(each.faults, 'failure')})" if each.faults else ""
            talk.say(f"  {each.label}: {each.last_fault}{failures}")
        elif talk.verbose:
            talk.say(f"  {each.label}: {text.size(each.verified_bytes)}")
    if talk.verbose and report.wasted_bytes:
        talk.say(f"  {text.size(report.wasted_bytes)} came twice or were thrown away")


def _books(report: Report) -> dict[str, object]:
    return {
        "total_bytes": report.total_bytes,
        "present_bytes": report.present_bytes,
        "reused_bytes": report.reused_bytes,
        "fetched_bytes": report.fetched_bytes,
        "wasted_bytes": report.wasted_bytes,
        "elapsed_s": round(report.elapsed_s, 3),
        "sources": [
            {
                "label": each.label,
                "verified_bytes": each.verified_bytes,
                "faults": each.faults,
                "bad_chunks": each.bad_chunks,
                "last_fault": each.last_fault,
                "out": each.out,
            }
            for each in report.sources
        ],
    }
