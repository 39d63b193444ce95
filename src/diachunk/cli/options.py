"""Options that several verbs share, so that they are spelt and explained the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from diachunk.cli.complete import complete_component, complete_target
from diachunk.errors import UsageError

HELP_NAMES = ["-h", "--help"]


class Command(TyperCommand):
    """A verb whose usage line reads as in a man page: TARGET where it is needed, [TARGET] where it is not."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [_plain(piece) for piece in super().collect_usage_pieces(ctx)]


def _plain(piece: str) -> str:
    """Newer versions of typer set braces around what is needed; brackets inside say already what is not."""
    end = "..." if piece.endswith("...") else ""
    inner = piece.removesuffix(end)
    braced = inner.startswith("{") and inner.endswith("}")
    twice = inner.startswith("[") and inner.endswith("]") and "[" in inner[1:]
    return f"{inner[1:-1]}{end}" if braced or twice else piece


# Arguments are hidden from the list of options, where typer would show them with Python's names for their
# types; the usage line shows them, and the text below it explains them.
Target = Annotated[str, typer.Argument(metavar="TARGET", autocompletion=complete_target, hidden=True)]
Targets = Annotated[
    list[str] | None,
    typer.Argument(metavar="TARGET", autocompletion=complete_target, hidden=True),
]
OptionalTarget = Annotated[
    str | None, typer.Argument(metavar="TARGET", autocompletion=complete_target, hidden=True)
]
Origins = Annotated[
    list[str] | None,
    typer.Option("--origin", metavar="URL", help="Also ask this URL prefix, template or directory."),
]
Peers = Annotated[
    list[str] | None,
    typer.Option("--peer", metavar="HOST[:PORT]", help="Also ask this machine (may be given again)."),
]
Components = Annotated[
    list[str] | None,
    typer.Option(
        "-c",
        "--component",
        metavar="C",
        help="Only this component (may be given again).",
        autocompletion=complete_component,
    ),
]
Directory = Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Put the files here.")]
MaxDown = Annotated[
    str | None, typer.Option("--max-down", metavar="RATE", help="Cap: 10M (bytes a second), 100Mbit.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Only errors and the result.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say more.")]
DryRun = Annotated[bool, typer.Option("-n", "--dry-run", help="Only say what would be done.")]


def rate_of(text: str | None) -> int | None:
    """Bytes a second, of what was typed.

    Raises:
        UsageError: it is no rate.
    """
    from diachunk.config import parse_rate

    return None if text is None else parse_rate(text)


def size_of(text: str | None) -> int | None:
    """Bytes, of what was typed.

    Raises:
        UsageError: it is no size.
    """
    from diachunk.config import parse_size

    return None if text is None else parse_size(text)


def seconds_of(text: str | None) -> float | None:
    """Seconds, of what was typed.

    Raises:
        UsageError: it is no duration.
    """
    from diachunk.config import parse_duration

    return None if text is None else parse_duration(text)


def subset_of(text: str | None) -> tuple[int, int] | None:
    """(k, n), of "K/N" as typed.

    Raises:
        UsageError: not of that form, or not 1 <= K <= N.
    """
    if text is None:
        return None
    part, slash, parts = text.partition("/")
    if slash and part.isdecimal() and parts.isdecimal() and len(text) < 20 and 1 <= int(part) <= int(parts):
        return int(part), int(parts)
    raise UsageError(f"--subset {text!r:.40}: K/N is wanted, with 1 <= K <= N", hint="such as 1/30")
