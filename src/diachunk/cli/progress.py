"""Chooses how progress is shown: a live screen, plain lines, JSON, or not at all."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeAlias

from diachunk.cli.talk import Talk
from diachunk.cli.tally import Tally

if TYPE_CHECKING:
    from diachunk.cli.lines import JsonLines, PlainLines
    from diachunk.cli.screen import Screen

    Shown: TypeAlias = AbstractContextManager[Screen | PlainLines | JsonLines]


def show_progress(talk: Talk, tally: Tally, *, files: bool = True) -> Shown:
    """Returns what to enter around the work; entering it gives the listener.

    Args:
        files: whether JSON says which files are complete.
    """
    if talk.animated:
        from diachunk.cli.screen import Screen

        return Screen(tally)
    from diachunk.cli.lines import JsonLines, PlainLines

    if talk.as_json:
        return JsonLines(tally, talk, files=files)
    return PlainLines(tally, talk.say, verbose=talk.verbose)
