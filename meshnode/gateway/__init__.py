"""The guarded local HTTP interface of a node."""
