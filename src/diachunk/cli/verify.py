"""diachunk verify: the verb. What it does is diachunk.verify."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diachunk.cli import text
from diachunk.cli.options import Json, MaxDown, Origins, Peers, Quiet, Targets, Verbose, rate_of, subset_of
from diachunk.cli.talk import Talk, stopping_means
from diachunk.errors import UsageError

if TYPE_CHECKING:
    from diachunk.api.verifying import FileReport, VerifyReport

_CHUNKS_SHOWN = 20


def verify(
    target: Targets = None,
    inside: Annotated[
        Path | None, typer.Option("--in", metavar="DIR", help="Check the files in this directory instead.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Fetch again what is wrong, and only that.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="With --in and --repair: also replace files not diachunk's."),
    ] = False,
    origin: Origins = None,
    peer: Peers = None,
    max_down: MaxDown = None,
    subset: Annotated[
        str | None,
        typer.Option("--subset", metavar="K/N", help="Only the K-th of N parts, for scheduled scrubs."),
    ] = None,
    cache: Annotated[
        list[str] | None,
        typer.Option(
            "--cache",
            metavar="KIND",
            help="Check another program's cache: hub, descript or dia.",
            autocompletion=lambda: ["hub", "descript", "dia"],
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Check every byte that is here, and repair what is wrong.

    Without TARGET: everything in the store. With --cache: everything in the caches of other programs, also what
    no checkpoint here knows, by the digest in its own name. Exits 4 if something is damaged and was not repaired,
    6 if the disk would not give its bytes.
    """
    max_down_bps, part = rate_of(max_down), subset_of(subset)
    if cache:
        if target or inside or part:
            raise UsageError("--cache checks a whole cache: without TARGET, --in and --subset")
        from diachunk.cli.verify_cache import verify_caches

        talk = Talk(as_json=as_json, quiet=quiet, verbose=verbose)
        verify_caches(cache, talk, repair=repair, origins=origin or (), max_down_bps=max_down_bps)
        return

    import diachunk
    from diachunk.cli.progress import show_progress
    from diachunk.cli.tally import Tally
    from diachunk.config import load_config

    talk = Talk(as_json=as_json, quiet=quiet, verbose=verbose)
    kept = "what is verified is kept: run the same again to resume" if repair else "nothing was changed"
    with stopping_means(kept), show_progress(talk, Tally(), files=False) as listener:
        report = diachunk.verify(
            target or (),
            directory=inside,
            repair=repair,
            force=force,
            subset=part,
            origins=origin or (),
            peers=peer or (),
            discover=load_config().discover,
            max_down_bps=max_down_bps,
            progress=listener,
        )
    for file in report.files:
        _tell_file(talk, file)
    again = [*(target or ()), *(("--in", str(inside)) if inside else ())]
    _conclude(talk, report, text.command("verify", *again, "--repair"))
    if not report.ok:
        raise typer.Exit(report.exit_code)


def _right(file: FileReport) -> bool:
    return file.repaired or file.state.value == "ok"


def _tell_file(talk: Talk, file: FileReport) -> None:
    """Which file is wrong, and in which chunks."""
    damage: list[dict[str, Any]] = [
        {
            "chunk": each.chunk,
            "offset": each.offset,
            "size_bytes": each.size,
            "digest": each.digest.hex(),
            "tensors": list(each.tensors),
        }
        for each in file.damage
    ]
    talk.emit(
        "file",
        checkpoint=file.checkpoint,
        component=file.component,
        path=file.path,
        size_bytes=file.size,
        location=None if file.location is None else str(file.location),
        state=file.state.value,
        repaired=file.repaired,
        why=file.why,
        damage=damage,
    )
    label = f"{file.checkpoint} {'/'.join(filter(None, (file.component, file.path)))}"
    if file.state.value == "ok":
        if talk.verbose:
            talk.say(f"{label}: ok")
        return
    why = f" ({file.why})" if file.why else ""
    _always(talk, f"{label}: {file.state.value}{why}{', repaired' if file.repaired else ''}")
    for each in file.damage[:_CHUNKS_SHOWN]:
        tensors = f"  {', '.join(each.tensors)}" if each.tensors else ""
        _always(talk, f"  chunk {each.chunk}: {text.size(each.size)} at {each.offset:,}{tensors}")
    if len(file.damage) > _CHUNKS_SHOWN:
        _always(talk, f"  + {len(file.damage) - _CHUNKS_SHOWN} more")


def _always(talk: Talk, line: str) -> None:
    """Damage is the result of this verb: it goes to stdout, with -q too."""
    talk.result(line)


def _conclude(talk: Talk, report: VerifyReport, repair_command: str) -> None:
    talk.emit(
        "done",
        ok=report.ok,
        exit_code=report.exit_code,
        files=len(report.files),
        wrong=sum(not _right(each) for each in report.files),
        repaired=sum(each.repaired for each in report.files),
        checked_bytes=report.checked_bytes,
        fetched_bytes=report.repair.fetched_bytes if report.repair else 0,
        elapsed_s=round(report.elapsed_s, 3),
    )
    if not report.files:
        talk.say("nothing to check: the store holds no complete file")
        return
    seconds = max(report.elapsed_s, 1e-3)
    read = (
        f"{text.size(report.checked_bytes)}, in {text.duration(report.elapsed_s)} "
        f"({text.rate(report.checked_bytes / seconds)})"
    )
    wrong = [each for each in report.files if not _right(each)]
    repaired = sum(each.repaired for each in report.files)
    files = text.count(len(report.files), "file")
    if wrong:
        states = Counter(each.state.value for each in wrong)
        kinds = ", ".join(f"{number} {state}" for state, number in states.items())
        what_next = f"run {repair_command}"
        if report.repair_error is not None:
            what_next = f"not repaired: {report.repair_error.hint or report.repair_error.message}"
        talk.result(f"{len(wrong)} of {files} not right ({kinds}); {what_next}")
    elif repaired:
        assert report.repair is not None
        fetched, reused = text.size(report.repair.fetched_bytes), text.size(report.repair.reused_bytes)
        talk.say(f"repaired {repaired} of {files}: fetched {fetched}, reused {reused}")
    else:
        talk.say(f"ok: {files}, {read}")
