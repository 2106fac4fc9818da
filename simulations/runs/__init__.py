"""Many takes of one scenario: on all cores, on a cluster, and on from where they stopped."""
