"""Makes what is to be placed ready, under temporary names beside where it belongs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from diachunk.digest import Digest
from diachunk.errors import StoreError
from diachunk.places.base import Manner, Pointer, Spot, Text
from diachunk.places.judge import parent
from diachunk.places.links import CANNOT, CannotLink, LinkMode, Made, make
from diachunk.places.proof import Held
from diachunk.places.records import How, told_of
from diachunk.places.tree import Tree
from diachunk.store.files import Files

Item = Spot | Pointer | Text


@dataclass(frozen=True, slots=True)
class Preparer:
    """One for each component and place.

    Attributes:
        held: the proven file of each blake3 digest.
        staging: see places.base.Layout.
        copied: told the bytes that were copied.
        say: told what a person should know.
    """

    tree: Tree
    files: Files
    held: Mapping[Digest, Held]
    mode: LinkMode
    staging: str
    copied: Callable[[int], None]
    say: Callable[[str], None]
    _cannot: set[tuple[How, int, int]] = field(default_factory=set)

    def prepare(self, item: Item) -> Made:
        """Ready under a temporary name in the item's own directory, which is made if it is not there.

        Raises:
            StoreError: the disk refused, or no kind of link that is wanted is possible.
            IntegrityError: the bytes copied are not the file's.
        """
        with self.tree.directory(parent(item.where), make=True):
            self.tree.settle_root()
        staging = self.staging or parent(item.where)
        if isinstance(item, Text):
            how = How.MARK if item.manner is Manner.MARK else How.TEXT
            temporary = self.tree.prepare_text(staging, item.data)
            return Made(temporary, how, None, told_of(item.data), staging)
        with self.tree.trouble("write", item.where), self.tree.directory(staging, make=True) as fd:
            if isinstance(item, Spot):
                return self._spot(item, fd, staging)
            temporary = self.tree.temporary()
            try:
                os.symlink(item.target, temporary, dir_fd=fd)
            except OSError as error:
                if error.errno not in CANNOT:
                    raise
                raise StoreError(
                    f"{self.tree.root} takes no symbolic links, which programs look for there",
                    hint="place elsewhere: --into DIR",
                ) from error
            return Made(temporary, How.POINTER, None, item.target, staging)

    def _spot(self, spot: Spot, fd: int, staging: str) -> Made:
        """By the first kind of link that works. One that failed between two file systems is not tried again."""
        held = self.held[spot.file.blake3]
        reasons: list[str] = []
        for how in self.mode.ways:
            pair = (how, held.stamp.device, os.fstat(fd).st_dev)
            if pair in self._cannot:
                continue
            temporary = self.tree.temporary()
            try:
                made = make(held, fd, temporary, how, self.files, self.copied)
            except CannotLink as error:
                self.tree.discard(staging, temporary)
                reasons.append(str(error))
                if held.adopted is None and self.mode is LinkMode.AUTO:
                    self._cannot.add(pair)
                continue
            except BaseException:
                self.tree.discard(staging, temporary)
                raise
            if how is How.COPY and self.mode is LinkMode.AUTO:
                self.say(f"{spot.file.path} was copied to {self.tree.root}: no link is possible there")
            return replace(made, staging=staging)
        where: Path = self.tree.path(spot.where)
        raise StoreError(
            f"cannot {self.mode.value} {where}: {'; '.join(reasons) or 'not possible there'}",
            hint="--link-mode auto takes what is possible",
        )
