from __future__ import annotations

from fixtures.foreign import client, hub, lab, no_hub_of_this_machine
from fixtures.shared import base, home, own_environment, quick

__all__ = ["base", "client", "home", "hub", "lab", "no_hub_of_this_machine", "own_environment", "quick"]
