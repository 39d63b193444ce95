"""What other programs have on this machine: used where it lies (adoption), checked and mended (caches)."""
