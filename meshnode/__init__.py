"""A peer-to-peer mesh node: agents, capability records, brokers, task graphs."""
