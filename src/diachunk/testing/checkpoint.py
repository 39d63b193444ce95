"""A two-component, Dia-shaped checkpoint of seeded random weights: real names, real or scaled-down shapes.

    python -m diachunk.testing.checkpoint DIR [--scale S | --full] [--seed SEED]

The same bytes on every machine, so that tests, the demo and benchmarks need no download and can name digests.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

from blake3 import blake3

from diachunk.testing.containers import Progress, write_safetensors, write_sharded, write_torch_zip
from diachunk.testing.weights import TensorSpec

__all__ = [
    "DEMO_SCALE",
    "LAYOUTS",
    "TensorSpec",
    "layout",
    "make_dia",
    "revise",
    "total_bytes",
    "write_safetensors",
    "write_sharded",
    "write_torch_zip",
]

LAYOUTS = ("dia_tf", "dia_native", "dac_tf", "dac_native")
"""Dia-1.6B and the DAC 44 kHz codec: named as in transformers (`_tf`) or their own packages (`_native`)."""

DEMO_SCALE = 0.0444
"""About 300 MB: 286 MB of model, 14 MB of vocoder."""

_WIDTH_MIN = 64  # smaller dimensions are kernels, heads, codebooks: not widths
_FULL_MODEL_BYTES = 6_444_642_304
_FULL_SHARD_BYTES = 5_000_000_000
_INSERTED_SHAPE = (300, 301)  # over 256 KiB as F32, so a chunk of its own; its size aligns with nothing


def layout(name: str, *, scale: float = 1.0) -> tuple[TensorSpec, ...]:
    """The tensors of a real model, in its own order.

    Args:
        name: one of `LAYOUTS`.
        scale: total bytes, as a fraction of the real model. Widths shrink by its square root, each width
            everywhere alike; names, count, kernels and heads stay, so very small scales come out larger.

    Raises:
        ValueError: an unknown name, or a scale outside (0, 1].
    """
    if name not in LAYOUTS:
        raise ValueError(f"no such layout: {name} (known: {', '.join(LAYOUTS)})")
    if not 0 < scale <= 1:
        raise ValueError(f"scale must be over 0 and at most 1: {scale}")
    text = resources.files("diachunk.testing").joinpath("layouts", f"{name}.json").read_text("utf-8")
    factor = math.sqrt(scale)

    def shrunk(size: int) -> int:
        return size if size < _WIDTH_MIN else max(1, round(size * factor))

    return tuple(
        TensorSpec(tensor, dtype, tuple(map(shrunk, shape)))
        for tensor, (dtype, shape) in json.loads(text).items()
    )


def total_bytes(specs: Sequence[TensorSpec]) -> int:
    """What the tensors' values come to, without headers."""
    return sum(spec.size_bytes for spec in specs)


def revise(
    specs: Sequence[TensorSpec], *, changed: float = 0.1, prefix: str = "v2.", generation: int = 1
) -> tuple[TensorSpec, ...]:
    """The next version of a checkpoint: every tensor renamed, some with new values, one inserted.

    Args:
        changed: at most this fraction of the bytes gets new values (and nearly as much, where each tensor is
            small against the whole). Which ones is drawn by their names.
        prefix: put before every name; unchanged tensors keep their values under it.
        generation: what the changed tensors' own is raised by.
    """
    budget_bytes = int(total_bytes(specs) * changed)
    chosen: set[str] = set()
    for spec in sorted(specs, key=lambda spec: blake3(f"revise/{spec.name}".encode()).digest()):
        if spec.size_bytes <= budget_bytes:
            chosen.add(spec.name)
            budget_bytes -= spec.size_bytes
    renamed = [
        replace(
            spec,
            name=prefix + spec.name,
            source=spec.seed_name,
            generation=spec.generation + (generation if spec.name in chosen else 0),
        )
        for spec in specs
    ]
    # "adapter" sorts before the layouts' own names, so that it moves every other tensor in the file
    inserted = TensorSpec(f"{prefix}adapter.weight", "F32", _INSERTED_SHAPE)
    return (renamed[0], inserted, *renamed[1:]) if renamed else (inserted,)


def make_dia(
    directory: Path, *, scale: float = 1.0, seed: str = "dia", progress: Progress | None = None
) -> None:
    """Writes `model/` (config, two shards, index) and `vocoder/` (config, one file) under `directory`.

    Args:
        scale: 1.0 is the real size, 6.75 GB; see `layout`.
        progress: called with byte deltas; they sum to `dia_bytes(scale)`.
    """
    model, vocoder = layout("dia_tf", scale=scale), layout("dac_tf", scale=scale)
    for component, name in (("model", "dia_tf"), ("vocoder", "dac_tf")):
        (directory / component).mkdir(parents=True, exist_ok=True)
        config = {
            "note": "seeded random weights in the shape of a real model, for tests and benchmarks",
            "layout": name,
            "scale": scale,
            "seed": seed,
        }
        (directory / component / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    # in proportion to the scaled model, not to the scale, so that there are two shards at any scale
    max_shard_bytes = total_bytes(model) * _FULL_SHARD_BYTES // _FULL_MODEL_BYTES
    write_sharded(directory / "model", model, seed=seed, max_shard_bytes=max_shard_bytes, progress=progress)
    write_safetensors(
        directory / "vocoder" / "model.safetensors",
        vocoder,
        seed=seed,
        metadata={"format": "pt"},
        progress=progress,
    )


def dia_bytes(scale: float) -> int:
    """The tensor bytes that `make_dia` writes at this scale."""
    return total_bytes(layout("dia_tf", scale=scale)) + total_bytes(layout("dac_tf", scale=scale))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the head of this module."""
    parser = argparse.ArgumentParser(prog="python -m diachunk.testing.checkpoint", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIR")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--scale", type=float, default=DEMO_SCALE, help="of the real 6.75 GB (%(default)s)")
    size.add_argument("--full", action="store_const", const=1.0, dest="scale", help="the real size")
    parser.add_argument("--seed", default="dia")
    options = parser.parse_args(arguments)
    if not 0 < options.scale <= 1:
        parser.error("--scale must be over 0 and at most 1")
    try:
        import numpy as _  # noqa: F401 - only to say, before anything is written, how to get it
    except ModuleNotFoundError:
        parser.error("numpy is needed: pip install 'diachunk[demo]'")

    total, done, shown = dia_bytes(options.scale), 0, -1

    def show(count: int) -> None:
        nonlocal done, shown
        done += count
        percent = done * 100 // total
        if percent != shown and sys.stderr.isatty():
            print(f"\r{done / 1e6:,.0f} of {total / 1e6:,.0f} MB", end="", file=sys.stderr, flush=True)
        shown = percent

    make_dia(options.directory, scale=options.scale, seed=options.seed, progress=show)
    start = "\r" if sys.stderr.isatty() else ""
    print(f"{start}{total / 1e6:,.0f} MB of random weights in {options.directory}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
