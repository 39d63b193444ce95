"""An origin that is a directory: a mounted share, a USB disk, `file://`."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

from diachunk.errors import UsageError
from diachunk.schedule.health import Fault, Tier
from diachunk.schedule.work import Run
from diachunk.sources.base import Flow, SourceFault, Stream
from diachunk.sources.context import SourceContext, split_url
from diachunk.sources.local import open_regular, read_exactly
from diachunk.sources.template import OriginTemplate


class DirectoryOrigin:
    """Reads `DIR/<component>/<path>`. Named by the user only: never taken from a manifest."""

    tier = Tier.NETWORK

    def __init__(self, url: str, context: SourceContext) -> None:
        split = split_url(url)
        if split.scheme == "file" and split.netloc not in ("", "localhost"):
            raise UsageError(f"origin {url}: file:// takes no host", hint="file:///absolute/path")
        self._template = OriginTemplate(unquote(split.path) if split.scheme == "file" else url, quote=False)
        self.label = str(self._template.base)

    def exists(self) -> bool:
        return os.path.isdir(self._template.base)

    def fill(self, run: Run, start: int, view: memoryview, flow: Flow) -> None:
        path = Path(self._template.locate(run.blob.component, run.blob.path))
        try:
            fd = open_regular(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SourceFault(Fault.MISSING, f"no {path}") from error
        except OSError as error:
            raise SourceFault(Fault.DENIED, f"{path}: {error.strerror}") from error
        try:
            try:
                size = os.fstat(fd).st_size
            except OSError as error:
                raise SourceFault(Fault.DENIED, f"{path}: {error.strerror}") from error
            if size != run.blob.size:
                raise SourceFault(Fault.GARBLED, f"{path} has {size:,} bytes, not {run.blob.size:,}")
            read_exactly(fd, run.offset + start, view, flow, str(path))
        finally:
            os.close(fd)

    def stream(self, run: Run, flow: Flow) -> Stream:
        raise SourceFault(Fault.FAILED, "directories are read by range")

    def close(self) -> None:
        return
