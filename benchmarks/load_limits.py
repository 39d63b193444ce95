"""What bounds a load on this machine, in GB/s: `python -m benchmarks.load_limits`, as JSON.

Hashing and copying in memory on all cores, and the way from pinned memory onto the device, if there is one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from blake3 import blake3

_BYTES = 256 << 20
_PIECE_BYTES = 4 << 20
_TIMES = 5


def _best_gbps(work: Callable[[], object], size_bytes: int = _BYTES) -> float:
    seconds = []
    for _ in range(_TIMES):
        started_at = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started_at)
    return size_bytes / min(seconds) / 1e9


def blake3_gbps() -> float:
    data = memoryview(bytearray(_BYTES))
    pieces = [data[at : at + _PIECE_BYTES] for at in range(0, _BYTES, _PIECE_BYTES)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return _best_gbps(lambda: list(pool.map(lambda piece: blake3(piece).digest(), pieces)))


def memory_gbps() -> float:
    source, target = torch.ones(_BYTES, dtype=torch.uint8), torch.ones(_BYTES, dtype=torch.uint8)
    return _best_gbps(lambda: target.copy_(source))


def to_device_gbps() -> float | None:
    if not torch.cuda.is_available():
        return None
    source = torch.ones(_BYTES, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(_BYTES, dtype=torch.uint8, device="cuda")

    def copy() -> None:
        target.copy_(source, non_blocking=True)
        torch.cuda.synchronize()

    copy()
    return _best_gbps(copy)


def main() -> None:
    found = {"blake3": blake3_gbps(), "memory": memory_gbps(), "to_device": to_device_gbps()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
