"""What a node does: trio tasks over the ports, carrying out what the domain decides."""
