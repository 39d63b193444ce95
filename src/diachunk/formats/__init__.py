"""Where tensors lie in a file: one reader a format, chosen by the registry. Pure; a plug-in point."""

from __future__ import annotations

from diachunk.formats.base import FormatError, FormatReader, TensorSpan
from diachunk.formats.registry import find_tensors

__all__ = ["FormatError", "FormatReader", "TensorSpan", "find_tensors"]
