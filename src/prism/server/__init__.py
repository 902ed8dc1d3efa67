"""The HTTP server: protocols in and out, batching, metrics.

Change here how a request from the network becomes a call of a model, and its answer a response.
"""
