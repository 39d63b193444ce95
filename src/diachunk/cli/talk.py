"""How a verb speaks: people on stderr, programs on stdout, as one JSON object a line if asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diachunk.errors import DiachunkError, Interrupted, printable

JSON_VERSION = 1
"""`v` of every object. A key may be added without a new version; none is removed or changes its meaning."""


class OutputClosed(Exception):
    """Whoever read stdout went away: the rest of the output has nobody to go to."""


class Talk:
    """One verb's voice. What people are told may be left out with -q; results and errors never are."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose and not quiet

    def say(self, text: str) -> None:
        """Tells a person; nothing with -q or --json."""
        if not self.quiet and not self.as_json:
            to_stderr(text)

    def result(self, text: str) -> None:
        """Writes a line of what was asked for to stdout; nothing with --json."""
        if not self.as_json:
            _to_stdout("".join(f"{printable(line)}\n" for line in text.split("\n")))

    def emit(self, event: str, **fields: Any) -> None:
        """Writes one JSON object to stdout; nothing without --json."""
        if self.as_json:
            emit(event, **fields)

    @property
    def animated(self) -> bool:
        """Whether stderr is a terminal that can redraw lines, and anybody wants to see them."""
        import os

        capable = sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
        return capable and not self.quiet and not self.as_json


def to_stderr(text: str) -> None:
    """Writes lines to stderr. A terminal that hung up is no reason to stop."""
    try:
        sys.stderr.write("".join(f"{printable(line)}\n" for line in text.split("\n")))
        sys.stderr.flush()
    except (OSError, ValueError):
        return


def emit(event: str, **fields: Any) -> None:
    """Writes one versioned JSON object as a line."""
    _to_stdout(json.dumps({"v": JSON_VERSION, "event": event, **fields}, separators=(",", ":")) + "\n")


def raw(data: bytes) -> None:
    """Writes a document to stdout as it is."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError as error:
        raise OutputClosed from error


def _to_stdout(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise OutputClosed from error


@contextmanager
def stopping_means(consequence: str) -> Iterator[None]:
    """Says of Ctrl-C in this block what it leaves behind.

    Raises:
        Interrupted: with `consequence` as its hint.
    """
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as error:
        raise Interrupted("stopped", hint=consequence) from error


def report_error(error: DiachunkError, *, as_json: bool) -> None:
    """One line what happened, one what to do next."""
    if as_json:
        emit("error", message=error.message, hint=error.hint, exit_code=error.exit_code)
    elif isinstance(error, Interrupted):
        to_stderr(f"diachunk: {'; '.join(filter(None, (error.message, error.hint)))}")
    else:
        to_stderr(f"diachunk: {error.message}" + (f"\n  {error.hint}" if error.hint else ""))
