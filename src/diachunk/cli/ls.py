"""diachunk ls: the verb. What it does is diachunk.ls."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from diachunk.cli import text
from diachunk.cli.options import Json
from diachunk.cli.talk import Talk

if TYPE_CHECKING:
    from diachunk.api.care import Held


def ls(as_json: Json = False) -> None:
    """List the checkpoints here, and how much of each is."""
    import diachunk

    talk = Talk(as_json=as_json)
    listing = diachunk.ls()
    now = time.time()
    if listing.held:
        head = ("size", "here", "last use", "id", "name")
        rows = [_row(held, now) for held in listing.held]
        talk.result("\n".join(text.columns([head, *rows], right=(0, 1))))
    else:
        talk.result("no checkpoints here yet")
    talk.result(
        f"{text.count(len(listing.held), 'checkpoint')}; the store takes {text.size(listing.disk_bytes)}, "
        f"{text.size(listing.free_bytes)} free ({listing.root})"
    )
    if listing.unfinished_bytes:
        talk.result(
            f"unfinished: {text.size(listing.unfinished_bytes)} of files that a fetch will go on with"
        )
    talk.emit(
        "done",
        root=listing.root,
        disk_bytes=listing.disk_bytes,
        unfinished_bytes=listing.unfinished_bytes,
        free_bytes=listing.free_bytes,
        checkpoints=[
            {
                "name": held.name,
                "revision": held.revision,
                "id": held.hex_id,
                "refs": list(held.names),
                "pinned": held.pinned,
                "total_bytes": held.total_bytes,
                "present_bytes": held.present_bytes,
                "complete": held.complete,
                "part_of": held.part_of,
                "used_at": round(held.used_at, 3),
            }
            for held in listing.held
        ],
    )


def _row(held: Held, now: float) -> tuple[str, ...]:
    # A manifest's own name is only what it calls itself; without a local name it is set in brackets.
    # What came from the Hub is called by the target that was typed.
    short = text.ref(held.ref)
    name = ", ".join(map(text.ref, held.names)) or (f"hub:{short}" if short != held.ref else f"({held.ref})")
    if held.part_of:
        name = f"{name}, a part of {text.ref(held.part_of)}"
    return (
        text.size(held.total_bytes),
        text.percent(held.present_bytes, held.total_bytes),
        text.ago(now - held.used_at),
        held.hex_id[:16],
        name,
    )
