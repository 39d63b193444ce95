# /// script
# requires-python = ">=3.11"
# dependencies = ["diachunk"]
# ///
"""Everything a program needs, before it starts: no component is left to be pulled silently later.

    python examples/preload.py                   what of ./diachunk.toml is missing here, and how much that is
    python examples/preload.py --download-all    gets all of it, where programs look for it

The project file is examples/diachunk.toml in small: `checkpoints = ["dia-1.6b"]`. For a program of your own, the two
calls below are all there is to it. Run it with any runner of inline script metadata (PEP 723), or from an environment
that has diachunk.
"""

from __future__ import annotations

import argparse
import sys

import diachunk
from diachunk.errors import DiachunkError

MB = 1_000_000


def tell(project: str | None) -> bool:
    """Prints what is missing of each checkpoint; returns whether everything is complete."""
    plan = diachunk.plan_preload(project)
    for each in plan.checkpoints:
        if each.plan is None:
            print(f"{each.wanted.target}: {each.error}")
            continue
        for part in each.plan.components:
            missing = part.total_bytes - part.present_bytes
            state = (
                "here" if not missing else f"{missing / MB:,.1f} of {part.total_bytes / MB:,.1f} MB missing"
            )
            print(f"{each.plan.ref}  {part.name or '(all)'}: {state}")
    print(f"to fetch: {plan.fetch_bytes / MB:,.1f} MB; free: {plan.free_bytes / MB:,.1f} MB")
    return plan.complete


def download(project: str | None) -> None:
    """Fetches and places everything, with one line a file."""

    def show(event: diachunk.Event) -> None:
        if isinstance(event, diachunk.FileDone):
            print(f"  {event.component}/{event.path}  {event.size / MB:,.1f} MB")

    for snapshot in diachunk.preload(project, place=True, progress=show):
        print(snapshot)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("project", nargs="?", help="a diachunk.toml, or the directory that holds it")
    parser.add_argument("--download-all", action="store_true", help="fetch what is missing")
    arguments = parser.parse_args()
    try:
        if arguments.download_all:
            download(arguments.project)
            return 0
        return 0 if tell(arguments.project) else 1
    except DiachunkError as error:
        print(f"preload: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
