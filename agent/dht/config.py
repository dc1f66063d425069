"""Settings of the DHT. Times in seconds, sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

# What `Network.notify` carries, minus room for what a relay may add to a request (its hop number and the peers to avoid).
MESSAGE_BYTES_MAX = 16 * 1024
MESSAGE_SLACK_BYTES = 512
ITEMS_MAX = 256
AVOID_MAX = 4
SOUGHT_MAX = 16  # keys in one Seek


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordLimits:
    """What one node stores. Past a limit a record is refused with RecordError."""

    value_bytes_max: int = 2048
    ttl_max_s: float = 24 * 3600.0  # how far ahead a record may expire
    clock_skew_s: float = 60.0  # added to ttl_max_s, for peers whose clocks are ahead
    per_key_max: int = 1024  # records under one key, over all subkeys and owners
    owners_per_subkey_max: int = 8  # owners under one (key, subkey)
    per_owner_max: int = 4096  # records of one owner
    per_owner_bytes_max: int = 4 * 1024 * 1024
    records_max: int = 65_536
    bytes_max: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) <= 0 and name != "clock_skew_s":
                raise ValueError(f"{name} must be positive")
        if self.value_bytes_max > 8192:
            raise ValueError("value_bytes_max is at most 8192, so that a record always fits in a message")


@dataclass(frozen=True, kw_only=True, slots=True)
class DhtConfig:
    """One node's settings. The defaults are meant for production and are what the simulator runs."""

    # Neighbours
    siblings: int = 8  # the closest peers, which a node is always connected to
    stratum_bits: int = 1  # a bucket is cut into 2**stratum_bits parts; one connection is wanted in each
    links_max: int = 80  # above it, connections that matter least are closed; half as many more are let in for a while
    newcomer_s: float = 30.0  # how long a new connection is spared from that, for peers that join through us
    known_max: int = 128  # peers heard of and not connected
    dials_max: int = 8  # connections being opened at once
    dial_timeout_s: float = 30.0  # when a Connect that was never reported is given up
    dial_backoff_s: float = 1.0  # after a failed dial; doubles with each
    dial_backoff_max_s: float = 60.0
    sibling_retry_s: float = 8.0  # after a failed dial of a peer that belongs among the siblings it is tried again; doubles
    # Requests
    hop_limit: int = 24
    ack_delay_s: float = 0.25  # a request whose answer has not come back by then is acknowledged
    hop_timeout_s: float = 1.2  # a neighbour that does not acknowledge by then is passed over
    attempt_timeout_s: float = 1.5  # without an answer by then the origin tries another path
    operation_timeout_s: float = 8.0
    careful_timeout_s: float = 12.0  # the same of a careful read, which only liars or losses on most paths keep so long
    grace_s: float = 0.3  # how long the remaining paths are waited for after a useful answer; a careful read then tries another
    read_paths: int = 2  # that an eager read begins with; a careful one with `read_confirmations`
    write_paths: int = 2
    read_confirmations: int = 2  # paths that have to confirm what all holders have signed
    read_doubts: int = 1  # more, if a holder has not signed; besides one for each that has not
    write_confirmations: int = 2  # paths that have to bring what holders have signed for a write; more for each that has not
    witness_timeout_s: float = 0.6  # how long whoever answers a careful read waits for the other holders
    paths_max: int = 16  # paths that one operation may try, retries included
    relays_max: int = 2048  # requests that a node has passed on and whose answer it awaits
    relays_per_peer_max: int = 512
    deliveries_max: int = 256  # routed messages whose handler is still at work
    operations_max: int = 1024  # operations of this node under way
    relay_timeout_max_s: float = 60.0  # how long a request may ask relays to wait
    nothing_s: float = 3.0  # how long an eager read may be told that there was nothing, without asking again
    nothing_max: int = 4096  # keys remembered for that
    # Records
    replicas: int = 5  # so that one record in 3,000 is lost when a fifth of all peers dies at once
    replicas_small: int = 3  # while the node sees at most `small_overlay` peers, itself included
    small_overlay: int = 8
    limits: RecordLimits = field(default_factory=RecordLimits)
    republish_s: float = 600.0  # between two writings of a record of our own that lives that long
    republished_max: int = 1024
    repair_delay_s: float = 0.5  # after a change among the neighbours
    repair_period_s: float = 60.0
    repair_keys_max: int = 128  # keys looked at in one step of a repair
    repair_step_s: float = 0.1
    # Upkeep
    check_min_s: float = 1.0  # between two searches for our own surroundings while we have not found our place
    check_max_s: float = 60.0  # the interval doubles up to this while nothing changes
    check_loss_s: float = 8.0  # the interval after a loss among the siblings
    look_loss_s: float = 1.0  # how soon after a loss the siblings are asked for their neighbours
    look_gain_s: float = 8.0  # the same after a gain
    refresh_step_s: float = 0.5  # between two searches that fill buckets
    refresh_first_s: float = 4.0  # between two rounds over all buckets, at first and after a part lost its last connection
    refresh_period_s: float = 120.0  # the interval doubles up to this
    reunion_period_s: float = 120.0  # between two looks whether somebody who should be in the overlay is
    reunion_min_s: float = 15.0  # the same for whoever has few connections: there are few others to look
    reunion_links: int = 40  # connections from which on the period is the full one
    reunion_quiet_s: float = 60.0  # after coming over from another part, how long others' news of it are not needed
    suspect_s: float = 2.0  # how long a peer that missed an acknowledgement is passed over, and between two pings
    silent_max: int = 8  # misses in a row after which its connection is closed
    answer_peers_max: int = 16  # peers named in one answer

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, (int, float)) and value <= 0:
                raise ValueError(f"{name} must be positive")
        if not 1 <= self.replicas <= self.siblings or not 1 <= self.replicas_small <= self.replicas:
            raise ValueError("1 <= replicas_small <= replicas <= siblings does not hold")
        if self.links_max < 2 * self.siblings:
            raise ValueError("links_max must be at least twice siblings")
        if max(self.read_paths, self.write_paths, self.read_confirmations) > self.paths_max or self.paths_max > 255:
            raise ValueError("paths_max must be at least the number of paths, and at most 255")
        if 2 * self.ack_delay_s > self.hop_timeout_s:
            raise ValueError("ack_delay_s must be at most half of hop_timeout_s")
        if self.hop_limit > 255 or self.answer_peers_max > 64:
            raise ValueError("hop_limit is at most 255 and answer_peers_max at most 64")
