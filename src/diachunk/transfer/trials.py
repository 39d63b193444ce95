"""Who gave wrong bytes: a whole that is not what was stated cannot say which piece was wrong, so the sources of such
a file are tried one by one, each for all of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from diachunk.chunking.hashes import Hashes
from diachunk.digest import Digest
from diachunk.errors import IntegrityError
from diachunk.manifest.stated import StatedFile
from diachunk.schedule.health import Health
from diachunk.schedule.work import BlobFacts
from diachunk.sources.base import Selective, Source
from diachunk.transfer.progress import Event, FileDone, How, Listener, Notice, Progress

_TOLD_MAX = 10
_MIXED_MAX = 3
"""So many files came wrong from several sources together; from then on each file comes from one alone."""


class NotAsStated(IntegrityError):
    """A whole file arrived and has another digest than the one that was stated."""

    def __init__(self, file: StatedFile, hashes: Hashes) -> None:
        self.file = file
        self.found = f"sha256 {hashes.sha256}" if file.sha256 else f"git id {hashes.git}"
        super().__init__(f"{file.label}: {file.stated} was stated, and what came has {self.found}")


@dataclass(slots=True)
class _Trial:
    """The sources that one file may still be asked of, by number; `alone` is the one whose turn it is."""

    suspects: list[int]
    alone: int | None = None
    tales: list[str] = field(default_factory=list)


class Told:
    """In front of a listener: a file that is complete is said to be so once, whatever rounds came to nothing."""

    def __init__(self, listener: Listener) -> None:
        self.wrong: dict[Digest, NotAsStated] = {}
        self._listener = listener
        self._done: set[tuple[str, str]] = set()

    def __call__(self, event: Event) -> None:
        if isinstance(event, FileDone):
            key = event.component, event.path
            if key in self._done or key in {
                (each.file.component, each.file.path) for each in self.wrong.values()
            }:
                return
            self._done.add(key)
        self._listener(event)

    def take_back(self, file: StatedFile, told_bytes: int, reused_bytes: int) -> None:
        """Of a file that is fetched anew."""
        reused_bytes = min(reused_bytes, told_bytes)
        self._listener(Progress(-reused_bytes, file.component, How.REUSED))
        self._listener(Progress(reused_bytes - told_bytes, file.component, How.FETCHED))


class Trials:
    """Of one fetch. Every doubt leaves a source fewer or a clean draft, so that there is an end to them."""

    def __init__(self, sources: Sequence[Source], listener: Listener) -> None:
        self._sources = sources
        self._listener = listener
        self._trials: dict[Digest, _Trial] = {}
        self._strikes: Counter[int] = Counter()
        self._mixed = 0
        self._told = 0

    def __contains__(self, key: object) -> bool:
        return key in self._trials

    def barred(self, number: int) -> set[Digest]:
        """Files that this source must not be asked for: another is tried alone."""
        return {key for key, each in self._trials.items() if each.alone not in (None, number)}

    def prepare(self, files: Iterable[StatedFile]) -> None:
        """Before a round. Where several files came wrong, one source lies about many: no more mixing, and those that
        were not caught yet come first.
        """
        if self._mixed < _MIXED_MAX:
            return
        for file in files:
            trial = self._trials.get(file.key)
            if trial is None:
                suspects = self._suspects(file)
                if len(suspects) > 1:
                    self._trials[file.key] = _Trial(suspects[1:], suspects[0])
            elif trial.alone is not None and trial.suspects:
                trial.suspects.append(trial.alone)
                self._call_next(trial)

    def is_last(self, file: StatedFile, *, had_local: bool) -> bool:
        """Whether it is the end if what came of this file now is wrong: nobody else is left to be asked."""
        trial = self._trials.get(file.key)
        if trial is not None:
            return not trial.suspects and not had_local
        others = len(self._suspects(file))
        return not others or (others == 1 and not had_local)

    def doubt(self, wrong: NotAsStated, *, had_local: bool) -> None:
        """A whole was wrong, and was thrown away: decides who is asked for it next.

        Args:
            had_local: some of it lay here before: then nobody is convicted.

        Raises:
            IntegrityError: each source was tried, and gives something else than was stated.
        """
        file = wrong.file
        trial = self._trials.get(file.key)
        if trial is None:
            self._mixed += 1
            trial = self._trials[file.key] = _Trial(self._suspects(file))
            if len(trial.suspects) == 1:
                trial.alone = trial.suspects.pop()
        if trial.alone is None or not had_local:
            if trial.alone is not None:
                self._strikes[trial.alone] += 1
                trial.tales.append(f"{self._label(trial.alone)} gives {wrong.found}")
            if not trial.suspects:
                raise _hopeless(file, trial.tales or [f"what is here has {wrong.found}"]) from wrong
            self._call_next(trial)
        assert trial.alone is not None
        self._tell(
            f"{file.label} is not what was stated ({file.stated}, but what came has {wrong.found}); "
            f"fetching it again, from {self._label(trial.alone)} alone"
        )

    def _tell(self, text: str) -> None:
        """Not a line for each of thousands of files."""
        self._told += 1
        if self._told <= _TOLD_MAX:
            self._listener(Notice(text))
        elif self._told == _TOLD_MAX + 1:
            self._listener(Notice("further files are not what was stated: each is fetched again likewise"))

    def pass_over(self, files: Sequence[StatedFile], healths: Sequence[Health]) -> bool:
        """These did not arrive. Where each was asked of one source alone and others are left, those are next.

        Args:
            healths: of the sources, in their order.

        Returns:
            Whether it is worth another round.

        Raises:
            IntegrityError: nobody is left for one of which others gave something else than was stated.
        """
        trials = [(file, self._trials.get(file.key)) for file in files]
        if any(trial is None or trial.alone is None for _, trial in trials):
            return False
        for file, trial in trials:
            assert trial is not None
            assert trial.alone is not None
            health = healths[trial.alone]
            trial.tales.append(f"{health.label}: {health.out or health.last_fault or 'has none of it'}")
            if not trial.suspects:
                if self._strikes and any(" gives " in tale for tale in trial.tales):
                    raise _hopeless(file, trial.tales)
                return False
        for file, trial in trials:
            assert trial is not None
            failed = trial.tales[-1]
            self._call_next(trial)
            assert trial.alone is not None
            self._tell(f"{failed}; fetching {file.label} again, from {self._label(trial.alone)} alone")
        return True

    def _call_next(self, trial: _Trial) -> None:
        trial.suspects.sort(key=lambda number: (self._strikes[number], number))
        trial.alone = trial.suspects.pop(0)

    def _suspects(self, file: StatedFile) -> list[int]:
        serving = [number for number, source in enumerate(self._sources) if _serves(source, file)]
        return sorted(serving, key=lambda number: (self._strikes[number], number))

    def _label(self, number: int) -> str:
        return self._sources[number].label


def _hopeless(file: StatedFile, tales: Iterable[str]) -> IntegrityError:
    return IntegrityError(
        f"{file.label}: {file.stated} was stated, but {'; '.join(tales)}",
        hint="run the same again to fetch it anew; if that ends the same, name another source: --origin URL",
    )


def _serves(source: Source, file: StatedFile) -> bool:
    facts = BlobFacts(file.key, file.size, file.pieces(), file.component, file.path)
    return not isinstance(source, Selective) or source.serves(facts)
