"""Every number of the design in one place, with its unit in its name. Config may override each of them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from diachunk.errors import UsageError

KiB = 1024
MiB = 1024 * KiB
CHUNK_BYTES = 4 * MiB
"""The largest chunk, and the size of a lane's buffer. Part of the manifest format: never configurable."""
TENSOR_CUT_BYTES = 256 * KiB
"""A tensor of at least this size gets its own chunks (rule tensor-4m/1)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on work, waiting and memory. `_s` seconds, `_bytes` bytes, `_bps` bytes a second."""

    lanes: int = 8
    lanes_max: int = 32
    per_origin_start: int = 2
    per_origin_max: int = 8
    connect_timeout_s: float = 5.0
    stall_s: float = 10.0
    first_byte_s: float = 1.0
    min_rate_bps: int = 1 * KiB
    backoff_first_s: float = 0.5
    backoff_max_s: float = 30.0
    park_after_faults: int = 5
    park_s: float = 30.0
    retry_after_max_s: float = 120.0
    patience_s: float = 30.0
    bad_chunks_max: int = 3
    hedge_fraction: float = 0.02
    hedge_chunks_min: int = 2
    redirects_max: int = 10
    slice_s: float = 0.25
    slice_min_bytes: int = 64 * KiB
    slice_max_bytes: int = 1 * MiB
    flush_bytes: int = 256 * MiB
    manifest_bytes_max: int = 256 * MiB
    manifest_files_max: int = 100_000
    manifest_chunks_max: int = 16_000_000
    path_bytes_max: int = 1024
    segment_bytes_max: int = 255
    name_chars_max: int = 96
    nesting_max: int = 16
    tensor_header_bytes_max: int = 100_000_000
    origins_max: int = 256
    per_peer: int = 2
    swarm_lanes: int = 4
    feeders: int = 8
    takeover_s: float = 5.0
    upload_slots: int = 4
    have_wait_s: float = 20.0
    have_interval_s: float = 0.25
    announce_s: float = 30.0
    peer_ttl_s: float = 90.0
    linger_s: float = 60.0
    neighbours_max: int = 40
    peers_known_max: int = 1024
    node_connections_max: int = 512

    @classmethod
    def from_mapping(cls, values: dict[str, object]) -> Limits:
        """Builds limits from the `[limits]` table of a config file.

        Raises:
            UsageError: an unknown name, a wrong type, or a number that is not positive.
        """
        known = {field.name: field.type for field in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise UsageError(f"limits.{name}: no such limit", hint=f"known: {', '.join(sorted(known))}")
            wanted = (int, float) if known[name] == "float" else (int,)
            if isinstance(value, bool) or not isinstance(value, wanted) or not 0 < value < 2**53:
                shown = "that number" if isinstance(value, int) and abs(value) >= 2**53 else f"{value!r:.40}"
                raise UsageError(f"limits.{name}: {shown} is not a positive {known[name]}")
        limits = replace(cls(), **values)  # type: ignore[arg-type]
        if limits.lanes > limits.lanes_max:
            raise UsageError(f"limits.lanes: {limits.lanes} is over lanes_max ({limits.lanes_max})")
        return limits


DEFAULT = Limits()
