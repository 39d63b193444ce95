"""safe_open: tensors by name, as the safetensors library's function of that name gives them, but verified."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from diachunk.api.loading.opened import Opened
from diachunk.api.loading.options import LoadSettings, Verify
from diachunk.errors import UsageError

if TYPE_CHECKING:
    import torch


class safe_open:  # noqa: N801 - the name that callers know
    """A drop-in for `safetensors.safe_open`, for a target and a component instead of a file name.

        with diachunk.safe_open("nari-labs/dia-1.6b", "vocoder") as file:
            weight = file.get_tensor("decoder.conv1.weight")

    Reads PyTorch files as well. Each `get_tensor` reads and verifies just the chunks of that tensor.
    """

    def __init__(
        self,
        target: str | os.PathLike[str],
        component: str | None = None,
        *,
        framework: str = "pt",
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype | None = None,
        verify: Verify = "stamp",
        home: str | os.PathLike[str] | None = None,
    ) -> None:
        if framework not in ("pt", "torch", "pytorch"):
            raise UsageError(
                f"framework={framework!r:.40}: only PyTorch's tensors are made here", hint='"pt"'
            )
        settings = LoadSettings(device=device, dtype=dtype, verify=verify, home=home)
        self._opened = Opened(target, component, settings)
        self._loading = self._opened.loading(by_name=True)
        self._closed = False

    def keys(self) -> list[str]:
        """The names of all tensors, in the order of the files."""
        return list(self._loading.contents.names)

    def offset_keys(self) -> list[str]:
        """The same: the order of the files is that of the offsets."""
        return self.keys()

    def metadata(self) -> Mapping[str, Any]:
        return self._loading.metadata

    def get_tensor(self, name: str) -> torch.Tensor:
        """One tensor.

        Raises:
            UsageError: there is none of that name, or this is closed.
            LoadError, IntegrityError: see `load`.
        """
        if self._closed:
            raise UsageError(f"{self._opened.label} is closed", hint="ask within the `with` block")
        return self._loading.one(name)

    def get_slice(self, name: str) -> TensorSlice:
        """Part of a tensor: `get_slice(name)[2:4]`. The tensor's chunks are then read and verified as a whole; for
        its shape and dtype nothing is read.

        Raises:
            UsageError: there is none of that name.
        """
        return TensorSlice(self, name, *self._loading.outline(name))

    def close(self) -> None:
        self._closed = True
        self._loading.close()
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class TensorSlice:
    """What `get_slice` gives."""

    def __init__(self, file: safe_open, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self._file = file
        self._name = name
        self._shape = shape
        self._dtype = dtype

    def get_shape(self) -> list[int]:
        """The tensor's shape, as torch has it."""
        return list(self._shape)

    def get_dtype(self) -> str:
        """The dtype that the tensor has when it was read, in the format's words: "BF16"."""
        from diachunk.loader.dtypes import to_format

        return to_format(self._dtype)

    def __getitem__(self, index: Any) -> torch.Tensor:
        return self._file.get_tensor(self._name)[index]
