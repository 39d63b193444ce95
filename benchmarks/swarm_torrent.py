"""A torrent on a machine of a lab: a program, with the barrier of tests/fixtures/lab_fetch.py.

In: {"torrent", "folder", "host", "seed", "peers", "settings"}; then "go". Out: ready, then when it was complete.
It gives until its input ends.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time

_PORT = 6881


def _die_with_the_input() -> None:
    sys.stdin.read()
    os._exit(1)


def main() -> None:
    libtorrent = importlib.import_module("libtorrent")
    order = json.loads(sys.stdin.readline())
    session = libtorrent.session(
        {
            "listen_interfaces": f"{order['host']}:{_PORT}",
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "alert_mask": 0,
            **order["settings"],
        }
    )
    added = libtorrent.add_torrent_params()
    added.ti = libtorrent.torrent_info(order["torrent"])
    added.save_path = order["folder"]
    seeds = order["seed"]
    flags = libtorrent.torrent_flags
    added.flags = flags.seed_mode if seeds else flags.default_flags & ~flags.auto_managed
    added.flags &= ~flags.paused
    if seeds:
        session.add_torrent(added)
    print(json.dumps({"ready": True}), flush=True)
    sys.stdin.readline()
    threading.Thread(target=_die_with_the_input, daemon=True).start()
    started_at, cpu_s = time.monotonic(), time.process_time()
    if not seeds:
        added.peers = [(host, _PORT) for host in order["peers"]]
        handle = session.add_torrent(added)
        while not handle.status().is_seeding:
            time.sleep(0.05)
        print(
            json.dumps(
                {
                    "started_at": started_at,
                    "done_at": time.monotonic(),
                    "cpu_s": time.process_time() - cpu_s,
                }
            ),
            flush=True,
        )
    threading.Event().wait()


if __name__ == "__main__":
    main()
