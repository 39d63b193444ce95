"""Takes a user's file into the store: by reflink where the file system can, else by copying."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path

from diachunk.errors import from_os_error
from diachunk.store.store import Store


def ingest(store: Store, source: Path) -> Path:
    """Copies `source` to a temporary name inside the store and returns that. It gets hashed there, so what
    is published is what was copied, whatever happens to the original meanwhile.

    Raises:
        StoreError: the disk refused.
    """
    files = store.layout.files
    target = store.layout.root / "blobs" / f".ingest-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        with open(source, "rb") as reader, open(target, "xb") as writer:
            os.fchmod(writer.fileno(), files.file_mode)
            if not files.reflink(reader.fileno(), writer.fileno()):
                shutil.copyfileobj(reader, writer, 4 * 1024 * 1024)
            writer.flush()
            files.flush_data(writer.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            target.unlink()
        raise from_os_error(error, "copy", error.filename or f"{source} into the store") from error
    return target
