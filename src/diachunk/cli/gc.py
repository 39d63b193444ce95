"""diachunk gc: the verb. What it does is diachunk.gc."""

from __future__ import annotations

from typing import Annotated

import typer

from diachunk.cli import text
from diachunk.cli.options import DryRun, Json, Quiet, seconds_of, size_of
from diachunk.cli.talk import Talk, stopping_means, to_stderr
from diachunk.errors import UsageError

_SLIP_BYTES = 1_000_000
"""Nobody bounds a disk to less: a unit was left out."""


def gc(
    max_size: Annotated[
        str | None,
        typer.Option("--max-size", metavar="SIZE", help="Also the least used, until the rest fits: 500G."),
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="AGE", help="Also those not used for this long: 30d."),
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Free the disk of what no name or pin needs."""
    max_bytes, older_than_s = size_of(max_size), seconds_of(older_than)
    if max_size is not None and max_size.strip().isdecimal() and 0 < (max_bytes or 0) < _SLIP_BYTES:
        # "100" for "100G" would remove all that nothing keeps.
        raise UsageError(
            f"--max-size {max_size.strip()} is that many bytes", hint=f"{max_size.strip()}G, or 0 for nothing"
        )

    import diachunk

    talk = Talk(as_json=as_json, quiet=quiet)
    with stopping_means("run the same again to finish"):
        collected = diachunk.gc(dry_run=dry_run, max_bytes=max_bytes, older_than_s=older_than_s)
    rows = [(text.size(each.size_bytes), each.kind, each.label) for each in collected.removed]
    would = "would remove" if dry_run else "removed"
    for line in text.columns(rows, right=(0,)):
        talk.say(f"{would} {line}")
    talk.say(
        f"{text.size(collected.freed_bytes)} {'would be freed' if dry_run else 'freed'}, "
        f"{text.size(collected.kept_bytes)} kept"
    )
    for note in collected.places:
        talk.say(note)
    for note in collected.notes:
        if not as_json:  # with -q, too: a disk that nobody watches fills up
            to_stderr(f"over --max-size: {note}")
    talk.emit(
        "done",
        dry_run=dry_run,
        freed_bytes=collected.freed_bytes,
        kept_bytes=collected.kept_bytes,
        notes=collected.notes,
        places=collected.places,
        removed=[
            {"kind": each.kind, "label": each.label, "size_bytes": each.size_bytes}
            for each in collected.removed
        ],
    )
