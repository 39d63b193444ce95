"""The memory that tensors on the host get, and how many threads a lane computes with."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
import torch

from diachunk.limits import MiB
from diachunk.loader import host
from diachunk.loader.host import Slabs, one_core_each


def test_tensors_of_a_slab_have_storages_of_their_own_and_do_not_overlap() -> None:
    slabs = Slabs()
    sizes = [64 * 1024, 100_001, 3 * MiB, 65_537, *[2 * MiB + 1] * 20]
    found = [slabs.allocate(size, torch.uint8) for size in sizes]
    for number, tensor in enumerate(found):
        assert tensor.untyped_storage().nbytes() == sizes[number]
        assert not tensor.data_ptr() % 64
        tensor.fill_(number)
    assert all(bool((tensor == number).all()) for number, tensor in enumerate(found))


@pytest.mark.parametrize("elements", [0, 1, 50_000, 1_000_000, 3_000_000])
def test_every_size_and_dtype_may_be_written_to(elements: int) -> None:
    for dtype in (torch.bfloat16, torch.float64, torch.complex64, torch.bool):
        tensor = Slabs().allocate(elements, dtype)
        tensor.zero_()
        assert (tensor.numel(), tensor.dtype) == (elements, dtype)


def test_a_slab_is_freed_with_its_last_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    slabs = Slabs()
    if slabs._advise is None:
        pytest.skip("no huge pages here: no slabs")
    first, second = slabs.allocate(100_000, torch.float32), slabs.allocate(100_000, torch.float32)
    assert slabs._slab is not None
    slab = weakref.ref(slabs._slab)
    del slabs, first
    gc.collect()
    assert slab() is not None
    del second
    gc.collect()
    assert slab() is None


def test_no_room_for_a_slab_is_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_SLAB_BYTES", 1 << 60)
    slabs = Slabs()
    if slabs._advise is None:
        pytest.skip("no huge pages here: no slabs")
    with pytest.raises(MemoryError):
        slabs.allocate(100_000, torch.float32)


def test_a_lane_computes_alone_and_leaves_the_others_their_threads() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []

    def lane() -> None:
        one_core_each()
        seen.append(torch.get_num_threads())

    for run in (lane, lambda: seen.append(torch.get_num_threads())):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert seen[0] == (1 if host._openmp is not None else before)
    assert seen[1] == torch.get_num_threads() == before
