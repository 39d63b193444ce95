from __future__ import annotations

from fixtures.preload import project
from fixtures.shared import base, home, own_environment, quick

__all__ = ["base", "home", "own_environment", "project", "quick"]
