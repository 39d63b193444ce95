"""Loading while the world is hostile: files that change, stamps that lie, modules that do not fit, interruptions."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
import warnings
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import diachunk
from diachunk.api.loading import load, load_into, stream
from diachunk.digest import digest_of
from diachunk.errors import DiachunkError, IntegrityError, LoadError, UsageError
from diachunk.limits import CHUNK_BYTES, MiB
from diachunk.loader import blob as blobs
from diachunk.loader.events import LoadEvent, LoadPlan, LoadProgress
from diachunk.manifest import ChunkList, Component, FileEntry, build, encode
from fixtures import damage
from fixtures.checkpoints import Checkpoint
from fixtures.tensors import assert_same, blob_of, made, pth, safetensors, stored, weights

FILES = {"model": "model/model.safetensors", "vocoder": "vocoder/w.pth"}
EACH_FORMAT = pytest.mark.parametrize("component", FILES)


@pytest.fixture
def held(tmp_path: Path, home: Path) -> Checkpoint:
    files = {FILES["model"]: safetensors(weights()), FILES["vocoder"]: pth(weights())}
    return stored(tmp_path / "files", home, files)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Neither threads nor open files stay behind, however a load ends."""
    threads, files = set(threading.enumerate()), open_files()
    yield
    until = time.monotonic() + 5
    while time.monotonic() < until and set(threading.enumerate()) - threads:
        time.sleep(0.01)
    left = [each.name for each in set(threading.enumerate()) - threads if not each.name.startswith("asyncio")]
    assert not left
    assert open_files() <= files + 2, "files were left open"


def open_files() -> int:
    """Of this process, but for those that a mapping keeps: they go with the tensors."""
    import gc

    gc.collect()
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


# --- stamps ----------------------------------------------------------------------------------------------------


def stamp_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.stamp")


def restamped(path: Path, **changes: object) -> None:
    known = json.loads(stamp_of(path).read_bytes())
    stamp_of(path).chmod(0o644)
    stamp_of(path).write_text(json.dumps({**known, **changes}))


def test_a_stamp_from_the_future_proves_nothing(held: Checkpoint, home: Path) -> None:
    """A clock that ran ahead must not hide for hours what is done to a file whose mtime is set back."""
    path = blob_of(held, home, FILES["model"])
    restamped(path, verified_at=time.time() + 3600)
    damage.flip(path, 2 * MiB)
    with pytest.raises(IntegrityError):
        load(held.target, "model", home=home)


@pytest.mark.parametrize("verified_at", [float("inf"), float("nan"), -1.0, 0.0])
def test_a_stamp_of_no_time_proves_nothing(held: Checkpoint, home: Path, verified_at: float) -> None:
    path = blob_of(held, home, FILES["model"])
    restamped(path, verified_at=verified_at)
    damage.flip(path, 2 * MiB)
    with pytest.raises(IntegrityError):
        load(held.target, "model", home=home)


def test_the_stamp_of_another_file_proves_nothing(held: Checkpoint, home: Path) -> None:
    one, other = (blob_of(held, home, FILES[name]) for name in FILES)
    damage.flip(one, 2 * MiB)
    shutil.copy2(stamp_of(other), stamp_of(one))
    with pytest.raises(IntegrityError):
        load(held.target, "model", home=home)


def test_a_stamp_is_of_one_list_of_chunks(tmp_path: Path, home: Path, held: Checkpoint) -> None:
    """Another manifest claims the same file, and says other things of its chunks: it is not believed."""
    data = held.file(FILES["model"]).read_bytes()
    liar = lying(tmp_path / "liar.json", data)
    for options in ({}, {"verify": "always"}, {"dtype": "bf16"}):
        with pytest.raises(IntegrityError):
            load(liar, home=home, **options)  # type: ignore[arg-type] # options of several types
    with pytest.raises(DiachunkError):
        load(liar, home=home, repair=True, origins=[str(held.root)], patience_s=1)
    assert_same(load(held.target, "model", home=home), weights())


def lying(target: Path, data: bytes) -> Path:
    sizes = array("I", [min(CHUNK_BYTES, len(data) - at) for at in range(0, len(data), CHUNK_BYTES)])
    digests = b"".join(digest_of(b"%d" % number) for number in range(len(sizes)))
    entry = FileEntry("model.safetensors", len(data), digest_of(data), ChunkList(digests, sizes))
    target.write_bytes(encode(build("lab/liar", "main", [Component("model", (entry,))])))
    return target


# --- files that change -----------------------------------------------------------------------------------------


def test_a_link_in_place_of_a_blob_is_read_and_hashed(held: Checkpoint, home: Path, tmp_path: Path) -> None:
    path = blob_of(held, home, FILES["model"])
    elsewhere = tmp_path / "elsewhere"
    shutil.copy2(path, elsewhere)
    damage.flip(elsewhere, 2 * MiB)
    path.unlink()
    path.symlink_to(elsewhere)
    with pytest.raises(DiachunkError):
        load(held.target, "model", home=home)


@pytest.mark.parametrize("other", ["fifo", "directory", "device"])
def test_what_is_no_file_is_never_waited_for(held: Checkpoint, home: Path, other: str) -> None:
    path = blob_of(held, home, FILES["model"])
    path.unlink()
    if other == "fifo":
        os.mkfifo(path)
    elif other == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(DiachunkError):
        load(held.target, "model", home=home)


def spoil_at(monkeypatch: pytest.MonkeyPatch, method: str, spoil: Callable[[], None], at_call: int) -> None:
    """Does something just before call number `at_call` of a method of the open file."""
    real, calls, lock = getattr(blobs.Blob, method), [0], threading.Lock()

    def spoilt(self: blobs.Blob, *args: Any, **options: Any) -> Any:
        with lock:
            calls[0] += 1
            mine = calls[0] == at_call
        if mine:
            spoil()
        return real(self, *args, **options)

    monkeypatch.setattr(blobs.Blob, method, spoilt)


def overwrite(path: Path) -> None:
    path.chmod(0o644)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 4)
        file.write(os.urandom(size // 2))


@EACH_FORMAT
@pytest.mark.parametrize("options", [{}, {"verify": "always"}, {"dtype": "bf16"}], ids=str)
@pytest.mark.parametrize("at_call", [1, 3, 5])
def test_a_file_that_is_overwritten_while_it_is_hashed_gives_nothing_wrong(
    held: Checkpoint,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    component: str,
    options: dict[str, Any],
    at_call: int,
) -> None:
    """Either the old bytes, all of them, or an error."""
    path = blob_of(held, home, FILES[component])
    stamp_of(path).unlink()
    wanted = load(held.target, component, home=home, verify="always", dtype=options.get("dtype"))
    stamp_of(path).unlink(missing_ok=True)
    spoil_at(monkeypatch, "check", lambda: overwrite(path), at_call)
    try:
        loaded = load(held.target, component, home=home, **options)
    except (IntegrityError, LoadError):
        return
    assert_same(loaded, wanted)


@EACH_FORMAT
def test_what_was_always_verified_is_the_callers_own(held: Checkpoint, home: Path, component: str) -> None:
    loaded = load(held.target, component, home=home, verify="always")
    overwrite(blob_of(held, home, FILES[component]))
    assert_same(loaded, weights())
    assert not loaded.report.mapped_bytes


def test_a_file_cut_off_while_it_is_read_is_an_error(
    held: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = blob_of(held, home, FILES["model"])
    path.chmod(0o644)
    spoil_at(monkeypatch, "read", lambda: os.truncate(path, 3 * MiB), 3)
    with pytest.raises((IntegrityError, LoadError)):
        load(held.target, "model", home=home, verify="always", dtype="bf16")


def test_the_users_own_file_cut_off_while_it_is_loaded_does_not_end_the_process(
    tmp_path: Path, home: Path
) -> None:
    """An adopted file is its owner's, who may save over it at any time; a page that is gone is a SIGBUS."""
    own = made(tmp_path / "mine", {FILES["model"]: safetensors(weights())})
    diachunk.publish([str(own.root / "model")], name="lab/own", home=home)
    code = (
        "import sys, os, torch\n"
        "from diachunk.api.loading import load\n"
        "loaded = load('lab/own', home=sys.argv[1])\n"
        "os.truncate(sys.argv[2], 100)\n"
        "print(sum(float(each.double().abs().sum()) for each in loaded.values() if each.dtype == torch.float32))\n"
    )
    mine = own.file(FILES["model"])
    done = subprocess.run(
        [sys.executable, "-c", code, str(home), str(mine)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done


def test_a_grown_file_is_not_taken_for_the_old_one(held: Checkpoint, home: Path) -> None:
    path = blob_of(held, home, FILES["model"])
    damage.append(path)
    try:
        loaded = load(held.target, "model", home=home)
    except DiachunkError:
        return
    assert_same(loaded, weights())


# --- interruptions, and memory -----------------------------------------------------------------------------------


class Stop(Exception):
    pass


@EACH_FORMAT
@pytest.mark.parametrize("raised", [KeyboardInterrupt, Stop])
@pytest.mark.parametrize("after", [LoadPlan, LoadProgress])
def test_an_interrupted_load_leaves_nothing(
    held: Checkpoint, home: Path, component: str, raised: type[BaseException], after: type
) -> None:
    """See `nothing_left`."""

    def listen(event: LoadEvent) -> None:
        if isinstance(event, after):
            raise raised

    with pytest.raises(raised):
        load(held.target, component, home=home, verify="always", progress=listen)
    assert_same(load(held.target, component, home=home), weights())


LIMITED = """
import resource, sys, threading
import torch
from diachunk.api.loading import load
from diachunk.errors import DiachunkError
target, home, spare = sys.argv[1], sys.argv[2], int(sys.argv[3])
load(target, home=home, verify="always", tensors="small")
from diachunk.loader import job, plan, device, memory
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
plan.check_room.__globals__["available_bytes"] = lambda: None
device.available_bytes = lambda: None
resource.setrlimit(resource.RLIMIT_AS, (used + spare, resource.RLIM_INFINITY))
try:
    load(target, home=home, verify="always")
    print("loaded")
except DiachunkError as error:
    print(type(error).__name__, error.message)
print([each.name for each in threading.enumerate()])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS means something on Linux alone")
@pytest.mark.parametrize("spare_mib", [1, 30, 60])
def test_running_out_of_address_space_is_a_clear_error(tmp_path: Path, home: Path, spare_mib: int) -> None:
    tensors = {"big": torch.zeros(20 * MiB), "small": torch.ones(3)}
    held = stored(tmp_path / "files", home, {"m/w.safetensors": safetensors(tensors)})
    words = [sys.executable, "-c", LIMITED, held.target, str(home), str(spare_mib * MiB)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    said, left = done.stdout.splitlines()
    assert said.startswith(("LoadError", "StoreError")), said
    assert left == "['MainThread']"


def test_two_loads_at_once_give_the_same(held: Checkpoint, home: Path) -> None:
    found: list[object] = []

    def one(options: dict[str, Any]) -> None:
        try:
            found.append(dict(load(held.target, "model", home=home, **options)))
        except BaseException as error:  # noqa: BLE001 - shown by the assertion
            found.append(error)

    stamp_of(blob_of(held, home, FILES["model"])).unlink()
    ways = [{}, {"verify": "always"}, {}, {"repair": True}]
    threads = [threading.Thread(target=one, args=(options,)) for options in ways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4
    for each in found:
        assert isinstance(each, dict), each
        assert_same(each, weights())


@EACH_FORMAT
@pytest.mark.parametrize("options", [{}, {"dtype": "bf16"}, {"verify": "always"}], ids=str)
def test_told_bytes_add_up_also_when_something_is_mended(
    held: Checkpoint, home: Path, component: str, options: dict[str, Any]
) -> None:
    events: list[LoadEvent] = []
    damage.flip(blob_of(held, home, FILES[component]), 2 * MiB)
    loaded = load(
        held.target,
        component,
        home=home,
        repair=True,
        origins=[str(held.root)],
        progress=events.append,
        **options,
    )
    assert loaded.report.repaired
    plan = next(each for each in events if isinstance(each, LoadPlan))
    assert sum(each.bytes for each in events if isinstance(each, LoadProgress)) == plan.total_bytes


def test_mending_while_another_holds_the_partial(held: Checkpoint, home: Path) -> None:
    """Locks only save work: who holds one and does nothing stops nobody."""
    path = blob_of(held, home, FILES["model"])
    damage.flip(path, 2 * MiB)
    entry = held.manifest.components[0].files[0]
    from diachunk.store.layout import Layout

    partial = Layout.open(home).partial(entry.blake3, entry.chunks.id)
    code = "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644); fcntl.flock(fd, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(partial)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        loaded = load(held.target, "model", home=home, repair=True, origins=[str(held.root)], patience_s=3)
        assert_same(loaded, weights())
    finally:
        holder.communicate()


def test_a_legacy_pickle_is_accounted_for(tmp_path: Path, home: Path) -> None:
    data = pth({"a": torch.ones(1000)}, _use_new_zipfile_serialization=False)
    held = stored(tmp_path / "files", home, {"m/w.pth": data})
    assert load(held.target, home=home, allow_code=True).report.result_bytes == 4000


# --- modules ---------------------------------------------------------------------------------------------------


class Net(torch.nn.Module):
    def __init__(self, *, shape: tuple[int, ...] = (3, 4), dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.one = torch.nn.Parameter(torch.zeros(shape, dtype=dtype))
        self.two = torch.nn.Parameter(torch.zeros(5))
        self.register_buffer("count", torch.zeros(2, dtype=torch.int64))


def checkpoint(tmp_path: Path, home: Path, **more: torch.Tensor) -> str:
    tensors = {"one": torch.ones(3, 4), "two": torch.ones(5), "count": torch.arange(2), **more}
    return stored(tmp_path / "files", home, {"m/w.safetensors": safetensors(tensors)}).target


def test_a_complex_tensor_never_loses_its_imaginary_part(tmp_path: Path, home: Path) -> None:
    target = checkpoint(tmp_path, home, one=torch.complex(torch.ones(3, 4), torch.ones(3, 4)))
    with warnings.catch_warnings(), pytest.raises(LoadError, match="one"):
        warnings.simplefilter("ignore")
        load_into(Net(), target, home=home)


def test_a_fraction_is_never_cut_off(tmp_path: Path, home: Path) -> None:
    """Floats do not go into a buffer of integers."""
    target = checkpoint(tmp_path, home, count=torch.tensor([0.5, 1.5]))
    with pytest.raises(LoadError, match="count"):
        load_into(Net(), target, home=home)


def test_two_names_for_one_place_are_refused(tmp_path: Path, home: Path) -> None:
    target = checkpoint(tmp_path, home, other=torch.zeros(5))
    with pytest.raises(UsageError, match="two"):
        load_into(Net(), target, home=home, rename={"two": "two", "other": "two"}, strict=False)


def test_a_name_that_is_mapped_to_nowhere_is_refused(tmp_path: Path, home: Path) -> None:
    target = checkpoint(tmp_path, home)
    with pytest.raises((UsageError, LoadError), match="tow"):
        load_into(Net(), target, home=home, rename={"two": "tow"}, strict=False)


@pytest.mark.parametrize("shape", [(4, 3), (12,), (3, 4, 1), (1, 3, 4), (3, 1), ()])
@pytest.mark.parametrize("meta", [False, True])
def test_a_shape_that_only_broadcasts_is_another_shape(
    tmp_path: Path, home: Path, shape: tuple[int, ...], meta: bool
) -> None:
    target = checkpoint(tmp_path, home)
    with torch.device("meta" if meta else "cpu"):
        net = Net(shape=shape)
    before = {name: each.clone() for name, each in net.state_dict().items()}
    with pytest.raises(LoadError, match="one"):
        load_into(net, target, home=home, strict=False)
    for name, each in net.state_dict().items():
        assert each.device == before[name].device
        assert meta or each.equal(before[name])


def test_a_frozen_meta_module_stays_frozen_and_a_trained_one_can_be_trained(
    tmp_path: Path, home: Path
) -> None:
    target = checkpoint(tmp_path, home)
    with torch.device("meta"):
        net = Net()
    net.two.requires_grad_(False)
    load_into(net, target, home=home)
    assert (net.one.requires_grad, net.two.requires_grad) == (True, False)
    (net.one.sum() * net.two.sum()).backward()  # type: ignore[no-untyped-call] # torch's
    assert net.one.grad is not None


def test_a_module_half_on_meta_is_filled_whole(tmp_path: Path, home: Path) -> None:
    net = Net()
    net.two = torch.nn.Parameter(torch.empty(5, device="meta"))
    kept = net.one
    load_into(net, checkpoint(tmp_path, home), home=home)
    assert net.one is kept
    assert net.one.equal(torch.ones(3, 4))
    assert net.two.equal(torch.ones(5))


def test_a_stream_that_is_never_taken_leaves_nothing(held: Checkpoint, home: Path) -> None:
    """See `nothing_left`."""
    stream(held.target, "model", home=home, verify="always").close()
    running = stream(held.target, "model", home=home, verify="always")
    next(iter(running))
    running.close()
    running.close()
    with pytest.raises(BaseException):  # noqa: B017, PT011 - whatever it is, it ends
        for _ in running:
            pass
        raise StopIteration


assert resource
