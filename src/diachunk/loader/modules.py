"""Fills a torch.nn.Module: matches names and shapes before anything is read, then takes tensor after tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from diachunk.errors import LoadError, UsageError
from diachunk.loader.dtypes import short
from diachunk.loader.events import LoadReport
from diachunk.loader.layout import chosen
from diachunk.loader.session import Loading
from diachunk.loader.slots import Slots

_NAMED_MAX = 8


class Opened(Protocol):
    """A component that is open (api.load_opened)."""

    def loading(
        self,
        *,
        order: Sequence[str] | None = None,
        device: str | torch.device | None = None,
    ) -> Loading: ...


@dataclass(frozen=True, slots=True)
class Misshaped:
    """A tensor that has another shape in the checkpoint than in the module."""

    name: str
    in_checkpoint: tuple[int, ...]
    in_module: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {list(self.in_checkpoint)}, not {list(self.in_module)}"


@dataclass(frozen=True, slots=True)
class Filled:
    """How a checkpoint and a module match, and what the load took. `str` is for people.

    Attributes:
        filled: names in the module that have values from the checkpoint now, tied ones included.
        missing: names in the module that the checkpoint has not.
        unexpected: names in the checkpoint that the module has not.
        left_on_meta: what the module does not save and has no values yet: it has to make them itself.
    """

    filled: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: tuple[Misshaped, ...]
    left_on_meta: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    report: LoadReport = field(default_factory=LoadReport)

    @property
    def matches(self) -> bool:
        return not (self.missing or self.unexpected or self.misshaped)

    def __str__(self) -> str:
        return self._told("filled")

    def _told(self, what_of: str) -> str:
        parts = [f"{len(self.filled):,} {what_of}"]
        for what, names in (
            ("missing in the checkpoint", self.missing),
            ("not in the module", self.unexpected),
            ("of another shape", [str(each) for each in self.misshaped]),
            ("still on the meta device", self.left_on_meta),
        ):
            if names:
                parts.append(f"{len(names):,} {what} ({_some(names)})")
        return "; ".join(parts)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED_MAX])
    return f"{shown}, and {len(names) - _NAMED_MAX:,} more" if len(names) > _NAMED_MAX else shown


def refuse_other_things(module: object) -> None:
    """Arguments the wrong way round, or a class.

    Raises:
        UsageError: no module.
    """
    if not isinstance(module, torch.nn.Module):
        made = " (its class: make one first)" if isinstance(module, type) else ""
        raise UsageError(f"{module!r:.80} is no module{made}", hint='load_into(MODULE, "NAME", "COMPONENT")')


def fill(
    module: torch.nn.Module, opened: Opened, *, strict: bool, prefix: str, rename: Mapping[str, str]
) -> Filled:
    """See api.loading.load_into.

    Raises:
        LoadError: names or shapes do not match; nothing was read or touched.
    """
    slots = Slots(module)
    outside = _sources(slots.names, prefix, rename)
    loading = opened.loading(order=list(outside.values()), device=slots.device)
    try:
        found = _match(slots, outside, loading)
        _refuse(found, strict=strict, partly=not loading.everything, prefix=prefix)
        inside = {source: name for name, source in outside.items()}
        _refuse_losses(slots, inside, loading)
        _refuse_copies(slots, [name for name in found.filled if name in outside])
        wanted = [name for name in loading.layout.names if name in inside]
        loading.narrow(chosen(loading.layout, wanted))
        streaming = loading.stream()
    except BaseException:
        loading.close()
        raise
    for name, tensor in streaming:
        slots.put(inside[name], tensor)
    return Filled(
        found.filled,
        found.missing,
        found.unexpected,
        (),
        tuple(slots.left_on_meta()),
        loading.metadata,
        streaming.report,
    )


def _sources(names: Sequence[str], prefix: str, rename: Mapping[str, str]) -> dict[str, str]:
    """Names in the module -> in the checkpoint. What is renamed is not to be found under its own name, too.

    Raises:
        UsageError: `rename` names what the module has not, or one place twice.
    """
    back: dict[str, str] = {}
    for source, name in rename.items():
        if name in back:
            raise UsageError(f"rename gives {name!r:.80} two values: {back[name]!r:.80} and {source!r:.80}")
        if name not in names:
            raise UsageError(f"rename: the module has no {name!r:.80}")
        back[name] = source
    sources = {name: back.get(name, f"{prefix}{name}") for name in names}
    return {name: source for name, source in sources.items() if name in back or source not in rename}


def _refuse_losses(slots: Slots, inside: Mapping[str, str], loading: Loading) -> None:
    """Values that are copied into tensors of the module must fit in them, but for the rounding of floats.

    Raises:
        LoadError: an imaginary part or a fraction would be lost.
    """
    dtypes = {view.name: view.dtype for view in loading.layout.views}
    dtypes |= {name: tensor.dtype for name, tensor in loading.layout.ready.items()}
    for source, name in inside.items():
        own, found = slots.dtype(name), dtypes.get(source)
        if own is None or found is None:
            continue
        lost = found.is_complex and not own.is_complex
        if lost or (found.is_floating_point and not (own.is_floating_point or own.is_complex)):
            raise LoadError(
                f"{name} is {short(found)} in the checkpoint, {short(own)} in the module; nothing was loaded"
            )


def _refuse_copies(slots: Slots, names: Iterable[str]) -> None:
    """What a module makes anew for its state dict (`get_extra_state`, a hook) is no place: it would be told to be
    filled, and was not.

    Raises:
        LoadError: one of them takes no values.
    """
    for name in names:
        if slots.is_copy(name):
            what, hint = "the module makes for its state dict alone", "module.load_state_dict(load(...))"
        elif slots.is_locked(name):
            what, hint = "was made in torch.inference_mode()", "call load_into in it, too"
        elif slots.is_spread(name):
            what, hint = "has elements that share memory", "clone() it first"
        else:
            continue
        raise LoadError(f"{name}, which {what}, cannot be filled; nothing was loaded", hint=hint)


def _match(slots: Slots, outside: Mapping[str, str], loading: Loading) -> Filled:
    """What would be filled, and what does not match."""
    shapes = {view.name: view.shape for view in loading.layout.views}
    shapes |= {name: tuple(tensor.shape) for name, tensor in loading.layout.ready.items()}
    filled: list[str] = []
    misshaped = []
    for name in slots.names:
        shape = shapes.get(outside[name]) if name in outside else None
        if shape is None:
            continue
        if shape == slots.shape(name):
            filled += slots.tied(name)
        else:
            misshaped.append(Misshaped(name, shape, slots.shape(name)))
    known = set(filled)
    odd = {tied for each in misshaped for tied in slots.tied(each.name)}
    return Filled(
        tuple(name for name in slots.names if name in known - odd),
        tuple(name for name in slots.names if name not in known | odd),
        tuple(sorted(shapes.keys() - set(outside.values()))),
        tuple(misshaped),
    )


def _refuse(found: Filled, *, strict: bool, partly: bool, prefix: str) -> None:
    missing = bool(found.missing) and not partly
    if found.misshaped or (strict and (missing or found.unexpected)):
        told = found._told("would be filled")
        ways = "strict=False fills what matches; prefix= and rename= map names, tensors= picks some"
        if prefix and not missing and not any(name.startswith(prefix) for name in found.unexpected):
            # A training checkpoint: the optimizer's tensors lie beside the module's.
            ways = f"tensors={f'{prefix}*'!r} leaves out what does not begin with the prefix"
        raise LoadError(
            f"the checkpoint does not fit the module: {told}; nothing was loaded",
            hint="tensors= takes only what it names" if found.misshaped else ways,
        )
