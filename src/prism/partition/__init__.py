"""The method, on plain tensors: spans, groups, means, bias, attention, the forward pass.

Change here the mathematics; no model, plan text or transport is known here.
"""
