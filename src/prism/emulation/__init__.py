"""Emulated links between processes of one machine: text, air time, and the wrappers.

Change here how a link is imitated; whoever sends or receives must not notice the wrapper.
"""
