"""A store on disk: which directory, whether it is one, and where things lie in it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from diachunk.digest import Digest
from diachunk.errors import StoreError, from_os_error, os_errors
from diachunk.store.files import Files, read_small
from diachunk.store.mounts import is_network, this_host

FORMAT = 1
_MARK = "store.json"
_GUARD_S = 10.0
DIRECTORIES = ("blobs", "manifests", "refs", "pins", "adopted", "drafts", "recipes", "snapshots")
"""Made with the store."""
LATER_DIRECTORIES = ("placed", "private", "seen")
"""Made when they are first needed."""


class Layout:
    """Paths of a store.

    Attributes:
        root: the store's directory.
        store_id: 16 hex digits made when the store was: two processes on one store are not peers.
        shared_between_hosts: whether it lies on a network file system; each host then has its own partials.
    """

    def __init__(self, root: Path, files: Files, store_id: str) -> None:
        self.root = root
        self.files = files
        self.store_id = store_id
        self.shared_between_hosts = is_network(root)

    @classmethod
    def open(cls, root: Path, *, create: bool = True) -> Layout:
        """Opens the store at `root`, making it if it is not there or an empty directory.

        Raises:
            StoreError: not a directory, not a store, made by a newer version, or not writable.
        """
        try:
            if create and not os.path.lexists(root / _MARK):
                Files().make_root(root)
            status = root.stat()
            if not stat.S_ISDIR(status.st_mode):
                raise StoreError(f"{root} is not a directory", hint="set DIACHUNK_HOME to another place")
            files = Files(stat.S_IMODE(status.st_mode))
            mark = read_small(root / _MARK, 4096)
            if mark is None and not create:
                raise StoreError(f"{root} is not a diachunk store")
            if mark is None:
                mark = cls._create(root, files)
            for name in DIRECTORIES if create else ():
                if not (root / name).is_dir():
                    files.make_dirs(root / name, root)
        except OSError as error:
            doing = "make the store" if isinstance(error, FileNotFoundError) else "open the store"
            raise from_os_error(error, doing, root) from error
        return cls(root, files, cls._check(root, mark))

    @classmethod
    def _create(cls, root: Path, files: Files) -> bytes:
        strangers = sorted({entry.name for entry in root.iterdir()} - {*DIRECTORIES, *LATER_DIRECTORIES})
        strangers = [name for name in strangers if not name.startswith(".")]
        if strangers == [_MARK] and (mark := read_small(root / _MARK, 4096)):
            return mark  # Another process made the store since we looked.
        if strangers:
            raise StoreError(
                f"{root} is not a diachunk store: it holds {strangers[0]}",
                hint="set DIACHUNK_HOME to an empty or new directory",
            )
        for name in DIRECTORIES:  # the mark's own flush makes these durable, too
            with contextlib.suppress(FileExistsError):
                os.mkdir(root / name)
                os.chmod(root / name, files.dir_mode)
        mark = json.dumps({"diachunk_store": FORMAT, "store_id": secrets.token_hex(8)}).encode()
        files.replace_text(root / _MARK, mark, durable=True)
        for name in DIRECTORIES:
            files.made_durable(root / name)
        return read_small(root / _MARK, 4096) or mark

    @staticmethod
    def _check(root: Path, mark: bytes) -> str:
        try:
            values = json.loads(mark)
            version, store_id = int(values["diachunk_store"]), str(values["store_id"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise StoreError(f"{root}/{_MARK} is damaged: not a diachunk store") from error
        if version > FORMAT:
            raise StoreError(
                f"{root} was made by a newer diachunk (store format {version}, this one knows {FORMAT})",
                hint="upgrade diachunk, or set DIACHUNK_HOME to another place",
            )
        return store_id

    @contextlib.contextmanager
    def guard(self, *, sweeping: bool) -> Iterator[None]:
        """Keeps a collection and the arrival of a manifest apart: a sweep holds it alone, arrivals together.

        Waits a bounded time. Where locks do nothing a fetch still looks at its files once more when it is done.
        """
        try:
            fd = os.open(self.root / _MARK, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            yield
            return
        kind = fcntl.LOCK_EX if sweeping else fcntl.LOCK_SH
        until = time.monotonic() + _GUARD_S
        try:
            while time.monotonic() < until:
                try:
                    fcntl.flock(fd, kind | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(0.02)
                except OSError:
                    break
            yield
        finally:
            os.close(fd)

    def is_there(self) -> bool:
        """Whether the store is where it was opened: it goes with a disk that is unmounted."""
        return os.path.exists(self.root / _MARK)

    def names_in(self, kind: str) -> list[str]:
        """Names in one of the store's directories, sorted.

        Raises:
            StoreError: it cannot be read.
        """
        with os_errors("read", self.root / kind):
            return sorted(os.listdir(self.root / kind))

    # --- where things lie ----------------------------------------------------------------------------------

    def blob_dir(self, digest: Digest) -> Path:
        return self.root / "blobs" / digest.hex()[:2]

    def blob(self, digest: Digest) -> Path:
        return self.blob_dir(digest) / digest.hex()

    def stamp(self, digest: Digest) -> Path:
        return self.blob_dir(digest) / f"{digest.hex()}.stamp"

    def tensors(self, digest: Digest) -> Path:
        """What the loader keeps of a blob's tensors: follows from its bytes, and goes when it goes."""
        return self.blob_dir(digest) / f"{digest.hex()}.tensors"

    def partial(self, digest: Digest, chunk_list: Digest) -> Path:
        """A partial belongs to one blob *and* one chunk list: manifests that contradict each other about
        a blob must never write into one file. On a network file system it belongs to one host as well:
        page-sized write-back would clobber a neighbour's chunk edges.
        """
        host = f".{this_host()}" if self.shared_between_hosts else ""
        return self.blob_dir(digest) / f"{digest.hex()}.{chunk_list.hex()[:16]}{host}.partial"

    def partials(self, digest: Digest) -> list[Path]:
        """All partials of a blob, those of other chunk lists and hosts included."""
        directory, head = self.blob_dir(digest), f"{digest.hex()}."
        with os_errors("read", directory):
            names = os.listdir(directory) if directory.exists() else []
        found = (name for name in names if name.startswith(head) and name.endswith(".partial"))
        return [directory / name for name in sorted(found)]

    def draft(self, key: Digest, kind: str) -> Path:
        """`kind`: partial, json. See store/drafts.py; on a network file system each host has its own partials."""
        host = f".{this_host()}" if self.shared_between_hosts and kind == "partial" else ""
        return self.root / "drafts" / f"{key.hex()}{host}.{kind}"

    def recipe(self, key: Digest) -> Path:
        return self.root / "recipes" / key.hex()

    def adopted(self, digest: Digest) -> Path:
        return self.root / "adopted" / digest.hex()

    def manifest(self, manifest_id: Digest) -> Path:
        return self.root / "manifests" / f"{manifest_id.hex()}.json"

    def ref(self, name: str, revision: str) -> Path:
        return self.root / "refs" / f"{name}@{revision}"

    def pin(self, manifest_id: Digest) -> Path:
        return self.root / "pins" / manifest_id.hex()

    def private(self, manifest_id: Digest) -> Path:
        return self.root / "private" / manifest_id.hex()

    def seen(self, name: str, revision: str) -> Path:
        return self.root / "seen" / f"{name}@{revision}"

    def snapshot(self, manifest_id: Digest) -> Path:
        return self.root / "snapshots" / manifest_id.hex()

    def named_snapshot(self, name: str, revision: str) -> Path:
        return self.root / "snapshots" / f"{name}@{revision}"

    def free_bytes(self) -> int:
        """What an unprivileged user may still write here."""
        with os_errors("look at", self.root):
            status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize
