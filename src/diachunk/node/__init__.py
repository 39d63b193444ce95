"""A node: the peer server, who else is there, and what they have. docs/protocol.md is the contract.

One asyncio loop on a thread of its own: control here, data in the lanes (docs/decisions/0001).
"""
