"""What else could bring one file to every machine of a lab: everybody from the origin with curl, and libtorrent."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

from fixtures.lab import Lab
from fixtures.lab_scenarios import Goods, Result, ideal_s, nodes_of
from fixtures.lab_swarm import Outcome, Runner, Watch, let_go, outcomes

_TORRENT = Path(__file__).parent / "swarm_torrent.py"


def all_with_curl(bed: Lab, load: Goods) -> Result:
    """Everybody from the origin, at the same time."""
    server = bed["origin"].nginx(load.root)
    url = f"http://{bed['origin'].host}/{load.file.name}"
    with Watch(bed) as watch:
        started_at = time.monotonic()
        running = [
            node.spawn(["curl", "-sf", "-o", str(node.folder / "out.bin"), url]) for node in nodes_of(bed)
        ]
        ended: list[Outcome] = []
        for process in running:
            if process.wait():
                raise SystemExit(f"curl ended with {process.returncode}")
            took_s = time.monotonic() - started_at
            ended.append(Outcome("", took_s, took_s, load.size, {}, 0, 0.0))
        carried = watch.carried()
    server.kill()
    return Result(ideal_s(load.size), load.size, ended, carried, watch.samples)


def with_libtorrent(bed: Lab, load: Goods, settings: dict[str, Any] | None = None) -> Result:
    """The origin seeds; every node knows all addresses from the start, as a tracker would have told it."""
    torrent = _torrent(bed.folder / "swarm.torrent", load)
    everybody = [bed["origin"], *nodes_of(bed)]
    runners = []
    for machine in everybody:
        seeds = machine is bed["origin"]
        order = {
            "torrent": str(torrent),
            "folder": str(load.root if seeds else machine.folder),
            "host": machine.host,
            "seed": seeds,
            "peers": [each.host for each in everybody if each is not machine],
            "settings": settings or {},
        }
        runners.append(Runner(machine, _TORRENT, order))
    with Watch(bed) as watch:
        let_go(runners)
        ended = outcomes(runners[1:])
        carried = watch.carried()
    for each in runners:
        each.kill()
    return Result(ideal_s(load.size), load.size, ended, carried, watch.samples)


def _torrent(path: Path, load: Goods) -> Path:
    """One file, in pieces of the size that libtorrent chooses."""
    libtorrent = importlib.import_module("libtorrent")
    made = libtorrent.create_torrent(libtorrent.list_files(str(load.file)))
    libtorrent.set_piece_hashes(made, str(load.root))
    path.write_bytes(libtorrent.bencode(made.generate()))
    return path
