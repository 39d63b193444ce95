"""safetensors headers and indexes of shards that mean harm, or make no sense."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
import torch

from diachunk.api.loading.load import load
from diachunk.errors import LoadError, UsageError
from diachunk.limits import MiB
from fixtures.load_attack import refusal, safetensors_of
from fixtures.tensors import safetensors, stored


def entry(begin: int, end: int, dtype: str = "U8", shape: object = None) -> dict[str, object]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def twice(name: str) -> bytes:
    one = json.dumps(entry(0, 4))
    return f'{{"{name}": {one}, "{name}": {one}}}'.encode()


BIG = 1 << 62
REFUSED = {
    "a name twice": safetensors_of(twice("a"), bytes(4)),
    "a name twice, spelt differently": safetensors_of(
        b'{"a": %b, "\\u0061": %b}' % ((json.dumps(entry(0, 4)).encode(),) * 2), bytes(4)
    ),
    "equal ranges": safetensors_of({"a": entry(0, 4), "b": entry(0, 4)}, bytes(4)),
    "a shape that overflows to its size": safetensors_of({"a": entry(0, 0, "U8", [1 << 32, 1 << 32])}),
    "an empty shape that no tensor has": safetensors_of({"a": entry(0, 0, "F32", [BIG, BIG, 0])}),
    "an empty shape whose strides overflow": safetensors_of({"a": entry(0, 0, "F32", [0, BIG, BIG])}),
    "an empty shape past 64 bits": safetensors_of({"a": entry(0, 0, "F32", [10**19, 0])}),
    "offsets past 64 bits": safetensors_of({"a": entry(10**19, 10**19 + 4)}, bytes(4)),
    "a float as a size": safetensors_of({"a": entry(0, 4, "U8", [4.0])}, bytes(4)),
    "true as a size": safetensors_of({"a": entry(0, 1, "U8", [True])}, bytes(1)),
    "nested": safetensors_of({"a": {"dtype": "U8", "shape": [[4]], "data_offsets": [0, 4]}}, bytes(4)),
    "deep": safetensors_of(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "digits": safetensors_of(
        b'{"a":{"dtype":"U8","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}', bytes(4)
    ),
    "a lone surrogate": safetensors_of(b'{"\\ud800": %b}' % json.dumps(entry(0, 4)).encode(), bytes(4)),
    "no UTF-8": safetensors_of(b'{"\xff": 1}'),
    "metadata twice": safetensors_of(b'{"__metadata__": {}, "__metadata__": {"a": "b"}}'),
    "metadata that is no text": safetensors_of({"__metadata__": {"a": 1}}),
    "more after the header": safetensors_of(b'{} {"a": 1}'),
    "a header of nothing": safetensors_of(b""),
    "a length of 2^64 - 1": b"\xff" * 8 + b"{}",
    "a pickle under that name": b"\x80\x02}.",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("verify", ["stamp", "always"])
def test_a_header_that_makes_no_sense_is_refused(
    tmp_path: Path, home: Path, data: bytes, verify: str
) -> None:
    """By `load` as a whole: whatever passes the header must become a tensor, or a LoadError."""
    held = stored(tmp_path / "files", home, {"m/model.safetensors": data})
    with pytest.raises(LoadError):
        load(held.target, home=home, verify=verify)  # type: ignore[arg-type] # parametrized


def test_an_entry_with_much_besides_costs_little_memory() -> None:
    """A header is walked entry by entry for its tensors; nor may its metadata cost more than what it is."""
    filler = ",".join(f'"{number:x}":1' for number in range(900))
    one = '"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0],' + filler + "}"
    text = "{" + ",".join(one % number for number in range(400)) + ',"__metadata__":{"a":"b"}}'
    data = safetensors_of(text.encode())
    tracemalloc.start(1)
    try:
        assert refusal(data) is None
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 * len(data) + MiB


def test_two_gaps_and_metadata_are_no_harm(tmp_path: Path, home: Path) -> None:
    header = {
        "a": entry(8, 16, "F32", [2]),
        "e": entry(16, 16, "F32", [3, 0]),
        "__metadata__": {"__metadata__": "x"},
    }
    held = stored(tmp_path / "files", home, {"m/model.safetensors": safetensors_of(header, bytes(40))})
    loaded = load(held.target, home=home, verify="always")
    assert loaded["a"].equal(torch.zeros(2))
    assert loaded["e"].shape == (3, 0)
    assert loaded.metadata == {"__metadata__": "x"}


def test_four_bit_floats_are_as_safetensors_has_them(tmp_path: Path, home: Path) -> None:
    from safetensors import safe_open as reference

    data = safetensors_of({"a": entry(0, 4, "F4", [2, 4])}, bytes(range(4)))
    held = stored(tmp_path / "files", home, {"m/model.safetensors": data})
    with reference(held.file("m/model.safetensors"), "pt") as file:
        wanted = file.get_tensor("a")
    for verify in ("stamp", "always"):
        found = load(held.target, home=home, verify=verify)["a"]
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        assert found.view(torch.uint8).equal(wanted.view(torch.uint8))


# --- shards ----------------------------------------------------------------------------------------------------


INDEX = "m/model.safetensors.index.json"


def sharded(weight_map: object, **shards: bytes) -> dict[str, bytes]:
    files = {f"m/{name}.safetensors": data for name, data in shards.items()}
    return {**files, INDEX: json.dumps({"weight_map": weight_map}).encode()}


ONE = safetensors({"a": torch.ones(2)})
BAD_SHARDS = {
    "absent": sharded({"a": "one.safetensors", "b": "two.safetensors"}, one=ONE),
    "absolute": sharded({"a": "/etc/passwd"}, one=ONE),
    "outside": sharded({"a": "../../one.safetensors"}, one=ONE),
    "of another component": {**sharded({"a": "../n/two.safetensors"}, one=ONE), "n/two.safetensors": ONE},
    "itself": sharded({"a": "model.safetensors.index.json"}, one=ONE),
    "a nul": sharded({"a": "one.safetensors\0"}, one=ONE),
    "a lone surrogate": sharded({"a": "\ud800"}, one=ONE),
    "null": sharded({"a": None}, one=ONE),
    "a tensor that its shard has not": sharded({"a": "one.safetensors", "b": "one.safetensors"}, one=ONE),
    "one tensor in two": sharded(
        {"a": "one.safetensors", "b": "two.safetensors"},
        one=ONE,
        two=safetensors({"a": torch.ones(1), "b": torch.ones(1)}),
    ),
    "no object": {"m/one.safetensors": ONE, INDEX: b"[" * 100_000},
    "a huge number": {"m/one.safetensors": ONE, INDEX: b'{"weight_map": ' + b"9" * 6000 + b"}"},
}


@pytest.mark.parametrize("files", BAD_SHARDS.values(), ids=BAD_SHARDS)
def test_an_index_that_does_not_hold_is_refused(tmp_path: Path, home: Path, files: dict[str, bytes]) -> None:
    held = stored(tmp_path / "files", home, files)
    with pytest.raises(LoadError) as caught:
        load(held.target, "m", home=home)
    assert str(caught.value).isprintable()


# --- what is asked for -------------------------------------------------------------------------------------------


def test_a_glob_of_tensors_to_keep_that_matches_nothing_is_refused(tmp_path: Path, home: Path) -> None:
    """A slip of the pen would else cast what must not be cast, and nobody would hear."""
    held = stored(
        tmp_path / "files",
        home,
        {"m/model.safetensors": safetensors({"norm": torch.ones(2), "a": torch.ones(1)})},
    )
    with pytest.raises(UsageError, match="nrom"):
        load(held.target, home=home, dtype="bf16", keep_dtype="*nrom*")
    part = load(held.target, home=home, dtype="bf16", tensors="a", keep_dtype="norm")
    assert part["a"].dtype == torch.bfloat16


@pytest.mark.parametrize("asked", ["tensors", "keep_dtype"])
def test_many_names_take_no_time(asked: str) -> None:
    """Names in place of globs, as a program lists them: 3,000 of 3,000."""
    import time

    from diachunk.loader.contents import pick
    from diachunk.loader.dtypes import matches
    from diachunk.loader.layout import Layout, Storage, View

    names = [f"model.layers.{number}.weight" for number in range(3000)]
    views = tuple(View(name, n, torch.uint8, (0,), (1,)) for n, name in enumerate(names))
    layout = Layout((Storage(0, 0, 0, torch.uint8),) * len(names), views)
    started_s = time.process_time()
    if asked == "tensors":
        assert pick(layout, names, "m").names == tuple(names)
    else:
        assert all(matches(name, tuple(names)) for name in names)
    assert time.process_time() - started_s < 1


def test_a_name_with_the_signs_of_a_glob_is_a_name(tmp_path: Path, home: Path) -> None:
    held = stored(
        tmp_path / "files",
        home,
        {
            "m/model.safetensors": safetensors(
                {"a[0]": torch.ones(2), "a0": torch.ones(1), "*": torch.ones(3)}
            )
        },
    )
    assert sorted(load(held.target, home=home, tensors="a[0]")) == ["a0", "a[0]"]
    assert list(load(held.target, home=home, tensors="a[[]0]")) == ["a[0]"]
    from diachunk.api.loading.access import safe_open

    with safe_open(held.target, home=home) as file:
        names = file.keys()
        assert {name: len(file.get_tensor(name)) for name in names} == {"a[0]": 2, "a0": 1, "*": 3}


@pytest.mark.parametrize(
    "device",
    [
        "xla",
        "hpu",
        "vulkan",
        "privateuseone",
        "mps",
        "xpu",
        "ipu",
        "mtia",
        "lazy",
        "fpga",
        "ort",
        "maia",
        "cuda:-1",
        "cuda:9999999999999999999",
        "cpu:0:0",
        1.5,
        None,
        "",
    ],
)
def test_a_device_that_is_absent_or_none_is_refused_in_a_line(device: object) -> None:
    from diachunk.loader.finding import find_device

    with pytest.raises((LoadError, UsageError)):
        find_device(device)  # type: ignore[arg-type] # what users may pass
