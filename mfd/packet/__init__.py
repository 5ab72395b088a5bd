"""The packet codec: bytes <-> values. Embeddable: no sockets, no torch, no asyncio."""
