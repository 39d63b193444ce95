"""`python -m diachunk.simulate --nodes 100 --size-mib 512 --link-mbit 100`: one lab, cold, around one origin."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from diachunk.limits import CHUNK_BYTES, DEFAULT, MiB
from diachunk.simulate.world import MBIT, Setup, World


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m diachunk.simulate", description=__doc__)
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--size-mib", type=int, default=512)
    parser.add_argument("--chunk-kib", type=int, default=CHUNK_BYTES // 1024)
    parser.add_argument("--link-mbit", type=float, default=100.0, help="every node's line, each way")
    parser.add_argument("--origin-mbit", type=float, help="the origin's line (default: the same)")
    parser.add_argument("--latency-ms", type=float, default=1.0, help="one way")
    parser.add_argument("--views-lag-s", type=float, default=0.3, help="nodes hear of each other this late")
    parser.add_argument("--join-s", type=float, default=0.0, help="nodes come evenly over this time")
    parser.add_argument("--kill", type=float, default=0.0, help="this share of the nodes dies half-way")
    parser.add_argument("--leave", action="store_true", help="nodes leave when they are done")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=1, help="so many seeds, from --seed on")
    for name in ("lanes", "swarm_lanes", "feeders", "per_peer", "upload_slots"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(DEFAULT, name))
    chosen = parser.parse_args(arguments)
    for seed in range(chosen.seed, chosen.seed + chosen.runs):
        _run(chosen, seed)
    return 0


def _run(chosen: argparse.Namespace, seed: int) -> None:
    limits = replace(
        DEFAULT,
        lanes=chosen.lanes,
        swarm_lanes=chosen.swarm_lanes,
        feeders=chosen.feeders,
        per_peer=chosen.per_peer,
        upload_slots=chosen.upload_slots,
    )
    setup = Setup(
        nodes=chosen.nodes,
        chunks=-(-chosen.size_mib * MiB // (chosen.chunk_kib * 1024)),
        chunk_bytes=chosen.chunk_kib * 1024,
        link_bps=chosen.link_mbit * MBIT,
        origin_bps=(chosen.origin_mbit or chosen.link_mbit) * MBIT,
        latency_s=chosen.latency_ms / 1000,
        views_lag_s=chosen.views_lag_s,
        seed=seed,
        join_s=[chosen.join_s * number / max(1, chosen.nodes) for number in range(chosen.nodes)],
        lingers=not chosen.leave,
        limits=limits,
    )
    began_at = time.perf_counter()
    world = World(setup)
    killed = int(chosen.kill * chosen.nodes)

    def kill(world: World) -> None:
        for machine in world.machines[:killed]:
            machine.leave()

    world.at(setup.ideal_s * 0.6, kill)
    result = world.run()
    print(
        f"seed {seed}: {len(result.took_s)} of {setup.nodes} nodes ended"
        f"{f', {len(result.failed)} failed' if result.failed else ''}"
        f" · ideal {setup.ideal_s:.1f} s · slowest {result.slowest:.3f}x · median {result.median:.3f}x"
        f" · origin egress {result.egress:.3f}x · hedged {result.hedged_bytes / MiB:.0f} MiB"
        f" · wasted {result.wasted_bytes / MiB:.0f} MiB · {result.refused} refused"
        f" · simulated in {time.perf_counter() - began_at:.1f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
