"""What a person is asked, where one is there to answer; and what is said before and after the screen."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from diachunk.cli.talk import Talk, to_stderr

if TYPE_CHECKING:
    from diachunk.api.trust.naming import Ask, Offer
    from diachunk.digest import Digest
    from diachunk.transfer.progress import Listener

_SHOWN = 5


def takes_stranger(talk: Talk) -> Ask | None:
    """Asks whether a checkpoint is taken that only machines offer which nobody named; None without a terminal."""
    if talk.as_json or talk.quiet or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    return _ask


def _ask(manifest_id: Digest, offers: Sequence[Offer]) -> bool:
    import typer

    from diachunk.cli import text
    from diachunk.cli.waiting import hushed

    who = ", ".join(each.address for each in offers[:_SHOWN])
    more = f" and {len(offers) - _SHOWN} more" if len(offers) > _SHOWN else ""
    manifest = next((each.manifest for each in offers if each.manifest is not None), None)
    size = f", {text.size(manifest.total_bytes)}" if manifest is not None else ""
    hushed.set()
    try:
        to_stderr(
            f"offered by {who}{more}, found on this network, which nobody here has named or signed{size}:\n"
            f"  {manifest_id.hex()}"
        )
        return typer.confirm("is that the one?", default=False, err=True)
    finally:
        hushed.clear()


def plainly(talk: Talk) -> Listener:
    """A listener for the time without a screen."""
    from diachunk.transfer.progress import Event, Notice

    def listen(event: Event) -> None:
        if isinstance(event, Notice):
            talk.say(event.text)
            talk.emit("notice", text=event.text)

    return listen
