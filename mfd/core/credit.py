"""Memory lent to neighbours, and what their links are measured to bring.

Rules of this file: numbers only; it knows neither circuits nor frames. Quotas go by neighbour,
never by who claims to be behind it.
Source: spec/transfer.md, sections "Credit" and "Quotas".
"""

from __future__ import annotations

__all__ = ["Meter", "Reserve"]

SECOND_US = 1_000_000
SPAN_US = 20_000  # bytes are counted over at least so long before they make a rate
IDLE_US = 100_000  # a pause that is not the link's doing
AGEING = 8  # share by which the round trip goes toward longer ones: not all of them is waiting


class Reserve:
    """Memory set aside for what neighbours may send, before they send it."""

    def __init__(self, total_bytes: int, share: int = 4) -> None:
        self._free = total_bytes
        self._each = total_bytes // share
        self._held: dict[int, int] = {}  # link -> bytes

    def could(self, link: int, size: int) -> bool:
        """Whether `size` bytes are to be had for a neighbour."""
        return size <= self._free and self._held.get(link, 0) + size <= self._each

    def take(self, link: int, size: int) -> bool:
        """Set them aside; False where they are not to be had."""
        if not self.could(link, size):
            return False
        self._free -= size
        self._held[link] = self._held.get(link, 0) + size
        return True

    def give(self, link: int, size: int) -> None:
        """Put back what was taken."""
        self._free += size
        held = self._held.pop(link) - size
        assert held >= 0, f"link {link} gives back {-held} bytes too many"
        if held:
            self._held[link] = held

    @property
    def held(self) -> int:
        """Bytes set aside now."""
        return sum(self._held.values())


class Meter:
    """What one direction of a link brings, seen from bytes alone: no clock but the caller's."""

    __slots__ = ("_bytes", "_last_us", "_span_us", "rate", "rtt_us")

    def __init__(self) -> None:
        self.rate = 0  # bytes a second; 0: not measured
        self.rtt_us = 0  # 0: not measured
        self._bytes = 0
        self._span_us = 0
        self._last_us = 0

    def came(self, size: int, now_us: int) -> None:
        """Count bytes that arrive; the time of a pause is not counted, nor what ended it."""
        gap_us = now_us - self._last_us
        self._last_us = now_us
        if gap_us <= IDLE_US:
            self.took(size, gap_us)

    def took(self, size: int, span_us: int) -> None:
        """Count bytes and how long the link was busy with them."""
        self._bytes += size
        self._span_us += span_us
        if self._span_us < max(SPAN_US, 2 * self.rtt_us):
            return
        rate = self._bytes * SECOND_US // self._span_us
        # up at once, down slowly: a sender that had nothing to send says nothing about the link
        self.rate = rate if rate > self.rate else self.rate + (rate - self.rate) // 4
        self._bytes = self._span_us = 0

    def returned(self, rtt_us: int) -> None:
        """Take a round trip, which may hold waiting: the shortest counts, older ones fade."""
        if self.rtt_us == 0 or rtt_us < self.rtt_us:
            self.rtt_us = max(1, rtt_us)
        else:
            self.rtt_us += (rtt_us - self.rtt_us) // AGEING

    def window(self, low: int, high: int) -> int:
        """Twice what is under way at once on a busy link, within bounds; `low` if not measured."""
        return max(low, min(high, 2 * self.rate * self.rtt_us // SECOND_US))
