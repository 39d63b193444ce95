"""One module a target. Each has `fuzz_one(data)`, which raises AssertionError for a violation, and `seeds()`."""
