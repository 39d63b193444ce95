"""A machine's set of checkpoints, kept complete, and the lock that pins it."""
