"""Frames of bytes between ranks: the protocol, Gloo, staging, timed exchanges.

Change here how bytes travel; what they mean is not known here.
"""
