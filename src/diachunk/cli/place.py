"""diachunk place: the verb. What it does is diachunk.place."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from diachunk.cli import text
from diachunk.cli.complete import offer
from diachunk.cli.options import Components, DryRun, Json, Quiet, Target
from diachunk.cli.talk import Talk, stopping_means
from diachunk.errors import UsageError

if TYPE_CHECKING:
    from diachunk.api.placing import Placed, PlacedIn

_NAMES = {
    "hub": "the Hub cache",
    "descript": "descript's cache",
    "dia": "Dia's cache",
    "directory": "a directory",
}
_PLURALS = {"reflink": "reflinks", "hardlink": "hardlinks", "symlink": "symlinks", "copy": "copies"}
_LEFT_SHOWN = 20


def place(
    target: Target,
    into: Annotated[
        list[str] | None,
        typer.Option(
            "--into",
            metavar="PLACE",
            help="hub, descript, dia or a directory (may be given again).",
            autocompletion=offer("hub", "descript", "dia"),
        ),
    ] = None,
    component: Components = None,
    link_mode: Annotated[
        str,
        typer.Option(
            "--link-mode",
            metavar="M",
            help="auto, reflink, hardlink, symlink or copy.",
            autocompletion=offer("auto", *_PLURALS),
        ),
    ] = "auto",
    undo: Annotated[bool, typer.Option("--undo", help="Take away what was placed.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Move what is in the way aside, keeping it.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show a checkpoint where other programs look for it.

    Without --into: in every place that the checkpoint names. Prints what programs use, a directory or a file, one
    a line, on stdout. Links where it can: nothing is stored twice.
    """
    if undo and dry_run:
        raise UsageError("--undo and --dry-run do not go together")

    from diachunk.api.placing import place as place_it
    from diachunk.cli.progress import show_progress
    from diachunk.cli.tally import Tally

    talk = Talk(as_json=as_json, quiet=quiet)
    kept = "what is placed is whole: run the same again to finish"
    with stopping_means(kept), show_progress(talk, Tally(), files=False) as listener:
        placed = place_it(
            target,
            into=into or (),
            components=component or (),
            link_mode=link_mode,
            undo=undo,
            force=force,
            dry_run=dry_run,
            progress=listener,
        )
    if undo:
        _tell_undone(talk, placed)
    else:
        _tell_placed(talk, placed, target, dry_run=dry_run)
    _emit(talk, placed, dry_run=dry_run)


def _tell_placed(talk: Talk, placed: Placed, target: str, *, dry_run: bool) -> None:
    for each in placed.places:
        talk.say(_line(each))
    for notice in placed.notices:
        talk.say(f"  {notice}")
    if dry_run:
        talk.say("nothing was changed: this was a dry run")
        return
    talk.say(f"to undo: {text.command('place', target, '--undo')}")
    uses = list(dict.fromkeys(each.use for each in placed.places if each.use))
    for shown in dict.fromkeys(os.fspath(each.shown) for each in placed.places):
        talk.result(shown)
    talk.say("; ".join(uses) or "programs can use it from there now")


def _line(each: PlacedIn) -> str:
    """ "model: 9 files, 6.4 GB in the Hub cache (/home/a/.cache/huggingface/hub): 8 hardlinks, 1 there already"."""
    hows = Counter(file.how for file in each.files)
    ways = ", ".join(f"{count} {_PLURALS.get(how, how) if count > 1 else how}" for how, count in hows.items())
    size = text.size(sum(file.size for file in each.files))
    name = f"{each.component}: " if each.component else ""
    where = f"{_NAMES.get(each.kind, each.kind)} ({each.root})"
    return f"{name}{text.count(len(each.files), 'file')}, {size} in {where}: {ways}"


def _tell_undone(talk: Talk, placed: Placed) -> None:
    talk.say(
        f"took away {text.count(len(placed.removed), 'name')} of {text.ref(placed.manifest.ref)}; "
        "its files stay where they are"
    )
    for notice in placed.notices:
        talk.say(f"  {notice}")
    for path, why in placed.left[:_LEFT_SHOWN]:
        talk.say(f"  left {path}: {why}")
    if len(placed.left) > _LEFT_SHOWN:
        talk.say(f"  + {len(placed.left) - _LEFT_SHOWN} more left")


def _emit(talk: Talk, placed: Placed, *, dry_run: bool) -> None:
    for file in placed.files:
        talk.emit(
            "file",
            component=file.component,
            path=file.path,
            size_bytes=file.size,
            location=str(file.where),
            how=file.how,
        )
    for notice in placed.notices:
        talk.emit("notice", text=notice)
    talk.emit(
        "done",
        id=placed.manifest.hex_id,
        dry_run=dry_run,
        places=[
            {"kind": each.kind, "component": each.component, "shown": str(each.shown), "use": each.use}
            for each in placed.places
        ],
        removed=[str(each) for each in placed.removed],
        left=[{"location": str(path), "why": why} for path, why in placed.left],
    )
