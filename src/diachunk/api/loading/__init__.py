"""Tensors of a checkpoint onto a device: what `load` finds, opens, waits for and hands on."""
