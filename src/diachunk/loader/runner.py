"""Runs a job to its end: the lanes, again over what had to be mended, and what both end with."""

from __future__ import annotations

from diachunk.errors import LoadError
from diachunk.loader.blob import Damaged
from diachunk.loader.job import Job
from diachunk.loader.lanes import Pipeline
from diachunk.loader.opening import Files

TICK_S = 0.1
_PASSES_MAX = 3


class Runner:
    """Call `start`, then `step` until it says that all is done; `stop` in any case."""

    def __init__(self, job: Job, files: Files, *, repair: bool) -> None:
        self._job = job
        self._files = files
        self._repair = repair
        self._lanes: Pipeline | None = None
        self._passes = 0
        self.over = False

    def start(self) -> None:
        self._job.landing.tell_empty()
        self._job.map_files()
        self._begin(self._job.pipeline(collect=self._repair))

    def _begin(self, lanes: Pipeline) -> None:
        self._lanes = lanes
        self._passes += 1
        lanes.start()

    def step(self, timeout_s: float) -> bool:
        """Waits a while, tells of progress, mends; True once everything is in place.

        Raises:
            IntegrityError: a chunk is damaged, and nothing mended it.
            DiachunkError; or what torch raised.
        """
        lanes = self._lanes
        if lanes is None or self.over:
            return self.over
        finished = lanes.over.wait(timeout_s)
        if not finished:
            self._job.tick()
        try:
            lanes.check()
        except Damaged as damage:
            file = next(n for n, blob in enumerate(self._job.blobs) if blob.facts is damage.facts)
            self._again(file, damage.chunk)
            raise LoadError(f"{damage} was mended meanwhile", hint="load again") from damage
        if finished and lanes.damaged and self._passes < _PASSES_MAX:
            for file, chunk in {file: (file, chunk) for file, chunk in lanes.damaged}.values():
                self._again(file, chunk)
            left = [each for each in lanes.damaged if each[0] not in self._job.work.in_place]
            self._begin(self._job.pipeline(left, collect=self._passes + 1 < _PASSES_MAX))
        elif finished:
            self.over = True
        return self.over

    def _again(self, file: int, chunk: int) -> None:
        job = self._job
        blob = job.blobs[file]
        job.blobs[file] = self._files.again(blob, Damaged(blob.facts, chunk), job.tensors_in(file, chunk))
        if file in job.work.in_place:
            job.remap(file)

    def stop(self) -> None:
        """Ends the lanes; what is not whole is let go of, also where the error that ended it is held."""
        if self._lanes is not None:
            self._lanes.stop()
        if not self.over:
            self._job.landing.release()
