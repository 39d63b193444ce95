"""One load in a process of its own: `python -m benchmarks.load_case CASE FILE TARGET`, prints what it took as JSON.

What is timed begins after the imports, with the first cast behind: all contenders use torch, and pay alike for that.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from blake3 import blake3

from benchmarks.load_quiet import Watch
from diachunk.loader.memory import available_bytes

Tensors = Mapping[str, torch.Tensor]
_PIECE_BYTES = 4 << 20
_RESIDENT_BYTES = 256 << 20
"""More than any cache holds."""
_HAD_TIMES = 1.25
"""Of the file's size."""


def touch(tensors: Tensors) -> Tensors:
    """Reads every byte, on all cores: what a mapped tensor has not paid for yet. By threads of its own with one core
    each: torch's wait for each other in a loop, and one that gets no core costs the others a second.
    """
    torch.set_num_threads(1)
    pieces = []
    for tensor in tensors.values():
        flat = tensor.reshape(-1).view(torch.uint8)
        whole = flat.numel() // 8 * 8
        words = (
            flat[:whole].view(torch.int64)
            if not flat.storage_offset() % 8 and not flat.data_ptr() % 8
            else flat
        )
        step = _PIECE_BYTES // words.dtype.itemsize
        pieces += [words[at : at + step] for at in range(0, words.numel(), step)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(torch.Tensor.sum, pieces))
    return tensors


def _blake3(path: str) -> None:
    """What a load that hashes cannot be faster than: the hash alone, of as many bytes that are in memory already."""
    size = os.stat(path).st_size
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(
            pool.map(
                lambda at: blake3(_resident()[at % _RESIDENT_BYTES :][:_PIECE_BYTES]).digest(),
                range(0, size, _PIECE_BYTES),
            )
        )


@functools.cache
def _resident() -> memoryview:
    return memoryview(os.urandom(1 << 20) * (_RESIDENT_BYTES >> 20))


def _ours(target: str, dtype: str | None, verify: str) -> Tensors:
    import diachunk.api.loading.files as load_files
    import diachunk.api.loading.load as loading

    if verify == "unproven":
        # as after a reboot of a machine whose stamps were lost: everything is hashed, where it lies
        load_files._stamp_of = lambda store, facts, holding: None
    return loading.load(target, dtype=dtype, verify="always" if verify == "always" else "stamp")


def _load_file(path: str, backend: str = "mmap") -> Tensors:
    from safetensors.torch import load_file

    return load_file(path, backend=backend)


def _runai(path: str) -> Tensors:
    """As its documentation has it: every tensor is a view of the streamer's own buffer, so it is copied out."""
    library = importlib.import_module("runai_model_streamer")
    found = {}
    with library.SafetensorsStreamer() as streamer:
        streamer.stream_file(path)
        for name, tensor in streamer.get_tensors():
            found[name] = tensor.clone()
    return found


def _as_bf16(tensors: Iterable[tuple[str, torch.Tensor]]) -> Tensors:
    """bf16 on the device, and done there. Each tensor is cast as it comes: where it is a view of a loader's own ring,
    that is the copy which its documentation asks for.
    """
    found = {
        name: tensor.to("cuda", torch.bfloat16) if tensor.is_floating_point() else tensor.to("cuda").clone()
        for name, tensor in tensors
    }
    torch.cuda.synchronize()
    return found


def _ours_on_cuda(target: str, verify: str) -> Tensors:
    import diachunk.api.loading.load as loading

    found = loading.load(
        target, device="cuda", dtype="bf16", verify="always" if verify == "always" else "stamp"
    )
    torch.cuda.synchronize()
    return found


def _load_file_on_cuda(path: str) -> Tensors:
    from safetensors.torch import load_file

    return _as_bf16(load_file(path, device="cuda").items())


def _prefetch_on_cuda(path: str) -> Tensors:
    library = importlib.import_module("safetensors")
    with (
        library.safe_open(path, framework="pt", device="cuda:0") as file,
        file.prefetch() as running,
    ):
        return _as_bf16(running)


def _runai_on_cuda(path: str) -> Tensors:
    library = importlib.import_module("runai_model_streamer")
    with library.SafetensorsStreamer() as streamer:
        streamer.stream_file(path)
        return _as_bf16(streamer.get_tensors())


def _fastsafetensors(path: str) -> Tensors:
    library = importlib.import_module("fastsafetensors")
    with library.fastsafe_open(filenames=[path], nogds=True, device="cuda:0") as file:
        return _as_bf16((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118 - it is no dict


def _instanttensor(path: str) -> Tensors:
    library = importlib.import_module("instanttensor")
    with library.safe_open(path, framework="pt", device=0) as file:
        return _as_bf16(file.tensors())


def _torch_load(path: str) -> Tensors:
    found: Tensors = torch.load(path, mmap=True, weights_only=True)
    return found


CASES: Mapping[str, Callable[[str, str], object]] = {
    "ours-always": lambda path, target: _ours(target, None, "always"),
    "ours-stamp": lambda path, target: touch(_ours(target, None, "stamp")),
    "ours-bf16": lambda path, target: _ours(target, "bf16", "stamp"),
    "ours-unproven": lambda path, target: touch(_ours(target, None, "unproven")),
    "ours-bf16-always": lambda path, target: _ours(target, "bf16", "always"),
    "pread": lambda path, target: _load_file(path, "pread"),
    "mmap": lambda path, target: touch(_load_file(path)),
    "mmap-bf16": lambda path, target: {
        name: tensor.to(torch.bfloat16) for name, tensor in _load_file(path).items()
    },
    "runai": lambda path, target: _runai(path),
    "ours-cuda": lambda path, target: _ours_on_cuda(target, "stamp"),
    "ours-cuda-always": lambda path, target: _ours_on_cuda(target, "always"),
    "load_file-cuda": lambda path, target: _load_file_on_cuda(path),
    "prefetch-cuda": lambda path, target: _prefetch_on_cuda(path),
    "runai-cuda": lambda path, target: _runai_on_cuda(path),
    "fastsafetensors-cuda": lambda path, target: _fastsafetensors(path),
    "instanttensor-cuda": lambda path, target: _instanttensor(path),
    "torch-mmap": lambda path, target: touch(_torch_load(path)),
    "blake3": lambda path, target: _blake3(path),
}


NEEDS: Mapping[str, tuple[str, str]] = {
    "runai": ("runai_model_streamer", "SafetensorsStreamer"),
    "fastsafetensors": ("fastsafetensors", "fastsafe_open"),
    "instanttensor": ("instanttensor", "safe_open"),
    "prefetch": ("safetensors", "safe_open.prefetch"),
}
"""What a case cannot do without, by the first word of its name: a module, and what it must have."""


def _missing(case: str) -> str:
    """Why this case cannot run here; "" if it can."""
    module, path = NEEDS.get(case.split("-")[0], ("", ""))
    try:
        found: object = importlib.import_module(module) if module else None
        for name in filter(None, path.split(".")):
            found = getattr(found, name)
        if case.endswith("-cuda") or "-cuda-" in case:
            torch.zeros(1, device="cuda")
    except (ImportError, AttributeError, AssertionError, RuntimeError, OSError) as error:
        return str(error).splitlines()[0]
    return ""


def _warm_up(*, cuda: bool = False) -> None:
    """Imports and one-time set-up, for everybody."""
    import safetensors.torch

    import diachunk.api.loading.opened
    import diachunk.loader.session

    assert diachunk.loader.session
    assert safetensors.torch
    torch.ones(200_000).to(torch.bfloat16)
    if cuda:
        torch.ones(200_000).pin_memory().to("cuda", non_blocking=True).to(torch.bfloat16)
        torch.cuda.synchronize()


_GET_MEMORY = """
import mmap, sys
with mmap.mmap(-1, int(sys.argv[1]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    for at in range(0, len(pages), mmap.PAGESIZE):
        pages[at] = 1
"""


def _get_memory(size_bytes: int) -> None:
    """Has the system get more memory than the load will take, and gives it back at once. A virtual machine that returns
    free pages to its host (page_reporting) gets them again at a tenth of the speed, or a twentieth where they are huge:
    that would be most of what is measured, and not the loader's. In a process of its own: this one's peak is measured.
    """
    subprocess.run([sys.executable, "-S", "-c", _GET_MEMORY, str(size_bytes)], check=True)


def main() -> None:
    case, path, target = sys.argv[1:]
    if missing := _missing(case):
        print(json.dumps({"missing": missing}))
        return
    _warm_up(cuda="-cuda" in case)
    if case == "blake3":
        _resident()
    _get_memory(min(int(_HAD_TIMES * os.stat(path).st_size), (available_bytes() or 0) * 3 // 4))
    watch, started_at, cpu_before_s = Watch(), time.perf_counter(), time.process_time()
    kept = CASES[case](path, target)
    wall_s, cpu_s = time.perf_counter() - started_at, time.process_time() - cpu_before_s
    said = {
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "others_share": watch.others_share(),
    }
    print(json.dumps(said))
    del kept


if __name__ == "__main__":
    main()
