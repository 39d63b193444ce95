"""What is wrong with a set-up, and the command that cures it. One file a group of checks; `base` is the contract."""
