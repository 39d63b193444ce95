"""Measures a pickle before torch reads it: its opcodes are walked, and nothing is built.

`weights_only` lets nothing run, but takes what it is told for granted: a few hundred bytes can stand for more work than
any machine does (a key that is a tuple of the same tuple twice, 60 deep, is hashed 2^60 times, where no Ctrl-C is
heard), for more memory than there is (compressed members, copies of copies), or end the process (a tuple nested so deep
that hashing it overflows the stack; a byte order that makes torch swap bytes of a storage that has none).
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import IO, Any, cast

from diachunk.formats.base import FormatError
from diachunk.limits import MiB

PICKLE_BYTES_MAX = 32 * MiB
OPCODES_MAX = 4_000_000
"""A tensor takes some 32."""
WEIGHT_MAX = 16_000_000
"""Elements of one value, what stands in it twice counted twice; eight characters of text count as one."""
WORK_MAX = 16_000_000
"""Elements that are hashed or copied while the pickle is read."""
_DEPTH_MAX = 200
_ORDER_BYTES_MAX = 16
_LOCAL = struct.Struct("<4s22x2H")  # APPNOTE.TXT 4.3.7: what of a local header says where the data starts
_REFUSED_GLOBALS = {"builtins bytearray", "__builtin__ bytearray"}
"""bytearray(n) is n bytes; a checkpoint has no use for it."""


class TooLarge(FormatError):
    """The pickle stands for more than a checkpoint holds."""


@dataclass(slots=True)
class _Value:
    """What a value costs to hash or copy, and how deep it is. `name`: of a global. Containers grow."""

    weight: int = 1
    depth: int = 1
    name: str = ""

    def take_in(self, items: Iterable[_Value]) -> None:
        for each in items:
            self.weight += each.weight
            self.depth = max(self.depth, each.depth + 1)
        if self.weight > WEIGHT_MAX:
            raise TooLarge(f"a value of its pickle stands for more than {WEIGHT_MAX:,} elements")
        if self.depth > _DEPTH_MAX:
            raise TooLarge(f"its pickle is nested deeper than {_DEPTH_MAX}")


_ATOM = _Value()


def check_zip(file: io.RawIOBase, *, trusted: bool = False) -> None:
    """Checks the members of a zip file of PyTorch, whose directory was read without complaint, and its pickle,
    unless whoever made it is trusted to run code.

    Raises:
        FormatError: it is not what torch.save writes, or its pickle is of unreasonable size.
        Unreadable: the pickle holds what `weights_only` does not read.
    """
    file.seek(-22, io.SEEK_END)
    end = file.read(22)
    # Readers differ in where they look for the directory if a comment follows it; torch.save writes none.
    if not end or not end.startswith(b"PK\x05\x06") or end[-2:] != b"\0\0":
        raise FormatError("a comment follows the zip file's directory")
    try:
        with zipfile.ZipFile(cast(IO[bytes], file)) as archive:
            members = archive.infolist()
            if any(each.compress_type != zipfile.ZIP_STORED for each in members):
                raise FormatError("a member of the zip file is compressed")
        pickled = _member(file, members, "data.pkl", PICKLE_BYTES_MAX)
        order = _member(file, members, "byteorder", _ORDER_BYTES_MAX)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error) as error:
        raise FormatError("the zip file is malformed") from error
    if order is not None and order.strip() == b"big":
        raise FormatError("its tensors are big-endian; torch.load and torch.save turn them")
    if pickled is not None and not trusted:
        measure(pickled)


def _member(file: io.RawIOBase, members: list[zipfile.ZipInfo], name: str, bytes_max: int) -> bytes | None:
    """The bytes of the member "<any>/name"."""
    # torch finds it whatever its case, so there may be but one. A storage, one level down, may have any key.
    found = [each for each in members if each.filename.lower().rpartition("/")[2] == name]
    found = [each for each in found if each.filename.count("/") <= 1]
    if len(found) > 1:
        raise FormatError(f"the zip file has several members {name}")
    if not found:
        return None
    if found[0].file_size > bytes_max:
        raise TooLarge(f"{name} has {found[0].file_size:,} bytes")
    # Not by `zipfile`: torch.save may be told to write no checksums.
    file.seek(found[0].header_offset)
    header = file.read(_LOCAL.size) or b""
    signature, name_bytes, extra_bytes = _LOCAL.unpack(header)
    if signature != b"PK\x03\x04":
        raise FormatError(f"{name} is not where the zip file's directory has it")
    file.seek(name_bytes + extra_bytes, io.SEEK_CUR)
    data = file.read(found[0].file_size) or b""
    if len(data) != found[0].file_size:
        raise FormatError(f"{name} is cut short")
    return data


class Unreadable(Exception):
    """Nothing that `weights_only` reads."""


def measure(pickled: bytes) -> None:
    """Walks the opcodes that `weights_only` knows.

    Raises:
        FormatError: too many of them, or values too large or too deep.
        Unreadable: others.
    """
    gauge = _Gauge()
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
            if number == OPCODES_MAX:
                raise TooLarge(f"its pickle has more than {OPCODES_MAX:,} opcodes")
            step = _STEPS.get(opcode.name)
            if step is None:
                raise Unreadable(opcode.name)
            step(gauge, argument)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise Unreadable("malformed") from error


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
        self.stack[-1].take_in(items)

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
        self.stack.append(_Value(arguments.weight, arguments.depth))

    def build(self) -> None:
        state = self.last(1)
        self.spend(state)
        self.put(state)

    def storage(self) -> None:
        self.spend(self.last(1))
        self.stack.append(_Value())

    def spend(self, values: Iterable[_Value]) -> None:
        self.work += sum(each.weight for each in values)
        if self.work > WORK_MAX:
            raise TooLarge(f"to read its pickle, more than {WORK_MAX:,} elements are hashed or copied")


def _atom(gauge: _Gauge, argument: Any) -> None:
    gauge.stack.append(_ATOM)


def _container(gauge: _Gauge, argument: Any) -> None:
    gauge.stack.append(_Value())


def _text(gauge: _Gauge, argument: Any) -> None:
    gauge.stack.append(_Value(1 + len(argument) // 8))


def _get(gauge: _Gauge, argument: Any) -> None:
    gauge.stack.append(gauge.memo[argument])


def _put(gauge: _Gauge, argument: Any) -> None:
    gauge.memo[argument] = gauge.stack[-1]


_ATOMS = ("NONE", "NEWFALSE", "NEWTRUE", "EMPTY_TUPLE", "BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1")
_STEPS: dict[str, Callable[[_Gauge, Any], None]] = {
    **dict.fromkeys(_ATOMS, _atom),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"), _container),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINSTRING"), _text),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _get),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _put),
    **dict.fromkeys(("PROTO", "STOP"), lambda gauge, _: None),
    "GLOBAL": _Gauge.found,
    "MARK": lambda gauge, _: gauge.mark(),
    "TUPLE1": lambda gauge, _: gauge.join(gauge.last(1)),
    "TUPLE2": lambda gauge, _: gauge.join(gauge.last(2)),
    "TUPLE3": lambda gauge, _: gauge.join(gauge.last(3)),
    "TUPLE": lambda gauge, _: gauge.join(gauge.since_mark()),
    "APPEND": lambda gauge, _: gauge.put(gauge.last(1)),
    "APPENDS": lambda gauge, _: gauge.put(gauge.since_mark()),
    "SETITEM": lambda gauge, _: gauge.put_keyed(gauge.last(2)),
    "SETITEMS": lambda gauge, _: gauge.put_keyed(gauge.since_mark()),
    "REDUCE": lambda gauge, _: gauge.call(),
    "NEWOBJ": lambda gauge, _: gauge.call(),
    "BUILD": lambda gauge, _: gauge.build(),
    "BINPERSID": lambda gauge, _: gauge.storage(),
}
