"""Where an origin keeps a file: whatever it is called, the request goes to the host that was named."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from diachunk.errors import UsageError
from diachunk.limits import DEFAULT
from diachunk.manifest.names import is_component
from diachunk.manifest.paths import path_fault
from diachunk.sources.context import SourceContext, split_url
from diachunk.sources.open import open_origin
from diachunk.sources.template import OriginTemplate
from fuzz.checks import Reader, bounded, text_of

DICTIONARY = (
    b"https://", b"http://", b"file://", b"{path}", b"{component}", b"..", b"%2e%2e", b"?", b"#", b"@", b":80",
    b"//", b"[::1]", b"\\", b"%00", b"\xc3\xa9",
)  # fmt: skip
_STRANGER = SourceContext(named_by_user=False)


def fuzz_one(data: bytes) -> None:
    """A line of origin, a line of component, the rest is a path."""
    reader = Reader(data)
    text, component, path = (text_of(each) for each in (reader.line(), reader.line(), reader.rest()))
    size = len(data)
    source, _ = bounded(lambda: open_origin(text, _STRANGER), size, errors=(UsageError,), base_bytes=8 << 20)
    if source is not None:
        assert source.label.isprintable() or not text.isprintable()
        assert urlsplit(text).scheme in ("http", "https")
        source.close()
    bounded(lambda: split_url(text), size, errors=(UsageError,))
    if not is_component(component) or path_fault(path, DEFAULT):
        return
    template, _ = bounded(lambda: OriginTemplate(text), size, errors=(UsageError,))
    if template is None:
        return
    # A template may name the path as often as it likes, and each byte of it may take three.
    located, _ = bounded(
        lambda: template.locate(component, path), size, base_bytes=1 << 20, bytes_per_byte=64 + size
    )
    assert located is not None
    assert template.base
    plain = "{path}" not in text and "#" not in text
    if source is not None and plain:
        asked = urlsplit(located)
        assert asked.netloc == urlsplit(text).netloc, "another host"
        assert asked.query == urlsplit(text).query
        assert unquote(asked.path).endswith("/" + "/".join(part for part in (component, path) if part))


def seeds() -> list[bytes]:
    return [
        b"https://example.org/a\nmodel\nd/weights.bin",
        b"https://example.org/a?token=x\n\nweights 1%.bin",
        b"https://example.org/{component}/x/{path}?v=1\nmodel\n\xc3\xa9.bin",
        b"http://[::1]:8420/\nm\na?b#c",
        b"file:///tmp\nm\na",
        b"https://user:secret@example.org/\nm\na",
        b"https://example.org\nm\n@evil.example/x",
        b"https://example.org:99999/\nm\na",
    ]
