"""Owns requests: admits, decides, schedules, dispatches, retries, and watches the links.

Change here what happens to a request between the caller and the nodes.
"""
