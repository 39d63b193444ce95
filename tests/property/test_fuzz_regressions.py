"""The fuzz targets under plain pytest: what once broke them, their seeds, and mutations that hypothesis makes up.

Coverage-guided runs (`make fuzz`) go further; this keeps the targets alive where atheris is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz import checks
from fuzz.checks import WatchedFile, bounded
from fuzz.registry import REGRESSIONS, TARGETS, TargetModule

EACH_TARGET = pytest.mark.parametrize("name", TARGETS)
INPUTS = [(name, path) for name, target in TARGETS.items() for path in target.regressions()]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["overwrite", "insert", "delete", "repeat"]),
        st.integers(0),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=5,
)
# Derandomized: a landing must not be lost to what chance finds on that day; finding is what `make fuzz` is for.
steady = settings(
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)


@cache
def loaded(name: str) -> tuple[TargetModule, list[bytes]]:
    module = TARGETS[name].load()
    return module, module.seeds()


@pytest.mark.parametrize(("name", "path"), INPUTS, ids=[f"{name}-{path.stem}" for name, path in INPUTS])
def test_what_once_broke_a_target_is_mended(name: str, path: Path) -> None:
    loaded(name)[0].fuzz_one(path.read_bytes())


def test_every_regression_belongs_to_a_target() -> None:
    assert {path.parent.name for path in REGRESSIONS.glob("*/*")} <= set(TARGETS)


@EACH_TARGET
def test_its_seeds_break_no_promise_and_fit(name: str) -> None:
    module, seeds = loaded(name)
    for seed in seeds:
        assert len(seed) <= TARGETS[name].bytes_max, "the fuzzer would cut it"
        module.fuzz_one(seed)


@EACH_TARGET
@given(data=st.binary(max_size=200))
@steady
def test_no_bytes_break_a_promise(name: str, data: bytes) -> None:
    loaded(name)[0].fuzz_one(data)


@EACH_TARGET
@given(number=st.integers(0), edits=EDITS)
@steady
def test_no_mutation_of_a_seed_breaks_a_promise(
    name: str, number: int, edits: list[tuple[str, int, bytes]]
) -> None:
    module, seeds = loaded(name)
    data = seeds[number % len(seeds)][: TARGETS[name].bytes_max]
    for edit in edits:
        data = edited(data, *edit)
    module.fuzz_one(data[: TARGETS[name].bytes_max])


def edited(data: bytes, what: str, place: int, piece: bytes) -> bytes:
    at = place % (len(data) + 1)
    match what:
        case "overwrite":
            return data[:at] + piece + data[at + len(piece) :]
        case "insert":
            return data[:at] + piece + data[at:]
        case "delete":
            return data[:at] + data[at + len(piece) :]
    return data[:at] + data[at : at + 16] * len(piece) + data[at:]


# --- the checks themselves can fail ---------------------------------------------------------------------------


def raise_key_error() -> None:
    raise KeyError("x")


def spin() -> None:
    until_s = time.thread_time() + 0.2
    while time.thread_time() < until_s:
        pass


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (raise_key_error, "KeyError left"),
        (lambda: bytes(3 << 20), "bytes of memory"),
        (spin, "s of CPU time"),
    ],
)
def test_a_stranger_too_much_memory_or_too_much_time_is_a_violation(
    call: Callable[[], object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "CPU_BASE_S", 0.05)
    with pytest.raises(AssertionError, match=said):
        bounded(call, 10, errors=(ValueError,))


def test_an_error_of_the_family_is_handed_back() -> None:
    value, error = bounded(lambda: int("x"), 1, errors=(ValueError,))
    assert value is None
    assert isinstance(error, ValueError)


def test_a_read_past_what_a_header_may_be_is_a_violation() -> None:
    file = WatchedFile(b"abc", 2)
    assert (file.read_at(1, 9), file.read_bytes) == (b"bc\xff\xff", 4)
    with pytest.raises(AssertionError, match="a read of"):
        file.read_at(0, 1 << 30)
