"""One batch under one plan on this node: strategies, passes, the exchange, the record of the cost.

Change here what a node computes and when it waits; who asks for it is not known here.
"""
