from __future__ import annotations

from fixtures.shared import base, home, own_environment, quick, small
from fixtures.verified import fetched, published_here

__all__ = ["base", "fetched", "home", "own_environment", "published_here", "quick", "small"]
