"""From chunks to tensors: which bytes of a chunk belong where, and which tensors are complete.

Storages are allocated when their first byte arrives and handed out when their last one is in place. Chunks may begin
anywhere (a manifest may cut a file as it likes), so elements that two chunks share are put together here.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence

import torch

from diachunk.loader.blob import Blob
from diachunk.loader.device import Device, Piece
from diachunk.loader.layout import Layout, Storage, View


class Landing:
    """The destination of one load. Called from several lanes at once.

    `dtypes[n]` is what storage n becomes. `told` is called with the number of each storage that is complete.
    """

    def __init__(
        self,
        layout: Layout,
        dtypes: Sequence[torch.dtype],
        device: Device,
        told: Callable[[int], None] = lambda storage: None,
    ) -> None:
        self.layout = layout
        self.dtypes = tuple(dtypes)
        self._device = device
        self._told = told
        self._lock = threading.Lock()
        self._tensors: dict[int, torch.Tensor] = {}
        self._left = [storage.size for storage in layout.storages]
        self._seams: dict[tuple[int, int], tuple[bytearray, list[int]]] = {}
        self._by_file: dict[int, list[int]] = {}
        for number, storage in sorted(enumerate(layout.storages), key=lambda each: each[1].offset):
            if storage.size:
                self._by_file.setdefault(storage.file, []).append(number)
        self._starts = {
            file: array("Q", (layout.storages[number].offset for number in numbers))
            for file, numbers in self._by_file.items()
        }

    # --- what belongs where --------------------------------------------------------------------------------

    def storages_in(self, file: int, start: int, end: int) -> list[int]:
        """The storages that have bytes in [start, end) of a file, in its order."""
        numbers = self._by_file.get(file)
        if numbers is None:
            return []
        at = max(0, bisect_right(self._starts[file], start) - 1)
        found = []
        while at < len(numbers) and (storage := self.layout.storages[numbers[at]]).offset < end:
            if storage.end > start:
                found.append(numbers[at])
            at += 1
        return found

    def casts(self, number: int) -> bool:
        return self.dtypes[number] != self.layout.storages[number].dtype

    def target(self, number: int) -> torch.Tensor:
        """A storage's memory, one dimension: elements of the wanted dtype, or bytes where nothing is cast."""
        with self._lock:
            tensor = self._tensors.get(number)
            if tensor is None:
                storage, dtype = self.layout.storages[number], self.dtypes[number]
                cast = self.casts(number)
                elements, kind = (storage.elements, dtype) if cast else (storage.size, torch.uint8)
                tensor = self._tensors[number] = self._device.allocate(elements, kind)
            return tensor

    def direct(self, blob: Blob, file: int, chunk: int) -> torch.Tensor | None:
        """Where a chunk may be read to at once: it lies in one storage, which is in host memory and not cast."""
        if not self._device.is_host:
            return None
        start, end = blob.facts.chunks.offsets[chunk], blob.facts.chunks.offsets[chunk + 1]
        inside = self.storages_in(file, start, end)
        if len(inside) != 1 or self.casts(inside[0]):
            return None
        storage = self.layout.storages[inside[0]]
        if not storage.offset <= start < end <= storage.end:
            return None
        return self.target(inside[0])[start - storage.offset : end - storage.offset]

    def pieces(self, blob: Blob, file: int, chunk: int, data: memoryview) -> list[Piece]:
        """What of a chunk goes where. Elements cut in two by its ends are kept until their other part comes."""
        start, end = blob.facts.chunks.offsets[chunk], blob.facts.chunks.offsets[chunk + 1]
        found = []
        for number in self.storages_in(file, start, end):
            if self.is_complete(number):
                continue  # mapped, and maybe handed out: what is written there now may be the caller's
            storage = self.layout.storages[number]
            first, last = max(start, storage.offset), min(end, storage.end)
            target = self.target(number)
            if not self.casts(number):
                place = target[first - storage.offset : last - storage.offset]
                found.append(Piece(first - start, last - first, torch.uint8, place))
                continue
            piece = self._whole_elements(number, storage, target, data, start, first, last)
            if piece is not None:
                found.append(piece)
        return found

    def _whole_elements(
        self,
        number: int,
        storage: Storage,
        target: torch.Tensor,
        data: memoryview,
        start: int,
        first: int,
        last: int,
    ) -> Piece | None:
        width = storage.dtype.itemsize
        # What follows the last whole element of a storage belongs to no element.
        last = min(last, storage.offset + storage.elements * width)
        head = -(-(first - storage.offset) // width)
        tail = (last - storage.offset) // width
        body_first, body_last = storage.offset + head * width, storage.offset + tail * width
        if first < min(body_first, last):
            self._keep(number, storage, first, data[first - start : min(body_first, last) - start])
        if body_last >= body_first and body_last < last:
            self._keep(number, storage, body_last, data[body_last - start : last - start])
        if body_last <= body_first:
            return None
        return Piece(body_first - start, body_last - body_first, storage.dtype, target[head:tail])

    def _keep(self, number: int, storage: Storage, at: int, part: memoryview) -> None:
        """Part of an element. Once all of it is here, it is cast by itself."""
        width = storage.dtype.itemsize
        element, inside = divmod(at - storage.offset, width)
        with self._lock:
            held, counted = self._seams.setdefault((number, element), (bytearray(width), [0]))
            held[inside : inside + len(part)] = part
            counted[0] += len(part)
            if counted[0] < width:
                return
            del self._seams[number, element]
            tensor = self._tensors[number]
        tensor[element : element + 1].copy_(torch.frombuffer(held, dtype=storage.dtype))

    def tell_empty(self) -> None:
        """Storages without bytes are complete before anything arrives."""
        for number, storage in enumerate(self.layout.storages):
            if not storage.size:
                self._told(number)

    # --- what is complete ----------------------------------------------------------------------------------

    def arrived(self, blob: Blob, file: int, chunk: int) -> int:
        """All of a chunk is in place. Returns how many of its bytes are tensors'."""
        start, end = blob.facts.chunks.offsets[chunk], blob.facts.chunks.offsets[chunk + 1]
        complete: list[int] = []
        landed = 0
        with self._lock:
            for number in self.storages_in(file, start, end):
                if not self._left[number]:
                    continue  # mapped: counted by `complete`
                storage = self.layout.storages[number]
                size = min(end, storage.end) - max(start, storage.offset)
                landed += size
                self._left[number] -= size
                if not self._left[number]:
                    complete.append(number)
        for number in complete:
            self._told(number)
        return landed

    def is_complete(self, number: int) -> bool:
        return not self._left[number]

    def lend(self, number: int, flat: torch.Tensor) -> None:
        """The memory of a storage that is not copied: bytes of a mapped file. Not complete by that."""
        with self._lock:
            self._tensors[number] = flat

    def complete(self, number: int) -> int:
        """All of a storage is there, and right. Returns how many of its bytes were missing before."""
        with self._lock:
            left, self._left[number] = self._left[number], 0
        self._told(number)
        return left

    def tensor(self, view: View) -> torch.Tensor:
        """A tensor of a complete storage."""
        flat = self.target(view.storage)
        dtype = self.dtypes[view.storage] if self.casts(view.storage) else view.dtype
        first = flat.storage_offset() * flat.dtype.itemsize // dtype.itemsize + view.start
        with torch.no_grad():
            tensor = torch.empty(0, dtype=dtype, device=flat.device)
            tensor.set_(flat.untyped_storage(), first, view.shape, view.stride)
        if view.conjugated:
            tensor = tensor.conj()
        return torch._neg_view(tensor) if view.negated else tensor

    def let_go(self, number: int) -> None:
        """Whoever wanted the storage has it."""
        with self._lock:
            self._tensors.pop(number, None)

    def release(self) -> None:
        """Frees everything."""
        with self._lock:
            self._tensors.clear()
            self._seams.clear()


def target_dtypes(layout: Layout, becomes: Callable[[View], torch.dtype]) -> list[torch.dtype]:
    """What each storage becomes. Tensors that share one stay together: if one of them keeps its dtype, all do."""
    wanted: dict[int, set[torch.dtype]] = {}
    own: dict[int, set[torch.dtype]] = {}
    for view in layout.views:
        wanted.setdefault(view.storage, set()).add(becomes(view))
        own.setdefault(view.storage, set()).add(view.dtype)
    found = []
    for number, storage in enumerate(layout.storages):
        single = len(wanted[number]) == 1 and own[number] == {storage.dtype}
        found.append(next(iter(wanted[number])) if single else storage.dtype)
    return found
