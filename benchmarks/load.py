"""Loading onto the CPU and onto CUDA beside other loaders, and load while fetching: `python -m benchmarks.run --only
load,load-cast,load-pth,load-fetch,load-cuda`.

Every load runs in a process of its own; what is compared are medians of the rounds' ratios. The files lie where they
were made, and the store knows them (adopted): nothing is there twice.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import diachunk
from benchmarks import measure
from benchmarks.load_quiet import undisturbed
from diachunk.testing.checkpoint import TensorSpec, layout, write_safetensors, write_torch_zip
from diachunk.testing.fault_proxy import FaultProxy
from diachunk.testing.lines import Line
from diachunk.testing.servers import Nginx

_DIA_BYTES = 6_444_642_304
_GBIT_BPS = 1e9 / 8


def _bytes(size_mib: int) -> int:
    """Where the other parts take 2 GiB: 3.2 GB, Dia in bf16."""
    return size_mib * 3 // 2 * 1024 * 1024


def specs_of(size_bytes: int, dtype: str) -> tuple[TensorSpec, ...]:
    """Dia's tensors in this dtype, about so many bytes."""
    width = 4 if dtype == "F32" else 2
    scale = min(1.0, size_bytes / (_DIA_BYTES * width / 4))
    return tuple(replace(spec, dtype=dtype) for spec in layout("dia_tf", scale=scale))


@contextlib.contextmanager
def _published(
    folder: Path, size_bytes: int, dtype: str, suffix: str = "safetensors"
) -> Iterator[tuple[Path, Path, Path]]:
    """(file, manifest, home of a store that has it); removed afterwards.

    The file is the store's own blob, by a symbolic link: all contenders read the very same pages. Which pages of the
    host's a file lies in makes its bytes come up to a third faster or slower.
    """
    with tempfile.TemporaryDirectory(dir=folder) as made:
        file, manifest, home = Path(made, f"model.{suffix}"), Path(made, "model.json"), Path(made, "home")
        write = write_torch_zip if suffix == "pth" else write_safetensors
        write(file, specs_of(size_bytes, dtype), seed="load")
        diachunk.publish([file], name="bench/load", copy=True, out=manifest, home=home)
        size = file.stat().st_size
        file.unlink()
        file.symlink_to(
            next(each for each in home.rglob("*") if each.is_file() and each.stat().st_size == size)
        )
        yield file, manifest, home


@dataclass(frozen=True, slots=True)
class _Load(measure.Run):
    """What was measured, and how much of the cores others took meanwhile."""

    others_share: float


def _run(case: str, file: Path, manifest: Path, home: Path) -> _Load | str:
    """One load; why not, if this loader is not installed."""
    command = [sys.executable, "-m", "benchmarks.load_case", case, str(file), str(manifest)]
    environment = {**os.environ, "DIACHUNK_HOME": str(home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    try:
        said = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        raise SystemExit(f"{case} failed: {done.stderr[-800:]}") from None
    if "missing" in said:
        return str(said["missing"])
    return _Load(said["wall_s"], said["cpu_s"], said["peak_bytes"], said["others_share"])


def _others_share(run: _Load | str) -> float:
    return 0.0 if isinstance(run, str) else run.others_share


def race(
    cases: Sequence[str], file: Path, manifest: Path, home: Path, rounds: int
) -> tuple[dict[str, measure.Row], dict[str, str]]:
    """All cases in turn; those that are not installed are left out, with the reason."""
    rows = {case: measure.Row(case) for case in cases}
    skipped: dict[str, str] = {}
    again = 0
    for number in range(rounds + 1):
        for case in cases if number % 2 else tuple(reversed(cases)):
            if case in skipped:
                continue
            run, thrown = undisturbed(functools.partial(_run, case, file, manifest, home), _others_share)
            again += thrown
            if isinstance(run, str):
                skipped[case] = run
                continue
            print(f"  round {number}: {case}: {run.wall_s:.3f} s", file=sys.stderr, flush=True)
            if number:
                rows[case].runs.append(run)
    if again:
        print(f"  {again} runs were made again: others used the cores meanwhile", file=sys.stderr, flush=True)
    return {case: row for case, row in rows.items() if case not in skipped}, skipped


def _report(
    title: str,
    rows: dict[str, measure.Row],
    skipped: dict[str, str],
    size_bytes: int,
    aims: Sequence[tuple[str, str, float]],
) -> str:
    """A table, and for each aim (ours, theirs, at most so many times the time) what came out."""
    if not rows:
        return "\n\n".join(
            [f"### {title}", *(f"{name} was left out: {why}." for name, why in skipped.items())]
        )
    lines = [
        [
            row.name,
            f"{row.median_wall_s():.3f}",
            f"{row.median_cpu_s():.3f}" if row.median_cpu_s() else "",
            f"{size_bytes / row.median_wall_s() / measure.GB:.2f}",
            f"{max(run.peak_bytes for run in row.runs) / 1e6:,.0f}",
        ]
        for row in rows.values()
    ]
    parts = [f"### {title}", measure.table(["loader", "s", "CPU s", "GB/s", "peak MB, the process"], lines)]
    for ours, theirs, most in aims:
        if ours in rows and theirs in rows:
            times = 1 / measure.ratio(rows[ours], rows[theirs])
            met = "met" if times <= most else "**not met**"
            parts.append(
                f"{ours} takes **{times:.2f}** times as long as {theirs} ({_spread(rows[ours], rows[theirs])}); "
                f"at most {most} was wanted: {met}."
            )
    parts += [f"{name} was left out: {why}." for name, why in skipped.items()]
    return "\n\n".join(parts)


def _spread(ours: measure.Row, theirs: measure.Row) -> str:
    ratios = [mine.wall_s / other.wall_s for mine, other in zip(ours.runs, theirs.runs, strict=True)]
    return f"{min(ratios):.2f}-{max(ratios):.2f}"


def safetensors_on_cpu(folder: Path, rounds: int, size_mib: int) -> str:
    """bf16 as it is, warm: hashed beside real reads; stamped beside mmap, every byte touched."""
    cases = ("ours-always", "pread", "runai", "ours-stamp", "mmap")
    with _published(folder, _bytes(size_mib), "BF16") as (file, manifest, home):
        rows, skipped = race(cases, file, manifest, home, rounds)
        size = file.stat().st_size
    rivals = [rows[name] for name in ("pread", "runai") if name in rows]
    fastest = min(rivals, key=measure.Row.median_wall_s).name
    aims = [("ours-always", fastest, 1.15), ("ours-stamp", "mmap", 1.1)]
    title = f"Load {size / 1e9:.1f} GB of bf16 safetensors onto the CPU, file in the page cache"
    return _report(title, rows, skipped, size, aims)


def cast_on_cpu(folder: Path, rounds: int, size_mib: int) -> str:
    """fp32 in the file, bf16 in memory."""
    cases = ("ours-bf16", "mmap-bf16", "ours-bf16-always", "blake3")
    with _published(folder, _bytes(size_mib), "F32") as (file, manifest, home):
        rows, skipped = race(cases, file, manifest, home, rounds)
        size = file.stat().st_size
    title = f"Load {size / 1e9:.1f} GB of fp32 safetensors as bf16 onto the CPU, file in the page cache"
    aims = [("ours-bf16", "mmap-bf16", 0.8), ("ours-bf16-always", "mmap-bf16", 0.8)]
    return _report(title, rows, skipped, size, aims)


def pickled_on_cpu(folder: Path, rounds: int, size_mib: int) -> str:
    """A `.pth`, hashed where it lies or while it is copied, beside torch's own mapping, every byte touched."""
    cases = ("ours-unproven", "torch-mmap", "ours-always", "ours-stamp", "blake3")
    with _published(folder, _bytes(size_mib), "F32", "pth") as (file, manifest, home):
        rows, skipped = race(cases, file, manifest, home, rounds)
        size = file.stat().st_size
    title = f"Load {size / 1e9:.1f} GB of `.pth` onto the CPU, file in the page cache"
    aims = [("ours-stamp", "torch-mmap", 1.0), ("ours-unproven", "torch-mmap", 1.0)]
    return _report(title, rows, skipped, size, aims)


def onto_cuda(folder: Path, rounds: int, size_mib: int) -> str:
    """fp32 in the file, bf16 on the device: hashed, beside loaders that hash nothing."""
    limits = _limits()
    if limits["to_device"] is None:
        raise measure.NotHereError("no CUDA device")
    cases = (
        "ours-cuda-always",
        "load_file-cuda",
        "ours-cuda",
        "prefetch-cuda",
        "fastsafetensors-cuda",
        "runai-cuda",
        "instanttensor-cuda",
    )
    with _published(folder, 2 * _bytes(size_mib), "F32") as (file, manifest, home):
        rows, skipped = race(cases, file, manifest, home, rounds)
        size = file.stat().st_size
    title = f"Load {size / 1e9:.1f} GB of fp32 safetensors as bf16 onto CUDA, file in the page cache"
    text = _report(title, rows, skipped, size, [("ours-cuda-always", "load_file-cuda", 1.0)])
    return (
        f"{text}\n\nLimits, in GB/s of the file: BLAKE3 on all cores {limits['blake3']:.1f}, copying in host memory "
        f"{limits['memory']:.1f}, pinned memory onto the device {limits['to_device']:.1f}."
    )


def _limits() -> dict[str, float | None]:
    """What bounds every loader here."""
    command = [sys.executable, "-m", "benchmarks.load_limits"]
    found: dict[str, float | None] = json.loads(subprocess.check_output(command, text=True))
    return found


_FETCH = """
import sys, time
import diachunk.api.loading.load as loading, diachunk
import torch, diachunk.loader.session, diachunk.api.loading.opened
way, target, home, *origins = sys.argv[1:]
started_at = time.perf_counter()
if way == "fetch":
    diachunk.fetch(target, origins=origins, home=home)
else:
    kept = loading.load(target, fetch=True, origins=origins, home=home)
print(time.perf_counter() - started_at)
"""


def while_fetching(folder: Path, rounds: int, size_mib: int) -> str:
    """Two origins behind lines of 1 Gbit/s each: the fetch alone, and the load that follows it."""
    times: dict[str, list[float]] = {"fetch": [], "load --fetch": []}
    with contextlib.ExitStack() as stack:
        file, manifest, made = stack.enter_context(_published(folder, _bytes(size_mib), "BF16"))
        size, fetch_home = file.stat().st_size, made.with_name("fetch-home")
        servers = [stack.enter_context(Nginx(file.parent)) for _ in range(2)]
        lines = [stack.enter_context(FaultProxy(each.url, Line(down_bps=_GBIT_BPS))) for each in servers]
        for number in range(rounds + 1):
            for way in times if number % 2 else reversed(times):
                shutil.rmtree(fetch_home, ignore_errors=True)
                command = [
                    sys.executable,
                    "-c",
                    _FETCH,
                    way,
                    str(manifest),
                    str(fetch_home),
                    *(each.url for each in lines),
                ]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(f"{way} failed: {done.stderr[-800:]}")
                print(f"  round {number}: {way}: {float(done.stdout):.2f} s", file=sys.stderr, flush=True)
                if number:
                    times[way].append(float(done.stdout))
    rows = {
        name: measure.Row(name, [measure.Run(each, 0.0, 0) for each in seconds])
        for name, seconds in times.items()
    }
    title = f"Load {size / 1e9:.1f} GB while fetching it, two origins of 1 Gbit/s each on loopback"
    return _report(title, rows, {}, size, [("load --fetch", "fetch", 1.05)])
