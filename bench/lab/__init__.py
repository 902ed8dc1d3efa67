"""A real network on one machine: boards in network namespaces, joined by a link that can be shaped.

`python -m bench.lab` brings one up by hand; `Lab` is the same for programs. The benchmarks beside
it run prism's nodes on its boards as the quick start does on devices.
"""
