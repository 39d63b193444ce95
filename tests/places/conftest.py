from __future__ import annotations

from fixtures.placing import world

__all__ = ["world"]
