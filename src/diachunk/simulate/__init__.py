"""Many nodes in one process on a virtual clock, driven by the same `schedule/` as the real engine."""
