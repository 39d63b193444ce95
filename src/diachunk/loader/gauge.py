"""Measures a pickle before torch reads it: its opcodes are walked, and nothing is built.

`weights_only` lets nothing run, but takes what it is told for granted: a few hundred bytes can stand for more work than
any machine does (a key that is a tuple of the same tuple twice, 60 deep, is hashed 2^60 times, where no Ctrl-C is
heard), for more memory than there is (copies of copies), or end the process (a tuple nested so deep that hashing it
overflows the stack).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from diachunk.formats.base import FormatError

OPCODES_MAX = 4_000_000
"""A tensor takes some 32."""
WEIGHT_MAX = 16_000_000
"""Elements of one value, what stands in it twice counted twice; eight characters of text count as one."""
WORK_MAX = 16_000_000
"""Elements that are hashed or copied while the pickle is read."""
_DEPTH_MAX = 200
_U32 = struct.Struct("<I")
_REFUSED_GLOBALS = {"builtins bytearray", "__builtin__ bytearray"}
"""bytearray(n) is n bytes; a checkpoint has no use for it."""


class TooLarge(FormatError):
    """The pickle stands for more than a checkpoint holds."""


@dataclass(slots=True)
class _Value:
    """What a value costs to hash or copy, and how deep it is. `name`: of a global. `grows`: whether it takes others
    in later; what does not may stand for many of its kind.
    """

    weight: int = 1
    depth: int = 1
    name: str = ""
    grows: bool = False

    def take_in(self, items: Iterable[_Value]) -> None:
        for each in items:
            self.weight += each.weight
            if each.depth >= self.depth:
                self.depth = each.depth + 1
        if self.weight > WEIGHT_MAX:
            raise TooLarge(f"a value of its pickle stands for more than {WEIGHT_MAX:,} elements")
        if self.depth > _DEPTH_MAX:
            raise TooLarge(f"its pickle is nested deeper than {_DEPTH_MAX}")


_ATOM = _Value()
_SHORT_TEXTS = tuple(_Value(1 + size // 8) for size in range(256))


class Unreadable(Exception):
    """Nothing that `weights_only` reads."""


def measure(pickled: bytes) -> None:
    """Walks the opcodes that `weights_only` knows. Not by pickletools, which makes an object of each and takes three
    times as long: whoever loads waits for it.

    Raises:
        FormatError: too many of them, or values too large or too deep.
        Unreadable: others.
    """
    gauge, steps, at = _Gauge(), _STEPS, 0
    try:
        for _ in range(OPCODES_MAX):
            code = pickled[at]
            if code == _STOP:
                return
            at = steps[code](gauge, pickled, at + 1)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error) as error:
        raise Unreadable("malformed") from error
    raise TooLarge(f"its pickle has more than {OPCODES_MAX:,} opcodes")


@dataclass(slots=True)
class _Gauge:
    """The unpickler's stack and memo, with measures in place of values."""

    stack: list[_Value] = field(default_factory=list)
    outer: list[list[_Value]] = field(default_factory=list)
    memo: dict[int, _Value] = field(default_factory=dict)
    work: int = 0

    def last(self, count: int) -> list[_Value]:
        items = self.stack[-count:]
        if len(items) < count:
            raise IndexError
        del self.stack[-count:]
        return items

    def mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[_Value]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def found(self, name: str) -> None:
        if name in _REFUSED_GLOBALS:
            raise TooLarge("its pickle holds a bytearray")
        self.stack.append(_Value(name=name))

    def join(self, items: list[_Value]) -> None:
        joined = _Value()
        joined.take_in(items)
        self.stack.append(joined)

    def put(self, items: list[_Value]) -> None:
        target = self.stack[-1]
        if not target.grows:
            raise Unreadable("something put into what holds nothing")
        target.take_in(items)

    def put_keyed(self, items: list[_Value]) -> None:
        """Into a dict, whose keys are hashed."""
        self.spend(items[::2])
        self.put(items)

    def call(self) -> None:
        """REDUCE, NEWOBJ: a global and its arguments, which it may copy or hash."""
        called, arguments = self.last(2)
        if not called.name:
            raise Unreadable("a call of what is no global")
        self.spend((arguments,))
        self.stack.append(_Value(arguments.weight, arguments.depth, grows=True))

    def build(self) -> None:
        state = self.last(1)
        self.spend(state)
        self.put(state)

    def storage(self) -> None:
        self.spend(self.last(1))
        self.stack.append(_Value())

    def spend(self, values: Iterable[_Value]) -> None:
        for each in values:
            self.work += each.weight
        if self.work > WORK_MAX:
            raise TooLarge(f"to read its pickle, more than {WORK_MAX:,} elements are hashed or copied")


# --- opcodes: (gauge, pickle, where their argument begins) -> where the next one is -----------------------------

_Step = Callable[[_Gauge, bytes, int], int]
_STOP = ord(".")


def _unknown(gauge: _Gauge, data: bytes, at: int) -> int:
    raise Unreadable(f"opcode {data[at - 1]:#x}")


def _atom(argument_bytes: int) -> _Step:
    def step(gauge: _Gauge, data: bytes, at: int) -> int:
        gauge.stack.append(_ATOM)
        return at + argument_bytes

    return step


def _acts(act: Callable[[_Gauge], None], argument_bytes: int = 0) -> _Step:
    def step(gauge: _Gauge, data: bytes, at: int) -> int:
        act(gauge)
        return at + argument_bytes

    return step


def _long(gauge: _Gauge, data: bytes, at: int) -> int:
    gauge.stack.append(_ATOM)
    return at + 1 + data[at]


def _short_text(gauge: _Gauge, data: bytes, at: int) -> int:
    size = data[at]
    gauge.stack.append(_SHORT_TEXTS[size])
    return at + 1 + size


def _text(gauge: _Gauge, data: bytes, at: int) -> int:
    (size,) = _U32.unpack_from(data, at)
    gauge.stack.append(_SHORT_TEXTS[size] if size < 256 else _Value(1 + size // 8))
    return at + 4 + int(size)


def _global(gauge: _Gauge, data: bytes, at: int) -> int:
    module_end = data.index(b"\n", at)
    end = data.index(b"\n", module_end + 1)
    gauge.found(f"{data[at:module_end].decode()} {data[module_end + 1 : end].decode()}")
    return end + 1


def _get(gauge: _Gauge, data: bytes, at: int) -> int:
    gauge.stack.append(gauge.memo[data[at]])
    return at + 1


def _long_get(gauge: _Gauge, data: bytes, at: int) -> int:
    gauge.stack.append(gauge.memo[_U32.unpack_from(data, at)[0]])
    return at + 4


def _put(gauge: _Gauge, data: bytes, at: int) -> int:
    gauge.memo[data[at]] = gauge.stack[-1]
    return at + 1


def _long_put(gauge: _Gauge, data: bytes, at: int) -> int:
    gauge.memo[_U32.unpack_from(data, at)[0]] = gauge.stack[-1]
    return at + 4


_KNOWN: dict[bytes, _Step] = {
    **dict.fromkeys((b"N", b"\x88", b"\x89", b")"), _atom(0)),  # NONE, NEWTRUE, NEWFALSE, EMPTY_TUPLE
    b"K": _atom(1),
    b"M": _atom(2),
    b"J": _atom(4),
    b"G": _atom(8),  # BININT1, BININT2, BININT, BINFLOAT
    b"\x8a": _long,  # LONG1
    **dict.fromkeys(
        (b"]", b"}", b"\x8f"), _acts(lambda gauge: gauge.stack.append(_Value(grows=True)))
    ),  # EMPTY_*
    b"X": _text,  # BINUNICODE
    b"U": _short_text,  # SHORT_BINSTRING
    b"h": _get,
    b"j": _long_get,
    b"q": _put,
    b"r": _long_put,  # BINGET, LONG_BINGET, BINPUT, LONG_BINPUT
    b"\x80": _acts(lambda gauge: None, 1),  # PROTO
    b"c": _global,  # GLOBAL
    b"(": _acts(_Gauge.mark),  # MARK
    b"\x85": _acts(lambda gauge: gauge.join(gauge.last(1))),  # TUPLE1
    b"\x86": _acts(lambda gauge: gauge.join(gauge.last(2))),  # TUPLE2
    b"\x87": _acts(lambda gauge: gauge.join(gauge.last(3))),  # TUPLE3
    b"t": _acts(lambda gauge: gauge.join(gauge.since_mark())),  # TUPLE
    b"a": _acts(lambda gauge: gauge.put(gauge.last(1))),  # APPEND
    b"e": _acts(lambda gauge: gauge.put(gauge.since_mark())),  # APPENDS
    b"s": _acts(lambda gauge: gauge.put_keyed(gauge.last(2))),  # SETITEM
    b"u": _acts(lambda gauge: gauge.put_keyed(gauge.since_mark())),  # SETITEMS
    **dict.fromkeys((b"R", b"\x81"), _acts(_Gauge.call)),  # REDUCE, NEWOBJ
    b"b": _acts(_Gauge.build),  # BUILD
    b"Q": _acts(_Gauge.storage),  # BINPERSID
}
"""Names as in the standard library's `pickletools`; all that torch's `_weights_only_unpickler` reads."""
_STEPS: list[_Step] = [_KNOWN.get(bytes([code]), _unknown) for code in range(256)]
