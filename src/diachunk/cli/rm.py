"""diachunk rm: the verb. What it does is diachunk.rm."""

from __future__ import annotations

from typing import Annotated

import typer

from diachunk.cli import text
from diachunk.cli.complete import complete_target
from diachunk.cli.options import Json, Quiet
from diachunk.cli.talk import Talk, stopping_means


def rm(
    target: Annotated[
        list[str],
        typer.Argument(metavar="TARGET", autocompletion=complete_target, hidden=True),
    ],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove checkpoints, and the files that only they needed.

    Files that were published from where they lie are left alone.
    """
    import diachunk

    talk = Talk(as_json=as_json, quiet=quiet)
    with stopping_means("run the same again to finish"):
        manifests, collected = diachunk.rm(target)
    for manifest in manifests:
        talk.say(f"removed {text.ref(manifest.ref)} ({manifest.hex_id[:16]})")
    for note in collected.notes:
        talk.say(f"  {note}")
    talk.say(f"{text.size(collected.freed_bytes)} freed")
    talk.emit(
        "done",
        removed=[{"ref": each.ref, "id": each.hex_id} for each in manifests],
        freed_bytes=collected.freed_bytes,
        notes=collected.notes,
    )
