"""load, load_into and stream: tensors of a checkpoint onto a device, verified while they are read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from diachunk.api.loading.opened import Opened, load_with, need_torch
from diachunk.api.loading.options import Globs, LoadOptions, LoadSettings, Verify
from diachunk.api.loading.stream import LoadDone, TensorStream, load_events, open_stream
from diachunk.errors import Interrupted
from diachunk.loader.events import (
    LoadEvent,
    LoadListener,
    LoadPlan,
    LoadProgress,
    LoadReport,
    LoadStatus,
    silent,
)
from diachunk.loader.loaded import Loaded

if TYPE_CHECKING:
    from typing import Unpack

    import torch

    from diachunk.loader.modules import Filled

__all__ = [
    "LoadDone",
    "LoadEvent",
    "LoadPlan",
    "LoadProgress",
    "LoadReport",
    "LoadStatus",
    "Loaded",
    "TensorStream",
    "load",
    "load_events",
    "load_into",
    "stream",
]


def load(
    target: str | os.PathLike[str],
    component: str | None = None,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    *,
    tensors: Globs | None = None,
    keep_dtype: Globs = (),
    verify: Verify = "stamp",
    progress: LoadListener = silent,
    repair: bool = False,
    fetch: bool = False,
    origins: Iterable[str] = (),
    patience_s: float | None = None,
    allow_code: bool = False,
    home: str | os.PathLike[str] | None = None,
) -> Loaded:
    """Loads a component's tensors. The bytes that are hashed are the bytes that are loaded.

    Args:
        target: what `fetch` takes.
        component: which one; may be left out if there is only one.
        device: "cpu", "cuda", "cuda:1", "mps", "auto" (the best that is here), or a torch.device.
        dtype: what floating-point tensors become: "bf16", "fp16", "fp32", a torch.dtype; None keeps what they are.
            Integer and bool tensors are never cast, complex ones only to complex dtypes.
        tensors: names or globs; only these. All by default.
        keep_dtype: names or globs of tensors that keep their dtype.
        verify: "stamp" hashes everything but files that were verified before and are untouched since (on the CPU and
            without a cast those are mapped, not copied); "always" hashes all.
        progress: called on this thread with typed events; their `bytes` add up to `LoadPlan.total_bytes`.
        repair: fetch again what is damaged, and go on.
        fetch: fetch what is not here, and load it meanwhile.
        origins, patience_s: as in `fetch`; for `repair` and `fetch`.
        allow_code: also load pickles that run code while they are read. For files whose makers you trust.
        home: the store, in place of the configured one.

    Returns:
        Names to tensors on the device, complete, in the shapes and strides of the files; besides, `metadata` and
        `report`. They are the caller's alone: to write to one changes no file.

    Raises:
        UsageError: no such target, component, tensor, device or dtype.
        LoadError: not here, not loadable, no room, or the device is not here or lacks the dtype.
        IntegrityError: damaged, and not mended. Nothing is returned.
        ManifestError, StoreError, TransferIncomplete, Interrupted: see errors.py.
    """
    settings = LoadSettings(
        device,
        dtype,
        tensors,
        keep_dtype,
        verify,
        progress,
        repair,
        fetch,
        origins,
        patience_s,
        allow_code,
        home,
    )
    return load_with(target, component, settings)


def stream(
    target: str | os.PathLike[str],
    component: str | None = None,
    *,
    order: torch.nn.Module | Sequence[str] | None = None,
    **options: Unpack[LoadOptions],
) -> TensorStream:
    """The same one by one: iterates (name, tensor), each as soon as it and those before it are there.

    `async for` works as well; nothing is then opened on the event loop's own thread. What was handed out is not kept
    here, and lanes run at most 256 MiB ahead of who takes it: a checkpoint larger than memory can pass through.

    Args:
        order: names in the order in which they are wanted, or a module whose own order it is to be.
        options: as in `load`.

    Raises:
        as load, at once (where no event loop runs) or while it is iterated.
    """
    names: Sequence[str] | None
    if isinstance(order, str):  # a sequence of strings as well, and none of names
        names = (order,)
    else:
        names = (
            order if order is None or isinstance(order, Sequence) else tuple(order.state_dict(keep_vars=True))
        )
    return open_stream(target, component, LoadSettings(**options), names)


def load_into(
    module: torch.nn.Module,
    target: str | os.PathLike[str],
    component: str | None = None,
    *,
    strict: bool = True,
    prefix: str = "",
    rename: Mapping[str, str] | None = None,
    **options: Unpack[LoadOptions],
) -> Filled:
    """Fills a module. Where it is on the meta device it gets the tensors themselves, elsewhere new values.

    Args:
        strict: raise unless names match exactly. Mis-shaped tensors always raise.
        prefix: what the checkpoint's names begin with and the module's do not.
        rename: names in the checkpoint -> names in the module.
        options: as in `load`. Parameters that are not on the meta device keep their devices and dtypes.

    Raises:
        UsageError: `module` is none.
        LoadError: names or shapes do not match; says which, and the module was not touched.
        as load; what was filled before is then verified and right, all else as it was.
    """
    need_torch()
    from diachunk.loader.modules import fill, refuse_other_things

    refuse_other_things(module)
    try:
        with Opened(target, component, LoadSettings(**options)) as opened:
            filled = fill(module, opened, strict=strict, prefix=prefix, rename=rename or {})
            opened.settle(filled.report)
            return filled
    except KeyboardInterrupt:
        raise Interrupted(
            "stopped", hint="the module may be filled in part; what was fetched is kept"
        ) from None
