"""diachunk diff: the verb. What it does is diachunk.diff."""

from __future__ import annotations

from typing import Annotated

import typer

from diachunk.cli import text
from diachunk.cli.complete import complete_target
from diachunk.cli.options import Json
from diachunk.cli.talk import Talk


def diff(
    a: Annotated[str, typer.Argument(metavar="A", autocompletion=complete_target, hidden=True)],
    b: Annotated[str, typer.Argument(metavar="B", autocompletion=complete_target, hidden=True)],
    as_json: Json = False,
) -> None:
    """Show what going from A to B would fetch.

    A is what a machine has, B what it wants: names, ids, manifest files or URLs.
    """
    import diachunk

    talk = Talk(as_json=as_json)
    difference = diachunk.diff(a, b)
    rows = [("new", "same", "file")]
    for file in difference.files:
        path = "/".join(filter(None, (file.component, file.path)))
        if file.only_in_a:
            rows.append(("", "gone", path))
        elif file.new_bytes:
            rows.append((text.size(file.new_bytes), text.percent(file.shared_bytes, file.size), path))
    if len(rows) > 1:
        talk.result("\n".join(text.columns(rows, right=(0, 1))))
    unchanged = sum(not each.only_in_a and not each.new_bytes for each in difference.files)
    share = difference.fetch_bytes * 100 / difference.total_bytes if difference.total_bytes else 0.0
    talk.result(
        f"to fetch: {text.size(difference.fetch_bytes)} of {text.size(difference.total_bytes)} "
        f"({share:.1f}%); {text.count(unchanged, 'file')} with nothing new"
    )
    talk.emit(
        "done",
        fetch_bytes=difference.fetch_bytes,
        total_bytes=difference.total_bytes,
        files=[
            {
                "component": each.component,
                "path": each.path,
                "size_bytes": each.size,
                "shared_bytes": each.shared_bytes,
                "new_bytes": each.new_bytes,
                "only_in_a": each.only_in_a,
            }
            for each in difference.files
        ],
    )
