# /// script
# requires-python = ">=3.11"
# dependencies = ["diachunk", "tqdm"]
# ///
"""A tqdm bar over a fetch: events carry byte deltas, so `bar.update(event.bytes)` is all there is to it."""

from __future__ import annotations

import sys

from tqdm import tqdm

import diachunk


def main(target: str, *origins: str) -> None:
    plan = diachunk.plan(target, origins=origins)
    with tqdm(total=plan.total_bytes, unit="B", unit_scale=True, desc=plan.name) as bar:
        snapshot = diachunk.fetch(target, origins=origins, progress=lambda event: bar.update(event.bytes))
    print(snapshot.directory)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("usage: with_tqdm.py TARGET [ORIGIN...]")
    main(*sys.argv[1:])
