"""The same Peer in an invented world: one heap, one seed, a virtual clock."""
