"""What a load gives back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from diachunk.loader.events import LoadReport


class Loaded(Mapping[str, "torch.Tensor"]):
    """The tensors of a component by name, in the order of its files. Usable wherever a state dict is.

    Attributes:
        metadata: what the files hold besides: a safetensors file's `__metadata__`, a PyTorch file's other entries.
        report: what it took, in bytes and seconds.
    """

    def __init__(
        self, tensors: dict[str, torch.Tensor], metadata: Mapping[str, Any], report: LoadReport
    ) -> None:
        self._tensors = tensors
        self.metadata = metadata
        self.report = report

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        report = self.report
        return f"<Loaded {len(self)} tensors, {report.result_bytes:,} bytes on {report.device}>"
