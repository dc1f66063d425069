"""The peer closes channels by resetting its outgoing streams (RFC 6525, RFC 8831 section 6.7). We only answer."""

from __future__ import annotations

import struct

from agent.errors import ProtocolViolation
from agent.net.sctp.packet import MASK_32, ChunkType, ParameterType, chunk_bytes, parameters_bytes, parse_parameters
from agent.net.sctp.reassembly import Reassembler
from agent.net.sctp.receiver import Receiver

PERFORMED, DENIED, ALREADY, IN_PROGRESS = 1, 2, 4, 6
_REQUEST = struct.Struct("!LLL")


class Resets:
    """Takes reset requests; one at a time, performed once all data sent before it has come (section 5.2.2)."""

    def __init__(self, peer_tsn: int, reassembler: Reassembler) -> None:
        self._expected = peer_tsn & MASK_32
        self._reassembler = reassembler
        self._waiting: tuple[int, int, list[int]] | None = None

    @property
    def pending(self) -> bool:
        """Whether a request waits for data."""
        return self._waiting is not None

    def request(self, body: bytes, receiver: Receiver) -> tuple[list[bytes], list[int]]:
        """Take RE-CONFIG; return the chunks that answer it and the streams that were reset. Raises ProtocolViolation."""
        replies: list[bytes] = []
        streams: list[int] = []
        for kind, value in parse_parameters(body):
            if kind == ParameterType.RESET_OUTGOING:
                more_replies, more_streams = self._outgoing(value, receiver)
                replies += more_replies
                streams += more_streams
            elif kind == ParameterType.ADD_OUTGOING and len(value) >= 4:
                replies.append(self._reply(int.from_bytes(value[:4], "big"), DENIED))
        return replies, streams

    def progress(self, cumulative: int) -> tuple[list[bytes], list[int]]:
        """All up to `cumulative` has come: perform the request if that is enough."""
        if self._waiting is None or cumulative < self._waiting[1]:
            return [], []
        sequence, _, streams = self._waiting
        self._waiting = None
        for stream in streams:
            self._reassembler.forget(stream)
        return [self._reply(sequence, PERFORMED)], streams

    def _outgoing(self, value: bytes, receiver: Receiver) -> tuple[list[bytes], list[int]]:
        if len(value) < _REQUEST.size or len(value) % 2:
            raise ProtocolViolation("sctp: badly formed stream reset")
        sequence, _, last_tsn = _REQUEST.unpack_from(value)
        streams = list(struct.unpack(f"!{(len(value) - _REQUEST.size) // 2}H", value[_REQUEST.size :]))
        if sequence == self._expected and self._waiting is not None:
            return [self._reply(sequence, ALREADY)], []
        if sequence == self._expected:
            self._expected = (sequence + 1) & MASK_32
            self._waiting = (sequence, receiver.unwrap(last_tsn), streams)
            done = self.progress(receiver.cumulative)
            return done if done[0] else ([self._reply(sequence, IN_PROGRESS)], [])
        if sequence == (self._expected - 1) & MASK_32:
            return [self._reply(sequence, IN_PROGRESS if self.pending else PERFORMED)], []
        return [], []

    @staticmethod
    def _reply(sequence: int, result: int) -> bytes:
        value = sequence.to_bytes(4, "big") + result.to_bytes(4, "big")
        return chunk_bytes(ChunkType.RE_CONFIG, parameters_bytes([(int(ParameterType.RESET_RESPONSE), value)]))
