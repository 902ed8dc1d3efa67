"""What a program holds: `Cluster`, the models loaded on it, and the ways to open one.

Change here what a caller sees; nothing here knows a socket, a message or a tensor's layout.
"""
