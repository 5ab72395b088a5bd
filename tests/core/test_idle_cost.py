"""What an idle peer costs: the frames that peers really send, and what carries them."""

from __future__ import annotations

from collections import Counter

from mfd.core.config import Config
from mfd.core.frames import Update, encode_frame
from mfd.core.sources import Record, seal_record
from mfd.sim.keys import SimKey
from tests.core.test_membership import settled

PREFIX_BYTES = 4  # length of a frame
TLS_BYTES = 22  # head, content type and tag of one record
TCP_IP_BYTES = 52  # head of a segment with timestamps; a lone acknowledgement is one, empty
NAMES = 256
PING = 1
LIMIT_BYTES_PER_S = 1_000


def on_the_wire(frame_bytes: int) -> int:
    """One frame, each in a segment of its own, or in several of 1,400 bytes."""
    segments = 1 + (frame_bytes + PREFIX_BYTES + TLS_BYTES) // 1_400
    return frame_bytes + PREFIX_BYTES + TLS_BYTES + TCP_IP_BYTES * segments


def routing_bytes_per_s(links: int, config: Config) -> float:
    """Holders renew their records after half of their time; each is passed on over every link."""
    record = seal_record(
        config.network,
        Record("hospital/wards/scans", b"", 1 << 20, 10_000, config.record_valid_us, b""),
        SimKey(b"holder"),
    )
    entry = [record.sealed, 100_000, 100_000, 9]
    frame = len(encode_frame(Update([entry])))
    return NAMES * links * on_the_wire(frame) / (config.record_valid_us / 2e6)


def test_an_idle_peer_costs_less_than_a_kilobyte_a_second() -> None:
    """Rules: M-05, M-16, M-23, M-30"""
    seconds = 240
    world = settled(40)
    world.run(seconds=60)
    world.recording = True
    world.run(seconds=seconds)
    sent, kinds = Counter[int](), Counter[int]()
    for box in world.live():
        for _, other, frame in box.frames:
            sent[box.name] += on_the_wire(len(frame))
            if frame[0] != PING:  # the acknowledgement of a ping rides on the pong
                sent[other] += TCP_IP_BYTES
            kinds[frame[0]] += on_the_wire(len(frame))
    assert {1, 2, 36, 37, 45} <= set(kinds)  # pings, pongs, shuffles and answers, digests
    mean = sum(sent.values()) / len(sent) / seconds + routing_bytes_per_s(7, world.config)
    most = max(sent.values()) / seconds + routing_bytes_per_s(8, world.config)
    print(f"mean {mean:.0f} B/s, most {most:.0f} B/s")
    assert mean < 0.9 * LIMIT_BYTES_PER_S
    assert most < LIMIT_BYTES_PER_S, "with 8 neighbours, two more than the target"
