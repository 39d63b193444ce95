"""The options of `fetch` alone. Those that other verbs have, too, are in options.py and company.py."""

from __future__ import annotations

from typing import Annotated

import typer

Force = Annotated[
    bool, typer.Option("--force", help="With --to: replace files that differ and are not diachunk's.")
]
Patience = Annotated[
    str | None,
    typer.Option("--patience", metavar="T", help="Give up so long after no source is usable (30s)."),
]
Place = Annotated[
    bool, typer.Option("--place", help="Then show it where the programs that it is for look for it.")
]
Into = Annotated[
    list[str] | None,
    typer.Option(
        "--into",
        metavar="PLACE",
        help="Show it there: hub, descript, dia or a directory (may be given again).",
        autocompletion=lambda incomplete: [each for each in _kinds() if each.startswith(incomplete)],
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        "--include", metavar="PATTERN", help='Of hub:..., only such files: "*.json" (may be given again).'
    ),
]
Exclude = Annotated[
    list[str] | None, typer.Option("--exclude", metavar="PATTERN", help="Of hub:..., all but such files.")
]
Locked = Annotated[
    bool, typer.Option("--locked", help="Exactly what diachunk.lock says, or fail; never writes it.")
]
Update = Annotated[
    bool,
    typer.Option(
        "--update",
        help="Of a name: ask for a newer version. Without TARGET: look all up anew, rewrite diachunk.lock.",
    ),
]


def _kinds() -> tuple[str, ...]:
    from diachunk.project import PLACE_KINDS

    return PLACE_KINDS
