"""The node program: one process per device, told by the coordinator what to load and run.

Change here what a node does with a message, and what it says of its hardware.
"""
