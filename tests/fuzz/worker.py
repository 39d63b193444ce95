"""One target in a process of its own, driven by atheris; arguments after the target's name are libFuzzer's."""

from __future__ import annotations

import sys
import tracemalloc

import atheris

from fuzz.registry import TARGETS


def main() -> None:
    """Never returns: libFuzzer ends the process, with a code other than 0 after a crash."""
    target = TARGETS[sys.argv[1]]
    with atheris.instrument_imports(include=list(target.instrument)):
        module = target.load()
    # Once for all inputs: started anew for each, CPython's keeps some hundred bytes a time, a gigabyte in two minutes.
    tracemalloc.start(1)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], module.fuzz_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
