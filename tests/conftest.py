"""For all tests: signals as a person at a terminal has them, no company unless asked for, no deadline for examples."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# What started the tests may have had some ignored (nohup; a job in the background), and processes inherit that:
# then no test could stop what it starts. diachunk itself leaves ignored signals ignored, as it should.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Tests run side by side: a fetch of one must not find, on the network that they share, a node of another.
os.environ.setdefault("DIACHUNK_SHARE", "false")
os.environ.setdefault("DIACHUNK_DISCOVER", "false")

# Side by side on few cores, an example of 0.1 s may take three times that once, and not again. The same examples each
# time: what fails is from the change at hand. `make fuzz` draws others.
settings.register_profile("crowd", deadline=None, derandomize="FUZZ_EXAMPLES" not in os.environ)
settings.load_profile("crowd")
