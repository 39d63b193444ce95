"""Loading onto the CPU and onto CUDA beside other loaders, and load while fetching.

    python -m benchmarks.load [--rounds N] [--size-mib N] [--only load,load-cast,load-pth,load-fetch,load-cuda]

Every load runs in a process of its own; what is compared are medians of the rounds' ratios. The files lie where they
were made, and the store knows them (adopted): nothing is there twice.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
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


def specs_of(size_bytes: int, dtype: str) -> tuple[TensorSpec, ...]:
    """Dia's tensors in this dtype, about so many bytes."""
    width = 4 if dtype == "F32" else 2
    scale = min(1.0, size_bytes / (_DIA_BYTES * width / 4))
    return tuple(replace(spec, dtype=dtype) for spec in layout("dia_tf", scale=scale))


def _published(folder: Path, name: str, size_bytes: int, dtype: str, suffix: str) -> tuple[Path, Path]:
    """(file, manifest); the store under `folder` has a copy, since only its own files are mapped."""
    file, manifest = folder / name / f"model.{suffix}", folder / f"{name}.json"
    if not manifest.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        specs = specs_of(size_bytes, dtype)
        write = write_torch_zip if suffix == "pth" else write_safetensors
        write(file, specs, seed="load")
        diachunk.publish([file], name=f"bench/{name}", copy=True, out=manifest, home=folder / "home")
    return file, manifest


def _run(case: str, file: Path, manifest: Path, home: Path) -> measure.Run | str:
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
    return measure.Run(said["wall_s"], said["cpu_s"], said["peak_bytes"])


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
            run, thrown = undisturbed(functools.partial(_run, case, file, manifest, home))
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
    size = size_mib * 1024 * 1024
    file, manifest = _published(folder, "bf16", size, "BF16", "safetensors")
    cases = ("ours-always", "pread", "runai", "ours-stamp", "mmap")
    rows, skipped = race(cases, file, manifest, folder / "home", rounds)
    rivals = [rows[name] for name in ("pread", "runai") if name in rows]
    fastest = min(rivals, key=measure.Row.median_wall_s).name
    aims = [("ours-always", fastest, 1.15), ("ours-stamp", "mmap", 1.1)]
    title = (
        f"Load {file.stat().st_size / 1e9:.1f} GB of bf16 safetensors onto the CPU, file in the page cache"
    )
    return _report(title, rows, skipped, file.stat().st_size, aims)


def cast_on_cpu(folder: Path, rounds: int, size_mib: int) -> str:
    """fp32 in the file, bf16 in memory."""
    size = size_mib * 1024 * 1024
    file, manifest = _published(folder, "fp32", size, "F32", "safetensors")
    cases = ("ours-bf16", "mmap-bf16", "ours-bf16-always", "blake3")
    rows, skipped = race(cases, file, manifest, folder / "home", rounds)
    title = f"Load {file.stat().st_size / 1e9:.1f} GB of fp32 safetensors as bf16 onto the CPU, file in the page cache"
    aims = [("ours-bf16", "mmap-bf16", 0.8), ("ours-bf16-always", "mmap-bf16", 0.8)]
    return _report(title, rows, skipped, file.stat().st_size, aims)


def pickled_on_cpu(folder: Path, rounds: int, size_mib: int) -> str:
    """A `.pth`, hashed where it lies or while it is copied, beside torch's own mapping, every byte touched."""
    size = size_mib * 1024 * 1024
    file, manifest = _published(folder, "pth", size, "F32", "pth")
    cases = ("ours-unproven", "torch-mmap", "ours-always", "ours-stamp", "blake3")
    rows, skipped = race(cases, file, manifest, folder / "home", rounds)
    title = f"Load {file.stat().st_size / 1e9:.1f} GB of `.pth` onto the CPU, file in the page cache"
    aims = [("ours-stamp", "torch-mmap", 1.0), ("ours-unproven", "torch-mmap", 1.0)]
    return _report(title, rows, skipped, file.stat().st_size, aims)


def onto_cuda(folder: Path, rounds: int, size_mib: int) -> str:
    """fp32 in the file, bf16 on the device: hashed, beside loaders that hash nothing."""
    size = 2 * size_mib * 1024 * 1024
    file, manifest = _published(folder, "fp32-cuda", size, "F32", "safetensors")
    cases = (
        "ours-cuda-always",
        "load_file-cuda",
        "ours-cuda",
        "prefetch-cuda",
        "fastsafetensors-cuda",
        "runai-cuda",
        "instanttensor-cuda",
    )
    rows, skipped = race(cases, file, manifest, folder / "home", rounds)
    title = f"Load {file.stat().st_size / 1e9:.1f} GB of fp32 safetensors as bf16 onto CUDA, file in the page cache"
    text = _report(title, rows, skipped, file.stat().st_size, [("ours-cuda-always", "load_file-cuda", 1.0)])
    return f"{text}\n\n{limits()}" if rows else text


def limits() -> str:
    """What bounds every loader here."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load_limits"], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    onto = f", pinned memory onto the device {found['to_device']:.1f}" if found["to_device"] else ""
    return (
        f"Limits, in GB/s of the file: BLAKE3 on all cores {found['blake3']:.1f}, "
        f"copying in host memory {found['memory']:.1f}{onto}."
    )


_FETCH = """
import sys, time
import diachunk.api.loading as loading, diachunk
import torch, diachunk.loader.session, diachunk.api.load_opened
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
    file, manifest = _published(folder, "bf16", size_mib * 1024 * 1024, "BF16", "safetensors")
    times: dict[str, list[float]] = {"fetch": [], "load --fetch": []}
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Nginx(file.parent)) for _ in range(2)]
        lines = [stack.enter_context(FaultProxy(each.url, Line(down_bps=_GBIT_BPS))) for each in servers]
        for number in range(rounds + 1):
            for way in times if number % 2 else reversed(times):
                home = folder / "fetch-home"
                shutil.rmtree(home, ignore_errors=True)
                command = [
                    sys.executable,
                    "-c",
                    _FETCH,
                    way,
                    str(manifest),
                    str(home),
                    *(each.url for each in lines),
                ]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(f"{way} failed: {done.stderr[-800:]}")
                print(f"  round {number}: {way}: {float(done.stdout):.2f} s", file=sys.stderr, flush=True)
                if number:
                    times[way].append(float(done.stdout))
        shutil.rmtree(home, ignore_errors=True)
    rows = {
        name: measure.Row(name, [measure.Run(each, 0.0, 0) for each in seconds])
        for name, seconds in times.items()
    }
    title = (
        f"Load {file.stat().st_size / 1e9:.1f} GB while fetching it, two origins of 1 Gbit/s each on loopback"
    )
    return _report(title, rows, {}, file.stat().st_size, [("load --fetch", "fetch", 1.05)])


PARTS: dict[str, Callable[[Path, int, int], str]] = {
    "load": safetensors_on_cpu,
    "load-cast": cast_on_cpu,
    "load-pth": pickled_on_cpu,
    "load-fetch": while_fetching,
    "load-cuda": onto_cuda,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size-mib", type=int, default=3072)
    parser.add_argument("--only", default="load,load-cast,load-pth,load-fetch")
    arguments = parser.parse_args()
    started_at = time.monotonic()
    with tempfile.TemporaryDirectory(
        prefix="diachunk-bench-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None
    ) as folder:
        for name in arguments.only.split(","):
            print(PARTS[name](Path(folder), arguments.rounds, arguments.size_mib) + "\n", flush=True)
    print(f"{time.monotonic() - started_at:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
