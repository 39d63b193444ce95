"""What every call of the library shares: settings, the store, the manifests that ship with the package."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from diachunk.config import Config, load_config
from diachunk.errors import UsageError
from diachunk.manifest import Manifest, decode
from diachunk.store.store import Store

if TYPE_CHECKING:
    from diachunk.api.sharing import Sharing
    from diachunk.transfer.assemble import Assembly, First
    from diachunk.transfer.destination import Destination
    from diachunk.transfer.progress import Listener


@dataclass(frozen=True)
class Context:
    """Settings, and the store opened when first asked for.

    Attributes:
        sharing: other machines, to take from and give to; None for a call that is on its own.
    """

    config: Config
    sharing: Sharing | None = dataclasses.field(default=None, compare=False, repr=False)
    warned: list[Path] = dataclasses.field(default_factory=list, compare=False, repr=False)

    @classmethod
    def make(cls, home: str | os.PathLike[str] | None = None, settings: Config | None = None) -> Context:
        """Reads the settings, unless they are given. `home` overrides the store's place.

        Raises:
            UsageError: a setting is wrong.
            StoreError: there is nowhere to keep a store.
        """
        if settings is not None:
            place = settings.home if home is None else Path(os.path.abspath(home))
            return cls(dataclasses.replace(settings, home=place))
        if home is not None:
            environment = {**os.environ, "DIACHUNK_HOME": os.fspath(home)}
            return cls(load_config(environment))
        return cls(load_config())

    @cached_property
    def store(self) -> Store:
        return Store.open(self.config.home)

    @cached_property
    def lower_stores(self) -> tuple[Store, ...]:
        return Store.open_lower(self.config.stores)

    def destination(self, directory: str | os.PathLike[str] | None, *, force: bool) -> Destination:
        """The store, or the directory that the user named.

        Raises:
            UsageError: no file system could hold that name.
        """
        from diachunk.transfer.destination import DirectoryDestination, StoreDestination

        if directory is None:
            return StoreDestination(self.store)
        if "\0" in os.fspath(directory):
            raise UsageError(f"{os.fspath(directory)}: not a directory name")
        return DirectoryDestination(self.store, Path(directory), force=force)

    def assembly(
        self,
        manifest: Manifest,
        destination: Destination,
        origins: Iterable[str],
        max_down_bps: int | None,
        listener: Listener,
        *,
        manifest_url: str = "",
        names: bool = False,
        first: First | None = None,
    ) -> Assembly:
        """The engine for one checkpoint: the user's origins, the manifest's, the site's stores as donors, other
        machines where this call has company.

        Raises:
            UsageError: an origin is no URL and no directory.
        """
        from diachunk.api.trust.private import mark_on_login
        from diachunk.sources.context import SourceContext
        from diachunk.sources.hub_access import hub_access
        from diachunk.sources.open import open_origins
        from diachunk.sources.upstream import open_upstream
        from diachunk.transfer.assemble import Assembly
        from diachunk.transfer.progress import Notice

        config = self.config
        if isinstance(origins, str):
            origins = (origins,)
        stranger = SourceContext(config.limits, named_by_user=False)
        access = hub_access()
        upstreams = [
            source
            for each in manifest.components
            if (source := open_upstream(each.name, each.upstream, access, stranger)) is not None
        ]
        self._warn_of_the_network(listener)
        for root in config.stores:
            if not any(store.root == root for store in self.lower_stores):
                listener(Notice(f"store {root}: not there, or no store; nothing is taken from it"))
        sources = [
            *open_origins(
                (*origins, *config.origins), manifest.origins, SourceContext(config.limits), manifest_url
            ),
            *upstreams,
        ]
        mark_on_login(sources, self.store.catalog, [manifest.id])
        return Assembly(
            self.store,
            destination,
            sources,
            config.limits,
            lower=self.lower_stores,
            max_down_bps=max_down_bps or config.max_down_bps,
            names=names,
            first=first,
            swarm=None if self.sharing is None else self.sharing.swarm(manifest),
            listener=listener,
        )

    def _warn_of_the_network(self, listener: Listener) -> None:
        """Once a run: what is different about a store that several hosts share."""
        from diachunk.transfer.progress import Notice

        if self.store.layout.shared_between_hosts and not self.warned:
            self.warned.append(self.store.root)
            listener(
                Notice(
                    f"the store {self.store.root} lies on a network file system: hosts that share it fetch side "
                    "by side, each for itself, and locks may do nothing there"
                )
            )

    def with_sharing(self, sharing: Sharing | None) -> Context:
        return self if sharing is None else dataclasses.replace(self, sharing=sharing)

    def with_patience(self, seconds: float | None) -> Context:
        if seconds is None:
            return self
        limits = dataclasses.replace(self.config.limits, patience_s=seconds)
        return dataclasses.replace(self, config=dataclasses.replace(self.config, limits=limits))


def bundled(pattern: str) -> Iterator[Path]:
    """Manifests and recipes that ship inside the package."""
    package = Path(__file__).parent.parent
    for folder in (package / "manifests", package.parent.parent / "manifests"):
        if folder.is_dir():
            yield from sorted(folder.glob(pattern))
            return


def bundled_manifests() -> Iterator[Manifest]:
    """The manifests that ship inside the package. Each is proven true by a test."""
    for path in bundled("*.json"):
        yield decode(path.read_bytes())
