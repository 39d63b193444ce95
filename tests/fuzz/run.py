"""Runs fuzz targets under atheris, or replays inputs without it. See docs/fuzzing.md.

PYTHONPATH=tests python -m fuzz.run [--seconds N] [--target T]... [--jobs J] [--corpus DIR] [--seed N]
PYTHONPATH=tests python -m fuzz.run --target T --replay FILE...
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from fuzz.registry import TARGETS, Target

SECONDS = 6
"""A target's share of a short run."""
_RSS_MIB = 1024
_INPUT_S = 25
"""What one input may take before libFuzzer calls it hung. The targets' own bounds are tighter."""
_GRACE_S = 60
_TAIL_LINES = 25


@dataclass(frozen=True, slots=True)
class Ran:
    """How one target ended. `crashes` are the inputs that broke it."""

    target: Target
    code: int
    output: str
    crashes: tuple[Path, ...]


def fuzz(target: Target, seconds: int, corpus: Path, crashes: Path, seed: int | None = None) -> Ran:
    """Fuzzes one target for a while, from its seeds, regressions and what `corpus` holds already.

    Args:
        seed: what it draws from: the same inputs in the same order, as many as there is time for. None: others
            each time.
    """
    own = corpus / target.name
    own.mkdir(parents=True, exist_ok=True)
    for each in [*target.load().seeds(), *(path.read_bytes() for path in target.regressions())]:
        (own / f"seed-{hashlib.sha256(each).hexdigest()[:16]}").write_bytes(each)
    crashes.mkdir(parents=True, exist_ok=True)
    before = set(crashes.iterdir())
    words = crashes / f".{target.name}.dict"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.load().DICTIONARY))
    arguments = [
        *(f"-max_total_time={seconds}", f"-max_len={target.bytes_max}", f"-rss_limit_mb={_RSS_MIB}"),
        *(f"-timeout={_INPUT_S}", f"-artifact_prefix={crashes}/{target.name}-", "-print_final_stats=1"),
        *([f"-dict={words}"] if target.load().DICTIONARY else []),
        *([f"-seed={seed}"] if seed is not None else []),
        str(own),
    ]
    command = [sys.executable, "-m", "fuzz.worker", target.name, *arguments]
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds + _GRACE_S + _INPUT_S,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        )
        code, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        code, output = 124, f"{error.stdout!r:.2000}\nhung; it was ended"
    words.unlink()
    found = sorted(
        path for path in set(crashes.iterdir()) - before if path.name.startswith(f"{target.name}-")
    )
    return Ran(target, code or (1 if found else 0), output, tuple(found))


def _escaped(word: bytes) -> str:
    """A word as libFuzzer's dictionaries spell it."""
    return "".join(f"\\x{byte:02x}" if byte in b'"\\' or not 32 <= byte < 127 else chr(byte) for byte in word)


def report(ran: Ran) -> None:
    """One line when all is well, else all that a person needs to see it again."""
    executed = next(
        (line.split()[-1] for line in ran.output.splitlines() if "number_of_executed" in line), "?"
    )
    if not ran.code:
        print(f"fuzz {ran.target.name}: {executed} inputs, nothing found", flush=True)
        return
    print(f"fuzz {ran.target.name}: FAILED (exit {ran.code})")
    print("\n".join(f"    {line}" for line in ran.output.splitlines()[-_TAIL_LINES:]))
    for path in ran.crashes:
        command = [sys.executable, "-m", "fuzz.run", "--target", ran.target.name, "--replay", str(path)]
        data = path.read_bytes()
        print(f"  input: {path} ({len(data)} bytes: {data[:60]!r})")
        print(f"  replay: PYTHONPATH=tests {shlex.join(command)}", flush=True)


def replay(target: Target, paths: Sequence[Path]) -> int:
    """Feeds inputs to a target, without atheris; the first violation ends it with its traceback."""
    module = target.load()
    for path in paths:
        module.fuzz_one(path.read_bytes())
        print(f"{path}: nothing found")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz.run", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=SECONDS, help="a target (%(default)s)")
    parser.add_argument(
        "--target", action="append", choices=sorted(TARGETS), help="only this one; repeatable"
    )
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time (%(default)s)")
    parser.add_argument("--corpus", type=Path, help="keep what was found interesting here, and start from it")
    parser.add_argument("--seed", type=int, help="draw the same inputs each time (others each time)")
    parser.add_argument("--crashes", type=Path, help="keep crashing inputs here (a new temporary directory)")
    parser.add_argument(
        "--replay", type=Path, nargs="+", metavar="FILE", help="feed these inputs to --target"
    )
    options = parser.parse_args(arguments)
    chosen = [TARGETS[name] for name in options.target or TARGETS]
    if options.replay:
        if len(chosen) != 1:
            parser.error("--replay wants one --target")
        return replay(chosen[0], options.replay)
    if importlib.util.find_spec("atheris") is None:
        version = ".".join(map(str, sys.version_info[:2]))
        print(
            f"fuzz: skipped: no atheris for this Python ({version}, {sys.platform}); pip install 'diachunk[fuzz]'"
        )
        return 0
    crashes = options.crashes or Path(tempfile.mkdtemp(prefix="diachunk-crashes-"))
    with tempfile.TemporaryDirectory(prefix="diachunk-corpus-") as fresh:
        corpus = options.corpus or Path(fresh)
        with ThreadPoolExecutor(max(1, options.jobs)) as pool:
            running = [
                pool.submit(fuzz, target, options.seconds, corpus, crashes, options.seed) for target in chosen
            ]
            done = []
            for each in as_completed(running):
                done.append(each.result())
                report(done[-1])
    if not any(ran.crashes for ran in done) and options.crashes is None:
        crashes.rmdir()
    return int(any(ran.code for ran in done))


if __name__ == "__main__":
    sys.exit(main())
