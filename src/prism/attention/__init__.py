"""The mathematics of Segment Means attention, on plain tensors.

`means` pools rows into segment means and counts, `bias` turns counts into logits, `scaled` attends,
`context` defines what one partitioned forward pass must offer to an instrumented model, and
`virtual` offers it with all partitions in one process, differentiable.
"""
