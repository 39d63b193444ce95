"""`python -m diachunk`."""

from diachunk.cli.main import run

run()
