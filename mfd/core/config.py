"""Every limit and timer of the protocol, with unit and reason.

Source: spec/routing.md, spec/transfer.md, spec/custody.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from mfd.core.tokens import Token

__all__ = ["Config"]

SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Config:
    """One peer's knobs. The defaults suit a campus network of unequal machines."""

    network: str = "mfd"  # peers of different networks refuse each other
    custodian: bool = False  # take custody without holding data
    issuers: frozenset[bytes] = frozenset()  # whose tokens make members; none: no token is wanted
    token: Token | None = None  # of this peer
    revoked: tuple[bytes, ...] = ()  # revocations that this peer makes known when it starts
    slots: int = 8  # walkers at work here or being received at once
    whole_bytes_max: int = 0  # a larger model is taken in parts alone, as errands; 0: any
    capacity: int = 0  # announced with what is held, such as samples trained a second; 0: untold
    # links
    heartbeat_us: int = 2 * SECOND_US  # idle time after which a ping is sent
    suspect_us: int = 6 * SECOND_US  # three heartbeats missed
    down_us: int = 7_500_000  # for a late answer; with our own lateness it stays below 8 s
    redial_min_us: int = SECOND_US
    redial_max_us: int = 30 * SECOND_US
    links_max: int = 64
    frame_rates: float = 1.0  # times what spec/transfer.md T-32 lets a neighbour send
    flooded_us: int = 60 * SECOND_US  # a neighbour that sent far more is left alone so long
    # membership
    open_network: bool = False  # choose neighbours ourselves; else keep the links that are given
    active_target: int = 6  # degree 6 keeps one component after half of 10,000 have died
    active_max: int = 8  # beyond it somebody has to go
    outbound_min: int = 2  # neighbours that nobody can force upon us
    passive_max: int = 32
    lan_links_max: int = 12  # links to peers heard of on the LAN, where links are given
    visitors_max: int = 256  # links whose other end is no neighbour yet
    visit_us: int = 5 * SECOND_US  # for it to become one
    walk_active: int = 6  # hops of a newcomer's record until somebody takes it in
    walk_passive: int = 3  # hops left when it is remembered; hops of a shuffle
    shuffle_us: int = 30 * SECOND_US  # +- a quarter
    promote_us: int = 5 * SECOND_US
    alone_us: int = SECOND_US  # instead of promote_us, while there is no neighbour
    asks_at_once: int = 3  # half of the target: as many will ask us, where all join at once
    dials_max: int = 8  # under way at once, given addresses apart
    dial_max_us: int = 300 * SECOND_US  # the longest that a peer is left alone
    lost_us: int = 24 * 3_600 * SECOND_US  # how long a neighbour that failed is dialled again
    remembered_max: int = 64  # good peers that survive a restart
    joins_per_s: int = 10  # newcomers sent walking; frames with records taken from one neighbour
    joins_burst: int = 256
    far_links_max: int = 16  # to far peers, by which side ever they were dialled
    far_hops: int = 4  # a way as long as that is worth a link of its own
    far_dial_us: int = 2 * SECOND_US  # so long a far peer is not sought while it is dialled
    far_idle_us: int = 30 * SECOND_US  # without a circuit; then a far link ends
    peer_record_valid_us: int = 3_600 * SECOND_US  # made anew after half of it
    peer_records_max: int = 1_024  # about 300 B each
    # gossip
    rumours_per_s: int = 10  # taken from, and given to, one neighbour
    rumours_burst: int = 64
    rumours_max: int = 1_024
    rumour_bytes_max: int = 4 << 20
    rumour_ids_max: int = 8_192
    rumour_batch_us: int = 50_000  # ids wait so long for company
    tree_us: int = 30 * SECOND_US  # so long after a flood broadcasts begin over the tree it left
    broadcast_hops: int = 9  # aimed at
    tree_near_hops: int = 2  # so near is near in any network: a flood of 10,000 peers has 7 hops
    trees_max: int = 16  # founded within tree_us; then the nearest must do
    graft_us: int = 500_000  # for a rumour whose id is known to come by itself
    rumour_sweep_us: int = 10 * SECOND_US
    rumour_refused_us: int = 600 * SECOND_US  # a refused one is not looked at again
    compare_us: int = 60 * SECOND_US  # with one random neighbour, +- a quarter
    # routing
    sources_per_name: int = 4  # SEEK finds the others
    names_max: int = 4_096
    adverts_per_link_max: int = 4_096
    sources_max: int = 16_384  # (name, holder) pairs remembered, about 1 KiB each
    update_batch_us: int = 20_000  # changes wait so long for company; retractions do not wait
    seqno_retry_us: int = SECOND_US
    seqno_retries: int = 3  # each after twice the time; then at the lazy pace
    seqno_lazy_us: int = 30 * SECOND_US  # repair of a detour; doubles up to 64 times itself
    record_valid_us: int = 3_600 * SECOND_US
    # seek
    seek_every_us: int = 5 * SECOND_US  # one ring in the mean; the rings of one search at once
    seek_rings: tuple[int, ...] = (2, 4, 8, 16)  # hops; the next where the one before found nobody
    seek_hop_us: int = 50_000  # allowed for a hop, each way, before the next ring
    seek_share: float = 0.02  # of a link, for SEEK and its answers
    seek_floor_bytes_per_s: int = 2_000  # at least that
    seek_again_us: int = 30 * SECOND_US  # after a search in vain; doubles up to 64 times itself
    seek_keep_us: int = 300 * SECOND_US  # what was found is believed so long
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
    detour_us: int = 30 * SECOND_US  # a first hop over which a peer was not reached is avoided
    bases_kept: int = 2  # older versions of a walker that stay here for differences; 0: none
    # custody
    offer_us: int = 10 * SECOND_US  # OFFER without answer
    lease_us: int = 60 * SECOND_US
    held_query_us: int = 3_600 * SECOND_US
    released_keep_us: int = 7 * 24 * 3_600 * SECOND_US  # content that custody does not count on
    park_retry_us: int = 2 * SECOND_US
    errand_us: int = 120 * SECOND_US
    siblings_max: int = 4  # versions of a walker's siblings that are at hand at once
    sibling_keep_us: int = 3_600 * SECOND_US  # a released one; it is a cache
    failed_holder_us: int = 60 * SECOND_US  # a holder that failed a hand-over is left alone so long
