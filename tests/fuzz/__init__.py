"""Fuzzing: what is fuzzed and how to run it is in docs/fuzzing.md."""
