"""Every test here needs a lab of network namespaces."""

from __future__ import annotations

import pytest

from fixtures import lab


@pytest.fixture(scope="session", autouse=True)
def namespaces() -> None:
    if why := lab.missing():
        pytest.skip(why)
