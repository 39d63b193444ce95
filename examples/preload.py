# /// script
# requires-python = ">=3.11"
# dependencies = ["diachunk"]
# ///
"""Everything a program needs, before it starts: no component is left to be pulled silently later.

    python examples/preload.py TARGET...                  what is missing here, and how much that is
    python examples/preload.py TARGET... --download-all   gets all components of all of them

TARGET is what `diachunk fetch` takes: a name, an id, a manifest file or its URL. Run it with any runner of
inline script metadata (PEP 723), or from an environment that has diachunk.
"""

from __future__ import annotations

import argparse
import sys

import diachunk
from diachunk.errors import DiachunkError

MB = 1_000_000


def tell(target: str, origins: list[str]) -> bool:
    """Prints what is missing of one checkpoint; returns whether it is complete."""
    plan = diachunk.plan(target, origins=origins)
    for part in plan.components:
        missing = part.total_bytes - part.present_bytes
        state = "here" if not missing else f"{missing / MB:,.1f} of {part.total_bytes / MB:,.1f} MB missing"
        print(f"{plan.manifest.ref}  {part.name or '(all)'}: {state}")
    return plan.present_bytes == plan.total_bytes


def download(target: str, origins: list[str]) -> None:
    """Fetches every component, with one line a file."""

    def show(event: diachunk.Event) -> None:
        if isinstance(event, diachunk.FileDone):
            print(f"  {event.component}/{event.path}  {event.size / MB:,.1f} MB")

    snapshot = diachunk.fetch(target, origins=origins, progress=show)
    print(snapshot.directory)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("targets", nargs="+", metavar="TARGET")
    parser.add_argument("--origin", action="append", default=[], metavar="URL")
    parser.add_argument("--download-all", action="store_true", help="fetch what is missing")
    arguments = parser.parse_args()
    complete = True
    try:
        for target in arguments.targets:
            if arguments.download_all:
                download(target, arguments.origin)
            else:
                complete = tell(target, arguments.origin) and complete
    except DiachunkError as error:
        print(f"preload: {error}", file=sys.stderr)
        return error.exit_code
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
