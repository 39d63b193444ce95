"""The places of a torch.nn.Module where tensors are, and how each of them is filled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from diachunk.errors import LoadError


class Slots:
    """The places in a module where tensors are, by the names of its state dict. Tied ones share a place."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        state = module.state_dict(keep_vars=True)
        self._tensors = {name: each for name, each in state.items() if isinstance(each, torch.Tensor)}
        self.names = tuple(self._tensors)
        self._by_identity: dict[int, list[str]] = {}
        for name, tensor in self._tensors.items():
            self._by_identity.setdefault(id(tensor), []).append(name)
        self._places: dict[int, list[tuple[dict[str, Any], str]]] = {}
        for part in module.modules():
            for table in (part._parameters, part._buffers):
                for key, each in table.items():
                    if each is not None:
                        self._places.setdefault(id(each), []).append((table, key))

    def _memory_of_places(self) -> set[int]:
        """Where the storages of parameters and buffers begin."""
        tables = [table for part in self._module.modules() for table in (part._parameters, part._buffers)]
        held = [each for table in tables for each in table.values() if each is not None]
        held = [each for each in held if each.device.type != "meta" and not torch.nn.parameter.is_lazy(each)]
        return {each.untyped_storage().data_ptr() for each in held if each.numel()}

    @property
    def device(self) -> torch.device | None:
        """Where the module is; None where the caller has to say: on the meta device, or on several."""
        devices = {tensor.device for tensor in self._tensors.values()}
        only = devices.pop() if len(devices) == 1 else None
        return None if only is None or only.type == "meta" else only

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises:
        LoadError: nobody knows it yet.
        """
        if torch.nn.parameter.is_lazy(self._tensors[name]):
            raise LoadError(
                f"{name} is of a lazy module and has no shape yet; nothing was loaded",
                hint="run the module once on an input of the right shape, then load",
            )
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype | None:
        """What values are copied into; None where the tensor itself is taken."""
        tensor = self._tensors[name]
        return None if tensor.device.type == "meta" else tensor.dtype

    def is_copy(self, name: str) -> bool:
        """Whether it is no parameter or buffer, nor a view of one."""
        tensor = self._tensors[name]
        if id(tensor) in self._places:
            return False
        return (
            tensor.device.type == "meta"
            or tensor.untyped_storage().data_ptr() not in self._memory_of_places()
        )

    def is_locked(self, name: str) -> bool:
        tensor = self._tensors[name]
        return (
            tensor.device.type != "meta" and tensor.is_inference() and not torch.is_inference_mode_enabled()
        )

    def is_spread(self, name: str) -> bool:
        """Whether it is expanded: torch writes to no such tensor."""
        tensor = self._tensors[name]
        if tensor.device.type == "meta" or tensor.layout is not torch.strided:
            return False
        steps = zip(tensor.shape, tensor.stride(), strict=True)
        return any(size > 1 and not step for size, step in steps)

    def tied(self, name: str) -> list[str]:
        """All names of the same tensor."""
        return self._by_identity[id(self._tensors[name])]

    def put(self, name: str, tensor: torch.Tensor) -> None:
        """Fills a place: copies into a tensor that has memory, takes the place of one that has none."""
        old = self._tensors[name]
        if old.device.type != "meta":
            with torch.no_grad():
                old.copy_(tensor)
            return
        new = tensor
        if isinstance(old, torch.nn.Parameter):
            trained = old.requires_grad and (tensor.is_floating_point() or tensor.is_complex())
            new = torch.nn.Parameter(tensor, requires_grad=trained)
        for table, key in self._places.get(id(old), ()):
            table[key] = new

    def left_on_meta(self) -> Iterable[str]:
        named = [*self._module.named_parameters(), *self._module.named_buffers()]
        return (name for name, tensor in named if tensor.device.type == "meta")
