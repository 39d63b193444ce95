"""diachunk adopt: the verb. What it does is diachunk.adopt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diachunk.cli import text
from diachunk.cli.options import DryRun, Json, Quiet, Verbose
from diachunk.cli.talk import Talk, stopping_means

if TYPE_CHECKING:
    from diachunk.api.foreign.adoption import Adoption, Share


def adopt(
    source: Annotated[list[Path] | None, typer.Argument(metavar="DIR|FILE", hidden=True)] = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--for", metavar="TARGET", help="Look for the files of this checkpoint alone."),
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Use what this machine has already, where it lies.

    Looks through the caches of the Hub, descript and Dia, and through DIR and FILE, for the files of every
    checkpoint known here; checks them, and notes where they are. Nothing is copied, moved or changed.
    """
    from diachunk.api.foreign import adoption
    from diachunk.cli.progress import show_progress
    from diachunk.cli.tally import Tally

    talk = Talk(as_json=as_json, quiet=quiet, verbose=verbose)
    kept = "what was found so far is kept: run the same again for the rest"
    with stopping_means(kept), show_progress(talk, Tally(), files=False) as listener:
        found = adoption.adopt(source or (), targets=target or (), dry_run=dry_run, progress=listener)
    for share in found.shares:
        _tell(talk, share, dry_run=dry_run, shown=bool(target))
    _conclude(talk, found)


def _tell(talk: Talk, share: Share, *, dry_run: bool, shown: bool) -> None:
    """One component: what of it is here, and what is not."""
    talk.emit(
        "component",
        checkpoint=share.checkpoint,
        target=share.target,
        component=share.component,
        total_bytes=share.total_bytes,
        here_bytes=share.here_bytes,
        found_bytes=share.found_bytes,
        good_bytes=share.good_bytes,
        left_bytes=share.left_bytes,
        directories=[str(each) for each in share.directories],
        spoiled=[
            {
                "location": str(each.path),
                "path": each.label,
                "size_bytes": each.size,
                "good_bytes": each.good_bytes,
                "why": each.why,
            }
            for each in share.spoiled
        ],
    )
    if share.found_bytes or share.spoiled or shown or talk.verbose:
        label = " ".join(filter(None, (share.checkpoint, share.component)))
        talk.result(f"{label}: {_in_words(share, dry_run=dry_run)}")
        for each in share.spoiled:
            talk.result(f"  {short(each.path)}: {each.why}{_of_use(each.good_bytes)}")


def _in_words(share: Share, *, dry_run: bool) -> str:
    parts = []
    if share.found_bytes:
        where = " and ".join(short(each) for each in share.directories[:2])
        more = f" and {len(share.directories) - 2} more places" if len(share.directories) > 2 else ""
        unread = ", not checked yet" if dry_run else ""
        parts.append(f"{text.size(share.found_bytes)} found in {where}{more}{unread}")
    if share.here_bytes:
        parts.append(f"{text.size(share.here_bytes)} known before")
    if not parts:
        parts.append("nothing usable" if share.spoiled else "nothing here")
    left = share.left_bytes
    if left is None:
        parts.append("the rest is upstream")
    else:
        parts.append(f"{text.size(left)} to fetch" if left else "nothing to fetch")
    return ", ".join(parts)


def _of_use(good_bytes: int) -> str:
    return f"; {text.size(good_bytes)} of it are good and will be used" if good_bytes else ""


def _conclude(talk: Talk, found: Adoption) -> None:
    """The sum, and for each checkpoint that is there in part, the command that completes it."""
    talk.emit(
        "done",
        dry_run=found.dry_run,
        found_bytes=found.found_bytes,
        checked_bytes=found.checked_bytes,
        elapsed_s=round(found.elapsed_s, 3),
    )
    if not any(share.found_bytes or share.spoiled for share in found.shares):
        talk.say("nothing new found in the caches of the Hub, descript and Dia, or where you said")
    elif not found.dry_run:
        talk.say(
            f"checked {text.size(found.checked_bytes)} in {text.duration(found.elapsed_s)}; nothing was copied"
        )
    touched = dict.fromkeys(share.target for share in found.shares if share.found_bytes or share.spoiled)
    for target in touched:
        left = [share.left_bytes for share in found.shares if share.target == target]
        known = sum(each for each in left if each is not None)
        what = (
            "asks upstream for the rest" if None in left else f"fetches the {text.size(known)} that are left"
        )
        if None in left or known:
            talk.say(f"{text.command('fetch', target)} {what}")


def short(path: Path) -> str:
    """A path as people write it: below the home directory with a "~"."""
    home = os.path.expanduser("~")
    inside = os.path.isabs(home) and home != "/" and path.is_relative_to(home)
    return os.path.join("~", path.relative_to(home)) if inside else str(path)
