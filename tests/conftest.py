"""For all tests: signals as a person at a terminal has them."""

from __future__ import annotations

import signal

# What started the tests may have had some ignored (nohup; a job in the background), and processes inherit that:
# then no test could stop what it starts. diachunk itself leaves ignored signals ignored, as it should.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
