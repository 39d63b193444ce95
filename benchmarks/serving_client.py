"""Takes one file over a few connections in ranges of 4 MiB and throws it away. For benchmarks.serving.

python -m benchmarks.serving_client URL SIZE CONNECTIONS
"""

from __future__ import annotations

import http.client
import sys
import threading
from urllib.parse import urlsplit

from diachunk.limits import CHUNK_BYTES


def take(url: str, size: int, connections: int) -> None:
    """Raises SystemExit if any byte is missing."""
    offsets = iter(range(0, size, CHUNK_BYTES))
    lock, failures = threading.Lock(), list[str]()
    threads = [
        threading.Thread(target=_lane, args=(url, size, offsets, lock, failures)) for _ in range(connections)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if failures:
        raise SystemExit(failures[0])


def _lane(url: str, size: int, offsets: object, lock: threading.Lock, failures: list[str]) -> None:
    where, buffer = urlsplit(url), memoryview(bytearray(CHUNK_BYTES))
    connection = http.client.HTTPConnection(where.hostname or "", where.port or 80, timeout=30)
    while True:
        with lock:
            offset = next(offsets, None)  # type: ignore[call-overload]
        if offset is None:
            return
        wanted = min(CHUNK_BYTES, size - offset)
        connection.request("GET", where.path, headers={"Range": f"bytes={offset}-{offset + wanted - 1}"})
        reply, got = connection.getresponse(), 0
        while got < wanted and (more := reply.readinto(buffer[got:wanted])):
            got += more
        reply.read()
        if reply.status != 206 or got != wanted:
            failures.append(f"{reply.status}, {got} of {wanted} bytes at {offset}")
            return


if __name__ == "__main__":
    take(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
