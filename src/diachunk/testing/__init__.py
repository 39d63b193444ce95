"""What tests, the demo and the benchmarks share: synthetic checkpoints, real and misbehaving servers.

Nothing here is needed to fetch, serve or verify. `checkpoint` needs numpy (extra `demo`), `servers` needs
nginx. Everything listens on loopback alone.
"""
