"""What every target asserts: only errors of the family leave, memory and time stay in proportion to the input."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from diachunk.formats.spans import HEADER_BYTES_MAX

_T = TypeVar("_T")

CPU_BASE_S = 1.0
CPU_S_PER_BYTE = 30e-6
"""Wide on purpose: instrumented code under tracemalloc on a slow machine stays far below, squares do not."""
_TRIES = 3


def bounded(
    call: Callable[[], _T],
    size: int | Callable[[], int],
    *,
    errors: tuple[type[Exception], ...] = (),
    base_bytes: int = 1 << 20,
    bytes_per_byte: int = 64,
    base_s: float | None = None,
) -> tuple[_T | None, Exception | None]:
    """Runs `call` on an input of `size` bytes.

    Args:
        size: of the input; or says, when `call` is done, how much of it was read.
        errors: the family that may leave; subclasses of others do not.
        base_bytes, bytes_per_byte: what it may allocate at its peak: a constant, and a multiple of the input.
        base_s: of CPU time, in place of CPU_BASE_S: for what may be thousands of things, however few bytes stand for
            them.

    Returns:
        Its value and None, or None and the error.

    Raises:
        AssertionError: another error, more memory, or more CPU time of this thread.
    """
    value, error, peak_bytes, spent_s = _measured(call, errors)
    size = size if isinstance(size, int) else size()
    limit_s = (CPU_BASE_S if base_s is None else base_s) + size * CPU_S_PER_BYTE
    for _ in range(_TRIES - 1):
        if spent_s <= limit_s:
            break
        spent_s = min(spent_s, _measured(call, errors)[3])
    assert spent_s <= limit_s, f"{spent_s:.2f} s of CPU time for {size} bytes"
    limit_bytes = base_bytes + size * bytes_per_byte
    assert peak_bytes <= limit_bytes, (
        f"{peak_bytes:,} bytes of memory for {size} bytes; {limit_bytes:,} allowed"
    )
    return value, error


def _measured(
    call: Callable[[], _T], errors: tuple[type[Exception], ...]
) -> tuple[_T | None, Exception | None, int, float]:
    value: _T | None = None
    family: Exception | None = None
    stranger: BaseException | None = None
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start(1)
    tracemalloc.reset_peak()
    before_bytes = tracemalloc.get_traced_memory()[0]
    started_s = time.thread_time()
    try:
        value = call()
    except errors as error:
        family = error
    except (AssertionError, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever else it is, it is the violation looked for
        stranger = error
    finally:
        spent_s = time.thread_time() - started_s
        peak_bytes = tracemalloc.get_traced_memory()[1] - before_bytes
        if not was_tracing:
            tracemalloc.stop()
    if stranger is not None:
        raise AssertionError(f"{type(stranger).__name__} left: {stranger!s:.200}") from stranger
    return value, family, peak_bytes, spent_s


@dataclass(slots=True)
class WatchedFile:
    """A file for a format reader: these bytes, then `hole_bytes` of 0xff. Asserts what readers promise of reads."""

    data: bytes
    hole_bytes: int = 0
    read_bytes: int = field(default=0, init=False)

    @property
    def size(self) -> int:
        return len(self.data) + self.hole_bytes

    def read_at(self, offset: int, size: int) -> bytes:
        assert 0 <= size <= HEADER_BYTES_MAX, f"a read of {size} bytes"
        assert offset >= 0, f"a read at {offset}"
        found = self.data[offset : offset + size]
        rest = max(0, min(size, self.size - offset) - len(found))
        self.read_bytes += len(found) + rest
        # No format takes these for anything, so that a short input cannot stand for a long header.
        return found + b"\xff" * rest


class Reader:
    """Cuts an input into pieces for structured targets."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        """The next byte; 0 at the end."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def line(self) -> bytes:
        """Up to the next newline."""
        end = self._data.find(b"\n", self._at)
        end = len(self._data) if end < 0 else end
        line, self._at = self._data[self._at : end], end + 1
        return line

    def rest(self) -> bytes:
        rest, self._at = self._data[self._at :], len(self._data)
        return rest


def text_of(data: bytes) -> str:
    """Any bytes as text, lone surrogates included: what file names and arguments can hold (PEP 383)."""
    return data.decode("utf-8", "surrogateescape")
