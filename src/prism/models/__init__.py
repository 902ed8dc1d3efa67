"""Hugging Face models: which ones, how they load, and how their attention is opened up.

`families` describes them in a table, `load` brings one into memory, `inputs` checks and prepares
what it is given, `backends` makes it callable, `instrument` is the only place that touches
transformers' attention.
"""
