"""Ways to a cluster: node processes of this machine, `cluster.yaml`, and how a process ends.

Change here how nodes are started and found; what they do then is not known here.
"""
