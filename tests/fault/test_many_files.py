"""Ten thousand small files: bounded time, memory and open files, and a kill half-way costs next to nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diachunk.manifest import decode
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import MIB, Checkpoint, assert_same_files, blobs_of
from fixtures.crowd import Neighbour
from fixtures.process import FetchProcess
from fixtures.settings import write_config

pytestmark = pytest.mark.loopback

FILES = 10_000
LANES = 4
OPEN_FILES_MAX = 96
MEMORY_BYTES_MAX = 350 * MIB
BOUND_S = 100.0
"""For each step, of which the longest takes a tenth of that; only what grows with the square goes beyond."""
_STEP = f"""
import json, os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({OPEN_FILES_MAX}, {OPEN_FILES_MAX}))
# The peak begins with that of the process which forked this one, and ends there: a child's is its own.
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
import diachunk

home, target, origin, out = sys.argv[1:]
result = {{}}
print(json.dumps([result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]), flush=True)
"""

FETCH = """(
    lambda done: [done.fetched_bytes, done.reused_bytes + done.present_bytes]
)(diachunk.fetch(target, origins=[origin], home=home).report)"""
VERIFY = "(lambda done: [done.ok, len(done.files), done.checked_bytes])(diachunk.verify(home=home))"


def step(expression: str, home: Path, target: str = "", origin: str = "", out: str = "") -> Any:
    """What an expression over `diachunk` comes to in a process of few open files; asserts its memory."""
    with Neighbour(_STEP.format(expression), [str(home), target, origin, out]) as process:
        ended = process.end(BOUND_S)
    assert ended.code == 0, ended.said
    result, peak = json.loads(ended.printed)
    assert peak * 1024 <= MEMORY_BYTES_MAX, f"{peak:,} KiB"
    return result


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """In memory where that can be had: thirty thousand flushes say nothing of this program, only of the disk."""
    memory = Path("/dev/shm")
    usable = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 600 * MIB
    with tempfile.TemporaryDirectory(dir=memory if usable else tmp_path) as name:
        yield Path(name)


def written(root: Path) -> Path:
    """Files of up to 1.5 kB, no two alike, a hundred to a directory."""
    content = random.Random(1)
    for number in range(FILES):
        path = root / "model" / f"{number // 100:02}" / f"{number:05}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(number.to_bytes(4, "big") + content.randbytes(content.randrange(1500)))
    return root


def published(root: Path, file: Path, publisher: Path) -> Checkpoint:
    step(
        "diachunk.publish(['model=' + target], name='lab/many', out=out, home=home).manifest.hex_id",
        publisher,
        str(root / "model"),
        out=str(file),
    )
    return Checkpoint(root, file, decode(file.read_bytes()))


def killed_half_way(many: Checkpoint, origin: Nginx, home: Path) -> None:
    with FetchProcess(many.target, origin.url, home) as process:
        process.wait_for_bytes(many.total_bytes // 2)
        process.signal(signal.SIGKILL)
    assert 0 < len(blobs_of(home)) < FILES


@pytest.mark.timeout(300)
def test_ten_thousand_files_go_every_way_within_bounds(directory: Path, base: Path) -> None:
    """One test, because the steps need what those before them left, and that took long to make."""
    write_config(base, {"lanes": LANES})
    root, home = written(directory / "served"), directory / "store"
    many = published(root, directory / "many.json", directory / "publisher")
    assert sum(1 for _ in many.manifest.walk()) == FILES
    with Nginx(root) as origin:
        killed_half_way(many, origin, home)
        anew, here = step(FETCH, home, many.target, origin.url)
        assert anew + here == many.total_bytes
        assert here >= many.total_bytes // 4
        # one file a request here: what a kill loses is what the lanes were asking for
        assert len(origin.requests()) <= FILES + LANES
        assert_same_files(home / "snapshots" / many.manifest.hex_id, many)
        assert step(FETCH, home, many.target, origin.url) == [0, many.total_bytes]
        assert len(origin.requests()) <= FILES + LANES
    assert step(VERIFY, home) == [True, FILES, many.total_bytes]
    assert step("len(diachunk.gc(home=home).removed)", home) == 0
    assert step("len(diachunk.rm([target], home=home)[1].removed)", home, many.manifest.hex_id) >= FILES
    # What the kill left under a temporary name, a stamp half written, is not collected on the same day.
    assert [each for each in (home / "blobs").glob("??/*") if each.suffix != ".tmp"] == []
    assert step("len(diachunk.ls(home).held)", home) == 0
