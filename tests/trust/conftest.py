from __future__ import annotations

from fixtures.shared import base, home, own_environment, quick

__all__ = ["base", "home", "own_environment", "quick"]
