"""One fetch from three slow origins, of which one dies and comes back and one falls silent: what came, when."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import fetching, measure
from diachunk.testing.fault_proxy import FaultProxy
from diachunk.testing.lines import DEAD, SILENT, Line
from diachunk.testing.servers import Nginx

FILE = "faults.json"
NAMES = ("a", "b", "c")
_STEP_S = 0.25
_GIVE_UP_S = 180.0
_SHARES = (1.2, 1.0, 0.8)
_SECONDS_OF_ONE = 69.0
"""How long an origin with a share of 1 would take alone: with this the fetch outlasts every event below."""


@dataclass(frozen=True, slots=True)
class Event:
    """What happens to one origin's line, from one second to another after the first byte."""

    source: int
    line: Line
    from_s: float
    to_s: float
    label: str


EVENTS = (
    Event(0, DEAD, 3.0, 7.0, "a dead"),
    Event(1, SILENT, 12.0, 24.0, "b silent"),
)


def lines_at(events: Sequence[Event], good: Sequence[Line], now_s: float) -> list[Line]:
    """The state of every origin's line at this second."""
    lines = list(good)
    for each in events:
        if each.from_s <= now_s < each.to_s:
            lines[each.source] = each.line
    return lines


def _watch(
    process: subprocess.Popen[bytes], proxies: Sequence[FaultProxy], good: Sequence[Line]
) -> list[list[int]]:
    """Samples what each line has carried until the process ends; the first sample is at the first byte."""
    launched_at = time.monotonic()
    while process.poll() is None and not any(each.down_bytes for each in proxies):
        time.sleep(0.005)
    started_at = time.monotonic()
    samples: list[list[int]] = []
    while process.poll() is None:
        for proxy, line in zip(proxies, lines_at(EVENTS, good, time.monotonic() - started_at), strict=True):
            if proxy.line != line:
                proxy.line = line
        samples.append([each.down_bytes for each in proxies])
        if time.monotonic() - launched_at > _GIVE_UP_S:
            process.kill()
            raise SystemExit("the fetch with faults does not end")
        time.sleep(max(0.0, started_at + _STEP_S * len(samples) - time.monotonic()))
    samples.append([each.down_bytes for each in proxies])
    return samples


def with_faults(folder: Path, rounds: int, size_mib: int) -> str:
    """The part `faults`: one fetch, whatever the number of rounds."""
    size_bytes = size_mib * 1024 * 1024
    root, manifest = fetching.published(folder, size_bytes)
    home = folder / "faults-home"
    rates_bps = [size_bytes / _SECONDS_OF_ONE * share for share in _SHARES]
    good = [Line(down_bps=rate) for rate in rates_bps]
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Nginx(root)) for _ in NAMES]
        proxies = [
            stack.enter_context(FaultProxy(each.url, line)) for each, line in zip(servers, good, strict=True)
        ]
        command = [*fetching.DIACHUNK, "fetch", str(manifest), "--quiet"]
        for proxy in proxies:
            command += ["--origin", proxy.url]
        environment = {**os.environ, "DIACHUNK_HOME": str(home)}
        started_at = time.monotonic()
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        samples = _watch(process, proxies, good)
        elapsed_s = time.monotonic() - started_at
        said = process.communicate()[1]
    if process.returncode:
        raise SystemExit(f"the fetch with faults failed: {said.decode(errors='replace')[-500:]}")
    shutil.rmtree(home)
    print(f"  {elapsed_s:.1f} s", file=sys.stderr, flush=True)
    (folder / FILE).write_text(json.dumps(record(samples, size_bytes), indent=None) + "\n")
    carried = sum(samples[-1])
    return (
        f"### One fetch with faults\n\n{size_mib} MiB from three origins, held to "
        f"{', '.join(f'{rate / 1e6:.1f}' for rate in rates_bps)} MB/s. The first resets every connection from second 3 "
        f"to 7, the second says nothing from 12 to 24 while its connections stay open. Complete after "
        f"**{elapsed_s:.1f} s**, exit 0; the lines carried "
        f"**{carried / size_bytes - 1:.2%}** more than the bytes wanted, headers included.\n\n"
        "![Throughput over time, in all and of each origin](plots/faults.svg)"
    )


def record(samples: list[list[int]], size_bytes: int) -> dict[str, object]:
    """What the plot is drawn from."""
    return {
        "machine": measure.machine(),
        "size_bytes": size_bytes,
        "step_s": _STEP_S,
        "sources": {name: [sample[n] for sample in samples] for n, name in enumerate(NAMES)},
        "events": [[each.from_s, each.to_s, each.label] for each in EVENTS],
    }
