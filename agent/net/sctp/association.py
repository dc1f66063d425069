"""One SCTP association for data channels, sans-IO (RFC 9260, RFC 8831, RFC 8261; RFC 8260 and RFC 9653 where both want).

    association = Association(config, rng)
    association.begin(now)                     then, whenever something happened:
    association.receive_all(packets, now)      for the packets that came in one wake-up, and after the last of them
    for event in association.events(): ...     what came of it
    while packets := association.transmit(now): send them
    association.next_deadline()                when to call `tick` and then `transmit`, if nothing else happens

It never raises on what a peer sends: badly formed packets are dropped and counted, and a peer that breaks the protocol
ends the association with `Ended(error)`. After `Ended` nothing is taken and nothing comes out.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from agent.errors import HiveError, LinkClosed, LocalError, ProtocolViolation
from agent.net.sctp.budget import WindowBudget
from agent.net.sctp.config import SctpConfig
from agent.net.sctp.events import Ended, Event, Opened, StreamsReset
from agent.net.sctp.express import leading_run
from agent.net.sctp.handshake import Handshake, Peer, Step
from agent.net.sctp.heartbeat import Heartbeat
from agent.net.sctp.outbound import Outbound
from agent.net.sctp.packet import (
    COMMON_HEADER_BYTES,
    Chunk,
    ChunkType,
    Data,
    Framer,
    Init,
    Other,
    Sack,
    chunk_bytes,
    parse,
    sack_bytes,
)
from agent.net.sctp.pathmtu import PathMtu
from agent.net.sctp.reassembly import Reassembler
from agent.net.sctp.receiver import Receiver
from agent.net.sctp.reconfig import Resets
from agent.net.sctp.rtt import RttEstimator
from agent.net.sctp.sender import Sender
from agent.net.sctp.sent import SenderCounts, SenderStart
from agent.net.sctp.shutdown import Shutdown

REPLIES_MAX = 64
"""Answers to the peer's control chunks that may wait for the socket; it repeats what was not answered."""


class Association:
    """See the module. `now` is monotonic seconds, the same clock throughout."""

    def __init__(self, config: SctpConfig, rng: random.Random, budget: WindowBudget | None = None) -> None:
        """`budget` is shared by all associations of the process; without one the receive window grows as `config` lets it."""
        self.config = config
        self.packets_dropped = 0
        """Packets that were badly formed, or not ours."""
        self.rtt = RttEstimator(config.rtt)
        self._budget = budget or WindowBudget(config.window_bytes_max)
        self._framer = Framer(config.port, config.port)
        self._handshake = Handshake(config, rng, self.rtt, self._framer)
        self._heartbeat = Heartbeat(config, self.rtt)
        self._shutdown = Shutdown(self.rtt)
        self._sender: Sender | None = None
        self._receiver: Receiver | None = None
        self._resets: Resets | None = None
        self._mtu = PathMtu(0)
        self._outbound: Outbound | None = None
        self._early: list[tuple[int, int, memoryview]] = []
        self._early_bytes = 0
        self._queue: list[bytes] = []
        self._events: list[Event] = []
        self._ended = False
        self._express = False

    # what the host asks

    @property
    def is_open(self) -> bool:
        """Whether both ends are connected, and nothing has ended it."""
        return self._sender is not None and not self._ended

    @property
    def ended(self) -> bool:
        """Whether `Ended` came or is waiting in `events`."""
        return self._ended

    @property
    def peer(self) -> Peer | None:
        """What the peer announced, once known."""
        return self._handshake.peer

    @property
    def packet_bytes(self) -> int:
        """Size of a full packet."""
        return self._mtu.packet_bytes

    @property
    def path_fell_back(self) -> bool:
        """Whether packets cut for a larger path may be in flight: the host should let the network fragment them."""
        return self._mtu.fell_back

    @property
    def counts(self) -> SenderCounts:
        """What the sending half has done."""
        return self._sender.counts if self._sender else SenderCounts()

    @property
    def pipe_bytes(self) -> int:
        """Bytes that congestion control and the peer's window let be in flight at once."""
        return self._sender.pipe_bytes if self._sender is not None else 0

    def buffered(self) -> int:
        """Bytes taken by `send` and not yet acknowledged."""
        if self._sender is None or self._outbound is None:
            return self._early_bytes
        return self._outbound.queued_bytes + self._sender.unacknowledged

    def events(self) -> list[Event]:
        """Return what has happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def next_deadline(self) -> float | None:
        """When `tick` is wanted, or None."""
        if self._ended:
            return None
        parts: list[float | None] = [self._handshake.next_deadline()]
        if self._sender is not None:
            parts = [self._sender.next_deadline(), self._mtu.next_deadline(), self._heartbeat.next_deadline()]
            parts.append(self._shutdown.next_deadline())
        due = [part for part in parts if part is not None]
        return min(due) if due else None

    # what the host does

    def begin(self, now: float) -> None:
        """Start the handshake; both ends call it. Call once."""
        self._queue += self._handshake.begin(now)

    def send(self, stream: int, protocol: int, data: memoryview) -> None:
        """Take a message for ordered, reliable delivery; the memory must not change until it is acknowledged.

        Before the association is open, messages wait. Raises LinkClosed once it has ended or is being shut down,
        ValueError for a message of the wrong size or an unknown stream, LocalError if the send buffer is full.
        """
        if self._ended or self._shutdown.begun:
            raise LinkClosed("sctp: the association has ended")
        if not 1 <= len(data) <= self.config.message_bytes_max:
            raise ValueError(f"a message has 1 to {self.config.message_bytes_max} bytes, not {len(data)}")
        peer = self._handshake.peer
        if not 0 <= stream < (peer.streams if peer else self.config.streams):
            raise ValueError(f"no stream {stream}")
        if self.buffered() + len(data) > self.config.send_buffer_bytes_max:
            raise LocalError(f"sctp: over {self.config.send_buffer_bytes_max} bytes wait to be acknowledged")
        if self._outbound is None:
            self._early.append((stream, protocol, data))
            self._early_bytes += len(data)
        else:
            self._outbound.put(stream, protocol, data)

    def drop_unsent(self, keep: frozenset[int]) -> None:
        """Forget messages that were not begun, except on the streams in `keep`: we are about to close."""
        if self._outbound is not None:
            self._outbound.clear(keep)

    def receive_all(self, packets: Sequence[bytes], now: float) -> None:
        """Take packets from the peer, in the order of their arrival."""
        at = 0
        while at < len(packets):
            if self._express:
                taken = self._run(packets, at, now)
                if taken:
                    at += taken
                    continue
            self.receive(packets[at], now)
            at += 1

    def _run(self, packets: Sequence[bytes], at: int, now: float) -> int:
        """Take the short way with as many packets as can go it; return how many that were."""
        receiver = self._receiver
        if receiver is None or self._ended or (self._resets is not None and self._resets.pending):
            return 0
        run = leading_run(packets, at, self._handshake.tag)
        if run is None:
            return 0
        try:
            messages = receiver.run(run)
        except ProtocolViolation as error:
            self._abort(error)
            return len(run.payloads)
        if messages is None:
            return 0
        self._heartbeat.heard(now)
        self._events += messages
        return len(run.payloads)

    def receive(self, packet: bytes, now: float) -> None:
        """Take one packet from the peer."""
        if self._ended:
            return
        try:
            tag, chunks = parse(packet, zero_checksum=self.config.zero_checksum)
        except ProtocolViolation:
            self.packets_dropped += 1
            return
        if tag != self._handshake.tag and not self._takes_tag(tag, chunks):
            self.packets_dropped += 1
            return
        self._heartbeat.heard(now)
        try:
            for chunk in chunks:
                if isinstance(chunk, Data):
                    self._data(chunk, now)
                elif isinstance(chunk, Sack):
                    if self._sender is not None:
                        self._sender.sack(chunk, now)
                else:
                    self._control(chunk, now)
                if self.ended:
                    return
        except ProtocolViolation as error:
            self._abort(error)

    def transmit(self, now: float) -> list[bytes]:
        """Return packets to send now, in order; call again until it returns none."""
        packets, self._queue = self._queue, []
        receiver, sender = self._receiver, self._sender
        if sender is None or receiver is None or self._ended:
            return packets
        chunk = self._sack(receiver, sender, now) if receiver.ack_due else b""
        fresh = [] if self._shutdown.quiet else sender.transmit(now)
        if chunk and len(fresh) == 1 and len(fresh[0]) + len(chunk) <= self._mtu.packet_bytes:
            fresh[0] = self._framer.packet(chunk + fresh[0][COMMON_HEADER_BYTES:])  # bundled, RFC 9260 section 6.10
        elif chunk:
            packets.append(self._framer.packet(chunk))
        packets += fresh
        if not self._shutdown.quiet:
            self._doubt_large_packets(sender, now)
        if self._shutdown.begun:
            packets += self._framed(self._shutdown.proceed(sender.idle, receiver.cumulative, now))
        return packets

    def _sack(self, receiver: Receiver, sender: Sender, now: float) -> bytes:
        receiver.tune(now, self.rtt.smoothed_s)
        sack = receiver.sack()
        if sack.gaps:
            sender.copies.path_loses(now)
        return sack_bytes(sack)

    def tick(self, now: float) -> None:
        """Do what is due; `transmit` afterwards."""
        if self._ended:
            return
        try:
            if self._sender is None:
                self._queue += self._handshake.tick(now)
                return
            self._queue += self._sender.tick(now)
            self._doubt_large_packets(self._sender, now)
            self._queue += self._framed(self._heartbeat.tick(now))
            size = self._mtu.probe(now, self.rtt.smoothed_s or 0.0)
            if size is not None:
                self._queue.append(self._framer.packet(self._heartbeat.probe(size, now)))
            self._queue += self._framed(self._shutdown.tick(now))
        except LinkClosed as error:
            self._abort(error)

    def shutdown(self) -> None:
        """Close once everything taken so far has been acknowledged: `Ended(None)` follows. Idempotent."""
        if self._sender is None:
            self.abort("closed before it was open")
        else:
            self._shutdown.begin()

    def abort(self, reason: str) -> None:
        """End now, and tell the peer."""
        if not self._ended:
            self._abort(LinkClosed(f"sctp: {reason}"))

    def _doubt_large_packets(self, sender: Sender, now: float) -> None:
        if sender.black_hole_suspected:
            sender.black_hole_suspected = False
            if self._mtu.black_hole(now):
                sender.resize(self._mtu.packet_bytes)

    # chunks

    def _takes_tag(self, tag: int, chunks: list[Chunk]) -> bool:
        """Packets that rightly come with another tag: INIT with none, and replies to one that has ended (section 8.5.1)."""
        first = chunks[0]
        if isinstance(first, Init):
            return tag == 0 and not first.ack and len(chunks) == 1
        reflected = isinstance(first, Other) and first.type in (ChunkType.ABORT, ChunkType.SHUTDOWN_COMPLETE) and first.flags & 1
        return bool(reflected) and self._handshake.peer is not None and tag == self._handshake.peer.tag

    def _data(self, chunk: Data, now: float) -> None:
        if self._receiver is None:
            self._handshake.cookie_ack()
            self._open_if_ready(now)
        if self._receiver is None:
            return
        messages = self._receiver.data(chunk)
        if messages:
            self._events += messages
        if self._resets is not None and self._resets.pending:
            self._reset(self._resets.progress(self._receiver.cumulative))

    def _control(self, chunk: Init | Other, now: float) -> None:
        if isinstance(chunk, Init):
            self._reply(self._handshake.init(chunk, now))
            return
        match chunk.type:
            case ChunkType.COOKIE_ECHO:
                self._reply(self._handshake.cookie_echo(chunk.body))
            case ChunkType.COOKIE_ACK:
                self._handshake.cookie_ack()
            case ChunkType.HEARTBEAT:
                self._reply(self._framed([chunk_bytes(ChunkType.HEARTBEAT_ACK, chunk.body)]))
            case ChunkType.HEARTBEAT_ACK:
                size = self._heartbeat.answered(chunk.body, now)
                if size and self._sender is not None and self._mtu.arrived(size, now):
                    self._sender.resize(size)
            case ChunkType.ABORT:
                self._end(LinkClosed("sctp: the peer aborted the association"))
            case ChunkType.RE_CONFIG:
                if self._resets is not None and self._receiver is not None:
                    self._reset(self._resets.request(chunk.body, self._receiver))
            case ChunkType.SHUTDOWN | ChunkType.SHUTDOWN_ACK | ChunkType.SHUTDOWN_COMPLETE:
                self._reply(self._framed(self._shutdown.received(chunk.type, now)))
                if self._shutdown.complete:
                    self._end(None)
            case ChunkType.FORWARD_TSN | ChunkType.I_FORWARD_TSN:
                raise ProtocolViolation("sctp: FORWARD-TSN without partial reliability")
            case ChunkType.ERROR if self._sender is None:
                raise ProtocolViolation("sctp: the peer refused the handshake")
            case _:
                pass
        if self._receiver is None:
            self._open_if_ready(now)

    def _reset(self, outcome: tuple[list[bytes], list[int]]) -> None:
        replies, streams = outcome
        self._reply(self._framed(replies))
        if streams:
            self._events.append(StreamsReset(streams))

    def _reply(self, packets: list[bytes]) -> None:
        self._queue += packets[: max(0, REPLIES_MAX - len(self._queue))]

    def _framed(self, chunks: list[bytes]) -> list[bytes]:
        return [self._framer.packet(chunk) for chunk in chunks]

    def _open_if_ready(self, now: float) -> None:
        peer, config = self._handshake.peer, self.config
        if self._handshake.step is not Step.OPEN or peer is None:
            return
        self._outbound = Outbound(interleave=peer.interleave, priorities=config.priorities)
        reassembler = Reassembler(message_bytes_max=config.message_bytes_max, interleave=peer.interleave, streams=config.streams)
        self._receiver = Receiver(
            peer.tsn, reassembler, self._budget, window_bytes=config.window_bytes, window_bytes_max=config.window_bytes_max
        )
        self._mtu = PathMtu(peer.packet_bytes_max)
        start = SenderStart(
            tsn=self._handshake.tsn,
            peer_window=peer.window,
            packet_bytes=self._mtu.packet_bytes,
            interleave=peer.interleave,
        )
        self._sender = Sender(start, self._framer, self._outbound, config.make_congestion(), self.rtt)
        self._resets = Resets(peer.tsn, reassembler)
        for stream, protocol, data in self._early:
            if stream < peer.streams:
                self._outbound.put(stream, protocol, data)
        self._early.clear()
        self._early_bytes = 0
        self._express = peer.interleave and peer.zero_checksum and config.zero_checksum
        self._mtu.begin(now)
        self._heartbeat.begin(now)
        self._events.append(Opened(peer))

    # the end

    def _abort(self, error: HiveError) -> None:
        if self._handshake.peer is not None:
            self._queue = [self._framer.packet(chunk_bytes(ChunkType.ABORT))]
        self._end(error)

    def _end(self, error: HiveError | None) -> None:
        if not self._ended:
            self._ended = True
            if self._receiver is not None:
                self._receiver.close()
            self._events.append(Ended(error))
