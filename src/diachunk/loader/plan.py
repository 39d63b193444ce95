"""What a load is going to do, before it does anything: which chunks, how much memory, whether that can fit."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from diachunk.errors import LoadError
from diachunk.limits import CHUNK_BYTES, MiB
from diachunk.loader.blob import Blob
from diachunk.loader.device import Device
from diachunk.loader.dtypes import cast_of, matches, short
from diachunk.loader.events import LoadPlan
from diachunk.loader.landing import Landing
from diachunk.loader.lanes import lane_count
from diachunk.loader.layout import Layout, View
from diachunk.loader.memory import available_bytes
from diachunk.loader.queued import BUFFERS_A_LANE

_SPARE_BYTES = 16 * MiB


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the caller asked for.

    Attributes:
        label: how people know the component: "NAME@REV vocoder".
        everything: all tensors of the component: then the whole files are verified, gaps and all.
    """

    label: str
    component: str
    device: Device
    dtype: torch.dtype | None = None
    keep_dtype: tuple[str, ...] = ()
    everything: bool = True

    def becomes(self, name: str, own: torch.dtype) -> torch.dtype:
        """The dtype that a tensor of dtype `own` is to have."""
        return own if matches(name, self.keep_dtype) else cast_of(own, self.dtype)

    def becomes_of(self, view: View) -> torch.dtype:
        return self.becomes(view.name, view.dtype)


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to do.

    Attributes:
        mapped: storages that are mapped instead of being copied.
        in_place: files whose mapped pages are hashed where they are.
        jobs: (rank, file, chunk), sorted: chunks in the order in which the tensors want them, each once.
    """

    mapped: frozenset[int]
    in_place: frozenset[int]
    jobs: tuple[tuple[int, int, int], ...]


def list_work(wanted: Wanted, layout: Layout, blobs: Sequence[Blob], landing: Landing) -> Work:
    """Which storages are mapped, and which chunks are read for the others, or hashed where they are."""
    mapped = _mappable(wanted.device, layout, landing, [blob.trusted and blob.mappable for blob in blobs])
    copied = {each.file for number, each in enumerate(layout.storages) if landing.casts(number)}
    in_place = frozenset(
        file
        for file, blob in enumerate(blobs)
        if blob.mappable and not blob.trusted and file not in copied and wanted.device.is_host
    )
    hashed = _mappable(wanted.device, layout, landing, [file in in_place for file in range(len(blobs))])
    # A file is hashed in place as a whole, or not at all.
    odd = {each.file for number, each in enumerate(layout.storages) if each.size and number not in hashed}
    in_place -= odd
    rank: dict[int, int] = {}
    for number, view in enumerate(layout.views):
        rank.setdefault(view.storage, number)
    jobs: list[tuple[int, int, int]] = []
    for file, blob in enumerate(blobs):
        offsets = blob.facts.chunks.offsets
        for chunk in _looked_at(wanted, layout, file, blob):
            inside = landing.storages_in(file, offsets[chunk], offsets[chunk + 1])
            ranks = [rank[number] for number in inside if number not in mapped]
            if ranks:
                jobs.append((min(ranks), file, chunk))
            elif not inside and not blob.trusted and wanted.everything and chunk not in blob.verified:
                jobs.append((len(layout.views), file, chunk))
    mapped |= {number for number in hashed if layout.storages[number].file in in_place}
    return Work(mapped, in_place, tuple(sorted(jobs)))


def _looked_at(wanted: Wanted, layout: Layout, file: int, blob: Blob) -> Iterable[int]:
    """The chunks of a file that may be wanted: who asks for one tensor of thousands does not pay for all of them."""
    if wanted.everything or len(layout.storages) > len(blob.facts.chunks):
        return range(len(blob.facts.chunks))
    offsets = blob.facts.chunks.offsets
    inside = {
        chunk
        for each in layout.storages
        if each.file == file and each.size
        for chunk in range(bisect_right(offsets, each.offset) - 1, bisect_left(offsets, each.end))
    }
    return sorted(inside)


def _mappable(device: Device, layout: Layout, landing: Landing, files: Sequence[bool]) -> frozenset[int]:
    """Storages of these files that can be mapped: onto the host, not cast, their elements aligned."""
    if not device.is_host:
        return frozenset()
    return frozenset(
        number
        for number, each in enumerate(layout.storages)
        if each.size
        and files[each.file]
        and not landing.casts(number)
        and not each.offset % each.dtype.itemsize
    )


def make_plan(
    wanted: Wanted, layout: Layout, blobs: Sequence[Blob], landing: Landing, work: Work
) -> LoadPlan:
    """The figures, as they are told before the load starts."""
    sizes = [
        each.elements * landing.dtypes[number].itemsize if landing.casts(number) else each.size
        for number, each in enumerate(layout.storages)
    ]
    ready = sum(
        tensor.numel() * wanted.becomes(name, tensor.dtype).itemsize for name, tensor in layout.ready.items()
    )
    copied = sum(size for number, size in enumerate(sizes) if number not in work.mapped)
    read = hashed = 0
    for _, file, chunk in work.jobs:
        size = blobs[file].facts.chunks.sizes[chunk]
        read += 0 if file in work.in_place else size
        hashed += 0 if blobs[file].trusted else size
    copying = [job for job in work.jobs if job[1] not in work.in_place]
    lanes = lane_count(len(copying)) if copying else 0
    buffers = lanes * CHUNK_BYTES
    casting = any(landing.casts(number) for number, each in enumerate(layout.storages) if each.size)
    return LoadPlan(
        wanted.component,
        wanted.device.label,
        short(wanted.dtype) if wanted.dtype is not None else "",
        len(layout.names),
        sum(each.size for each in layout.storages),
        read,
        hashed,
        sum(layout.storages[number].size for number in work.mapped),
        sum(sizes) + ready,
        copied + buffers if wanted.device.is_host else buffers * BUFFERS_A_LANE,
        wanted.device.available_bytes(),
        lanes * wanted.device.staging_bytes if casting else 0,
    )


def check_room(plan: LoadPlan, wanted: Wanted, result_bytes: int | None = None) -> None:
    """Whether it can fit.

    Args:
        result_bytes: of the result, how much there is at a time; all of it by default.

    Raises:
        LoadError: it cannot; nothing was allocated.
    """
    needed = plan.result_bytes if result_bytes is None else min(result_bytes, plan.result_bytes)
    needed += plan.staging_bytes
    if wanted.device.is_host:
        needed = min(needed, plan.host_bytes) + _SPARE_BYTES if plan.read_bytes else 0
    if plan.free_bytes is not None and needed > plan.free_bytes:
        raise LoadError(
            f"{wanted.label} needs {needed:,} bytes of memory on {plan.device}, {plan.free_bytes:,} are free",
            hint="a smaller --dtype, --tensors to load part of it, or another --device",
        )
    free = available_bytes()
    if not wanted.device.is_host and free is not None and plan.host_bytes > free:
        raise LoadError(f"{wanted.label} needs {plan.host_bytes:,} bytes of host memory, {free:,} are free")
