from __future__ import annotations

import pytest

from fixtures.shared import base, home, own_environment, quick, small

__all__ = ["base", "home", "own_environment", "quick", "small"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "network: needs a package index")
