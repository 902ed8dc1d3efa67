"""Between coordinator and nodes: messages, their encoding, keys, both ends, membership.

Change here what may be said, who may speak, and who counts as alive; never what it leads to.
"""
