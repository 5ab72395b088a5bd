"""The same Peer on a real network: sockets, disk, keys, a trainer process."""
