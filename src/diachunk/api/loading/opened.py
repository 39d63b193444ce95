"""A target and a component, found; its files opened, or on their way; the loader set up over them."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from diachunk.api.context import Context
from diachunk.api.loading.files import StoreFiles
from diachunk.api.loading.options import LoadSettings
from diachunk.api.targets import Upstream, look_up, resolve
from diachunk.errors import Interrupted, LoadError, UsageError
from diachunk.manifest import Component, Manifest

if TYPE_CHECKING:
    import torch

    from diachunk.api.loading.fetch import BackgroundFetch
    from diachunk.loader.events import LoadReport
    from diachunk.loader.loaded import Loaded
    from diachunk.loader.session import Loading

_TENSORS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".gguf")


class Opened:
    """Use it as a context manager: leaving it ends a fetch that is under way, and waits for it if all went well."""

    def __init__(self, target: str | os.PathLike[str], component: str | None, settings: LoadSettings) -> None:
        need_torch()
        self._opened_at = time.monotonic()
        self.settings = settings
        self._text = os.fspath(target)
        self._context = Context.make(settings.home).with_patience(settings.patience_s)
        self._fetch: BackgroundFetch | None = None
        manifest, url = self._manifest(component)
        self.component = choose_component(manifest, component)
        self.label = " ".join(filter(None, (manifest.ref, self.component.name)))
        self._files = self._make_files(manifest, url)

    def _manifest(self, component: str | None) -> tuple[Manifest, str]:
        if self._text.lower().endswith(_TENSORS) and os.path.isfile(self._text):
            what = shlex.join(("diachunk", "publish", self._text, "--name", "ORG/NAME"))
            raise UsageError(
                f"{self._text!r:.200} is a file of tensors: nothing says what they should be",
                hint=f"`{what}`, then load ORG/NAME",
            )
        found = look_up(self._text, self._context, local=True)
        if isinstance(found, Upstream):
            names = [each.name for each in found.recipe.components]
            component = _choose_name(found.recipe.ref, names, component)
            if self.settings.fetch:
                # Nobody knows its chunks yet: there is nothing to follow until it is here.
                self._start_fetch(component).wait()
            wanted = (component,) if component else ()
            try:
                resolved = resolve(self._text, self._context, local=True, components=wanted)
            except UsageError as error:
                if self.settings.fetch:
                    raise
                words = ("--component", component) if component else ()
                what = shlex.join(("diachunk", "fetch", self._text, *words))
                raise UsageError(
                    error.message, hint=f"`{what}`, or load with fetch=True (--fetch)"
                ) from error
            return resolved.manifest, resolved.url
        return found.manifest, found.url

    def _make_files(self, manifest: Manifest, url: str) -> StoreFiles:
        name, settings = self.component.name, self.settings
        files = StoreFiles(self._context, manifest, name, self._text, settings=settings, url=url)
        if not settings.fetch or all(files.holds(entry) for entry in self.component.files):
            return files
        from diachunk.api.loading.fetch import FetchedFiles

        fetch = self._start_fetch(name)
        return FetchedFiles(self._context, manifest, name, self._text, fetch, settings=settings)

    def _start_fetch(self, component: str) -> BackgroundFetch:
        from diachunk.api.loading.fetch import BackgroundFetch

        self._fetch = BackgroundFetch(self._text, component, self.settings, self.settings.progress)
        self._fetch.start()
        return self._fetch

    def loading(
        self,
        *,
        order: Sequence[str] | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        by_name: bool = False,
    ) -> Loading:
        """The loader over this component. `device` and `dtype` go before what the caller's options say.

        Args:
            by_name: single tensors will be asked for, nobody knows which.

        Raises:
            LoadError, IntegrityError, UsageError: see `load`.
        """
        from diachunk.loader.session import Loading, make_request

        settings = self.settings
        request = make_request(
            self.label,
            self.component,
            device=settings.device if device is None else device,
            dtype=settings.dtype if dtype is None else dtype,
            tensors=settings.tensors,
            keep_dtype=settings.keep_dtype,
            order=order,
            repair=settings.repair,
            allow_code=settings.allow_code,
            by_name=by_name,
        )
        return Loading(request, self._files, settings.progress)

    def settle(self, report: LoadReport) -> None:
        """All is loaded: waits for what the fetch still has to flush.

        Raises:
            DiachunkError: what ended the fetch.
        """
        if self._fetch is not None:
            self._fetch.wait()
            report.fetched_bytes = self._fetch.fetched_bytes
        report.repaired = list(dict.fromkeys(self._files.mended))
        report.elapsed_s = time.monotonic() - self._opened_at

    def close(self) -> None:
        if self._fetch is not None:
            self._fetch.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def load_with(target: str | os.PathLike[str], component: str | None, settings: LoadSettings) -> Loaded:
    """`load`, its options in one piece."""
    try:
        with Opened(target, component, settings) as opened:
            loaded = opened.loading().load()
            opened.settle(loaded.report)
            return loaded
    except KeyboardInterrupt:
        raise Interrupted("stopped", hint="nothing was changed; what was fetched is kept") from None


def choose_component(manifest: Manifest, name: str | None) -> Component:
    """The component of that name; without one, the only one that there is.

    Raises:
        UsageError: there are several, or none of that name. Lists them.
    """
    names = [each.name for each in manifest.components]
    return manifest.components[names.index(_choose_name(manifest.ref, names, name))]


def _choose_name(ref: str, names: list[str], name: str | None) -> str:
    known = ", ".join(each or '""' for each in names)
    if name is None and len(names) != 1:
        raise UsageError(f"{ref} has several components: name one of them", hint=known)
    if name is not None and name not in names:
        hint = "its only one has no name: leave the component out" if names == [""] else f"it has: {known}"
        raise UsageError(f"{ref} has no component {name!r:.96}", hint=hint)
    return names[0] if name is None else name


def need_torch() -> None:
    """Raises LoadError if PyTorch is not installed, or does not start."""
    try:
        # Now, and not as part of the load: it takes a second, once a process, and is no reading and no hashing.
        import diachunk.loader.session as _  # noqa: F401
    except (ImportError, OSError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            raise LoadError("loading needs PyTorch", hint="pip install 'diachunk[load]'") from error
        # Installed for another CUDA or Python, a library missing, no memory: to install it again may not help.
        said = (str(error).splitlines() or [""])[0]
        what = f"PyTorch is installed, but does not start: {said:.200}"
        raise LoadError(what, hint='`python -c "import torch"` says all of it') from error
