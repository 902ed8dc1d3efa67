"""One batch and one plan on this node: `engine` runs it, `sequence` is a partition's part."""
