"""Every limit and timer of the protocol, with unit and reason.

Source: spec/routing.md, spec/transfer.md, spec/custody.md.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Config"]

SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Config:
    """One peer's knobs. The defaults suit a campus network of unequal machines."""

    network: str = "mfd"  # peers of different networks refuse each other
    custodian: bool = False  # take custody without holding data
    slots: int = 8  # walkers owned or being received at once
    # links
    heartbeat_us: int = 2 * SECOND_US  # idle time after which a ping is sent
    suspect_us: int = 6 * SECOND_US  # three heartbeats missed
    down_us: int = 8 * SECOND_US  # two more seconds for a late answer
    redial_min_us: int = SECOND_US
    redial_max_us: int = 30 * SECOND_US
    links_max: int = 64
    # routing
    sources_per_name: int = 8  # without SEEK the walk sees no holder beyond these
    names_max: int = 4_096
    adverts_per_link_max: int = 4_096
    sources_max: int = 16_384  # (name, holder) pairs remembered, about 1 KiB each
    update_batch_us: int = 20_000  # changes wait so long for company; retractions do not wait
    seqno_retry_us: int = SECOND_US
    seqno_retries: int = 3  # each after twice the time; then at the lazy pace
    seqno_lazy_us: int = 30 * SECOND_US  # repair of a detour; doubles up to 64 times itself
    record_valid_us: int = 3_600 * SECOND_US
    # transfer
    thin_window_bytes: int = 8 << 10
    bulk_window_bytes: int = 1 << 20  # at first; grows to 2 x goodput x round trip of the link
    bulk_window_max_bytes: int = 4 << 20
    circuit_bytes_max: int = 64 << 20  # set aside for circuits; a quarter for one neighbour
    opens_per_s: int = 10  # by one neighbour
    opens_burst: int = 32
    thin_per_link_max: int = 64
    bulk_per_link_max: int = 8
    data_bytes_max: int = 64 << 10
    opening_us: int = 10 * SECOND_US
    stalled_us: int = 30 * SECOND_US
    circuit_retries: int = 3
    # custody
    offer_us: int = 10 * SECOND_US  # OFFER without answer
    lease_us: int = 60 * SECOND_US
    held_query_us: int = 3_600 * SECOND_US
    park_retry_us: int = 2 * SECOND_US
    errand_us: int = 120 * SECOND_US
    failed_holder_us: int = 60 * SECOND_US  # a holder that failed a hand-over is left alone so long
