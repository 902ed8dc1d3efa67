"""Comparisons: contenders that take turns, policies against hindsight, and their pictures.

Change here how something is compared or drawn; measuring for a map is the profiler's.
"""
