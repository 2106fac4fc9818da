"""A seed node and seed lists: how a stranger finds the mesh."""
