"""diachunk publish: the verb. What it does is diachunk.publish."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diachunk.cli import text
from diachunk.cli.options import Json, Quiet
from diachunk.cli.talk import Talk, raw, stopping_means

if TYPE_CHECKING:
    from diachunk.api.publishing import Published

_LEFT_OUT_SHOWN = 6


def publish(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE", hidden=True)],
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", help="What it is called: org/checkpoint. A recipe says it itself."
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="R", help="Which version of it (main).")
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(
            "--origin", metavar="URL", help="Where the files can be had; written into the manifest."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the manifest here.")
    ] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Take the files into the store, instead of reading them in place.")
    ] = False,
    no_store: Annotated[
        bool, typer.Option("--no-store", help="Only hash; without --out the manifest goes to stdout.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Move NAME@R from another checkpoint.")] = False,
    private: Annotated[
        bool, typer.Option("--private", help="Share it only with those who know the lab's secret.")
    ] = False,
    sign: Annotated[
        Path | None,
        typer.Option("--sign", metavar="KEY", help="Sign it with this key of SSH (~/.ssh/id_ed25519)."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a manifest of files, or of a recipe's.

    SOURCE is a file, a directory, or component=PATH. Files stay where they are and are read from there.
    It may also be one recipe (./dia.toml) or hub:ORG/REPO[@REV]: those files are fetched into the store, and
    published while they arrive.

    With --sign it may be the name or id of what is in the store already: then nothing is read but the manifest.

    Prints the manifest's id, and nothing else, on stdout.
    """
    import diachunk
    from diachunk.cli.progress import show_progress
    from diachunk.cli.tally import Tally
    from diachunk.manifest import encode

    talk = Talk(as_json=as_json, quiet=quiet)
    if copy:
        talk.say("copying into the store first")

    def carry_out() -> Published:
        with stopping_means("nothing was published"), show_progress(talk, Tally(), files=False) as listener:
            return diachunk.publish(
                sources,
                name=name,
                revision=revision,
                origins=origin or (),
                out=out if sign is None else None,
                copy=copy,
                store=not no_store,
                force=force,
                private=private,
                progress=listener,
            )

    if sign is None:
        published = carry_out()
    else:
        from diachunk.api.context import Context
        from diachunk.api.publishing_signed import publish_signed

        # The picture of the progress is gone by then: somebody may be asked for a passphrase.
        published = publish_signed(
            sources,
            sign,
            carry_out,
            name=name,
            out=out,
            context=None if no_store else Context.make(),
            private=private,
        )
    _conclude(talk, published, private=private)
    to_stdout = no_store and out is None
    if to_stdout and not as_json:
        raw(encode(published.manifest))
    else:
        talk.result(published.id)
    document = {"manifest": encode(published.manifest).decode()} if to_stdout and as_json else {}
    talk.emit("done", **_books(published), **document)


def _conclude(talk: Talk, published: Published, *, private: bool) -> None:
    manifest = published.manifest
    files = sum(len(each.files) for each in manifest.components)
    talk.say(
        f"{manifest.ref}: {text.count(files, 'file')}, {text.size(manifest.total_bytes)}, "
        f"{text.count(manifest.chunk_count, 'chunk')} ({manifest.chunking})"
    )
    for component in manifest.components:
        label = component.name or "all files"
        talk.say(f"  {label}: {text.count(len(component.files), 'file')}, {text.size(component.total_bytes)}")
    if published.left_out:
        shown = ", ".join(str(each) for each in published.left_out[:_LEFT_OUT_SHOWN])
        more = len(published.left_out) - _LEFT_OUT_SHOWN
        talk.say(
            f"left out (hidden, or links to directories): {shown}{f' + {more} more' if more > 0 else ''}"
        )
    if published.file is not None:
        talk.say(f"manifest: {published.file}")
    if published.signature is not None:
        from diachunk.api.trust.signers import moment

        talk.say(f"signed on {moment(published.signature.serial)}")
    if private:
        talk.say("private: machines share it only under the lab's secret (token_file), else not at all")
    talk.say(
        "nothing left this machine: put the files on any server, as <component>/<path>, and pass on the manifest"
    )


def _books(published: Published) -> dict[str, object]:
    manifest = published.manifest
    return {
        "id": published.id,
        "name": manifest.name,
        "revision": manifest.revision,
        "files": sum(len(each.files) for each in manifest.components),
        "total_bytes": manifest.total_bytes,
        "chunks": manifest.chunk_count,
        "file": None if published.file is None else str(published.file),
        "left_out": [str(each) for each in published.left_out],
        "serial": None if published.signature is None else published.signature.serial,
    }
