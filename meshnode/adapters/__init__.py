"""The real world behind the ports: libp2p, Kademlia, SQLite, the clock."""
