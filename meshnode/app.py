"""Joins node, adapters and gateway, from a config: the only place that does."""
