"""How much of the disk a store takes."""

from __future__ import annotations

import os
import stat

from diachunk.errors import os_errors
from diachunk.store.layout import Layout
from diachunk.store.store import Store


def own_files(layout: Layout) -> tuple[dict[str, int], int]:
    """The sizes of the store's own files by name, and the disk space that they take; partials and stamps too.

    One walk over the directories costs less than to ask for thousands of blobs one by one.

    Raises:
        StoreError: they cannot be read.
    """
    sizes: dict[str, int] = {}
    total = 0
    with os_errors("read"), os.scandir(layout.root / "blobs") as directories:
        for directory in directories:
            if not directory.is_dir(follow_symlinks=False):
                continue
            with os.scandir(directory) as entries:
                for entry in entries:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # a fetch that goes on gave it another name
                    total += status.st_blocks * 512
                    if stat.S_ISREG(status.st_mode) and entry.name.startswith(directory.name):
                        sizes[entry.name] = status.st_size
    return sizes, total


def disk_bytes(store: Store) -> int:
    """What the store takes, of files that are on their way as well; adopted files are not its own.

    Raises:
        StoreError: it cannot be read.
    """
    return own_files(store.layout)[1] + store.drafts.disk_bytes()
