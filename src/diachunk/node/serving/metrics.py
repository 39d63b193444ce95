"""What a node counts, for Prometheus. P10 of docs/protocol.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from diachunk.node.serving.uploads import Uploads
from diachunk.node.stock.room import Room
from diachunk.node.stock.shelf import Shelf
from diachunk.version import __version__


class Metrics:
    """A registry of its own: a program that embeds a node has metrics, too.

    Attributes:
        connections: open ones; set by the hall.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "diachunk_requests", "Requests answered.", ["kind", "status"], registry=self._registry
        )
        self._refused = Counter(
            "diachunk_connections_refused",
            "Connections closed before anything was read.",
            registry=self._registry,
        )
        self._counters: dict[tuple[str, int], Counter] = {}
        self.connections = 0

    def watch(self, shelf: Shelf, uploads: Uploads, room: Room, peers: Callable[[], int]) -> None:
        """Reads these whenever it is asked."""
        self._registry.register(_Live(self, shelf, uploads, room, peers))

    def answered(self, kind: str, status: int) -> None:
        counter = self._counters.get((kind, status))
        if counter is None:
            counter = self._counters[kind, status] = self._requests.labels(kind, str(status))
        counter.inc()

    def refused(self) -> None:
        self._refused.inc()

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _Live(Collector):
    """Figures that somebody else keeps."""

    def __init__(
        self, metrics: Metrics, shelf: Shelf, uploads: Uploads, room: Room, peers: Callable[[], int]
    ) -> None:
        self._metrics = metrics
        self._shelf = shelf
        self._uploads = uploads
        self._room = room
        self._peers = peers

    def collect(self) -> list[Metric]:
        turns, entries = self._uploads.turns, self._shelf.manifests()
        info = GaugeMetricFamily("diachunk_build_info", "This version of diachunk.", labels=["version"])
        info.add_metric([__version__], 1)
        return [
            info,
            CounterMetricFamily(
                "diachunk_uploaded_bytes", "Bytes of blobs and chunks sent.", self._uploads.sent_bytes
            ),
            CounterMetricFamily(
                "diachunk_uploads_refused", "Uploads told to come again.", self._uploads.refused
            ),
            CounterMetricFamily(
                "diachunk_verified_bytes",
                "Bytes hashed by this node before they were offered, because another process wrote them.",
                self._shelf.verified_bytes,
            ),
            GaugeMetricFamily("diachunk_uploads_active", "Uploads with a slot.", turns.active),
            GaugeMetricFamily("diachunk_uploads_queued", "Uploads that wait for a slot.", turns.waiting),
            GaugeMetricFamily("diachunk_uploads_parked", "Uploads whose reader does not read.", turns.parked),
            GaugeMetricFamily("diachunk_upload_slots", "Uploads at a time.", turns.slots),
            GaugeMetricFamily("diachunk_connections", "Open connections.", self._metrics.connections),
            GaugeMetricFamily("diachunk_peers_known", "Other nodes known.", self._peers()),
            GaugeMetricFamily("diachunk_manifests", "Checkpoints known here.", len(entries)),
            GaugeMetricFamily(
                "diachunk_manifests_complete",
                "Checkpoints that are wholly here.",
                sum(entry.have_bytes == entry.total_bytes for entry in entries),
            ),
            GaugeMetricFamily(
                "diachunk_have_bytes",
                "Verified bytes of checkpoints here.",
                sum(e.have_bytes for e in entries),
            ),
            *self._disk(),
        ]

    def _disk(self) -> Iterator[Metric]:
        """Nothing where nobody can tell: a figure of before would hide that the disk is gone."""
        usage = self._room.usage
        if usage is not None:
            yield GaugeMetricFamily(
                "diachunk_store_bytes",
                "Bytes of disk that the store takes, unfinished files included, adopted ones not.",
                usage.store_bytes,
            )
            yield GaugeMetricFamily(
                "diachunk_store_free_bytes", "Bytes free on the store's file system.", usage.free_bytes
            )
