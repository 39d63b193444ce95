"""Times whole processes side by side: interleaved rounds, medians of ratios, the kernel's own accounting."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

GB = 1_000_000_000


class NotHereError(Exception):
    """What a part needs this machine does not have."""


@dataclass(frozen=True, slots=True)
class Run:
    """One process: wall and CPU seconds, peak resident memory in bytes."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


@dataclass(slots=True)
class Row:
    """All runs of one contender, in round order."""

    name: str
    runs: list[Run] = field(default_factory=list)

    def median_wall_s(self) -> float:
        return statistics.median(run.wall_s for run in self.runs)

    def median_cpu_s(self) -> float:
        return statistics.median(run.cpu_s for run in self.runs)


@dataclass(frozen=True, slots=True)
class Contender:
    """A command line, and what has to happen before each run of it (not timed).

    Attributes:
        exits: the exit codes of a run that did what it was to do.
    """

    name: str
    command: Sequence[str]
    before: Callable[[], None] = lambda: None
    environment: Mapping[str, str] = field(default_factory=dict)
    exits: frozenset[int] = frozenset({0})


_LAUNCHER = """
import json, os, sys, time
started_at = time.perf_counter()
child = os.fork()
if not child:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    try:
        os.execvp(sys.argv[1], sys.argv[1:])
    except OSError as error:
        os.write(2, str(error).encode())
        os._exit(127)
_, status, usage = os.wait4(child, 0)
wall_s = time.perf_counter() - started_at
code = os.waitstatus_to_exitcode(status)
print(json.dumps([code, wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]))
"""
"""A small process in between: what the kernel calls a process's peak begins, after exec(2), with that of the one
that forked it, so that a small program measured by a large one would look large."""


def run_once(contender: Contender) -> Run:
    """Runs a command to its end.

    Raises:
        SystemExit: it failed; a benchmark of a failure means nothing.
    """
    contender.before()
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, *contender.command],
        env={**os.environ, **contender.environment},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    try:
        code, wall_s, cpu_s, peak = json.loads(done.stdout)
    except ValueError:
        raise SystemExit(f"{contender.name} could not be run: {done.stderr[-500:]}") from None
    if code not in contender.exits:
        raise SystemExit(f"{contender.name} ended with {code}: {done.stderr[-500:]}")
    return Run(wall_s, cpu_s, peak * (1 if sys.platform == "darwin" else 1024))


def race(contenders: Sequence[Contender], rounds: int, *, settle_s: float = 1.0) -> list[Row]:
    """Runs all contenders in turn, `rounds` times, after one round that does not count.

    The order is turned round every other round, so that nobody always runs on what another left behind.
    """
    rows = {each.name: Row(each.name) for each in contenders}
    for number in range(rounds + 1):
        for each in contenders if number % 2 else tuple(reversed(contenders)):
            time.sleep(settle_s)
            run = run_once(each)
            if number:
                rows[each.name].runs.append(run)
            print(f"  round {number}: {each.name}: {run.wall_s:.2f} s", file=sys.stderr, flush=True)
    return list(rows.values())


def keep(file: Path, place: str, rows: Sequence[Row], size_bytes: int) -> None:
    """Adds a race's figures to a JSON file, for the plot: every round, not only the medians."""
    places = json.loads(file.read_text())["places"] if file.exists() else {}
    places[place] = {
        "size_bytes": size_bytes,
        "wall_s": {row.name: [round(run.wall_s, 3) for run in row.runs] for row in rows},
    }
    file.write_text(json.dumps({"machine": machine(), "places": places}, indent=1) + "\n")


def cpu_of(work: Callable[[], object]) -> float:
    """CPU seconds, user and system, that this process spends in `work`, on all of its threads."""
    before = time.process_time()
    work()
    return time.process_time() - before


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def ratio(faster: Row, slower: Row) -> float:
    """How many times as fast the first is: the median of the rounds' ratios."""
    return statistics.median(
        theirs.wall_s / ours.wall_s for ours, theirs in zip(faster.runs, slower.runs, strict=True)
    )


def spread(faster: Row, slower: Row) -> str:
    """The smallest and largest of the rounds' ratios."""
    ratios = [theirs.wall_s / ours.wall_s for ours, theirs in zip(faster.runs, slower.runs, strict=True)]
    return f"{min(ratios):.2f}-{max(ratios):.2f}"


def machine() -> str:
    """One line about where this ran."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    total = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    return (
        f"{os.cpu_count()} cores ({model}), {int(total) / 1e6:.0f} GB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
