"""What a compression costs in accuracy: measured tables and their intervals.

Change here how accuracy is measured and kept; what it allows is the planner's business.
"""
