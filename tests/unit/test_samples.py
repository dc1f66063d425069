"""Who writes a sample when, and what is written."""

from __future__ import annotations

import torch
from torch import Tensor

from agent.identity import Identity, PeerId
from agent.samples import TEXT_CHARS_MAX, Sample, SampleConfig, Sampler, chosen, readable

PEERS = [Identity.from_seed(bytes([i]) * 32).peer_id for i in range(5)]
PROMPTS_BT = torch.tensor([list(b"abcdefgh"), list(b"ABCDEFGH")])


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def successor(tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
    """After each byte comes the next one, for certain."""
    return 1e4 * torch.nn.functional.one_hot((tokens_BT + 1) % 256, 256).float(), torch.zeros(())


def make(clock: Clock, others: list[PeerId], tokens: int = 5) -> tuple[Sampler, list[Sample]]:
    told: list[Sample] = []
    config = SampleConfig(period_s=100, tokens=tokens, time_max_s=10)
    return Sampler(PEERS[0], lambda: others, PROMPTS_BT, tell=told.append, config=config, clock=clock), told


def test_it_goes_on_where_the_held_out_text_stops() -> None:
    sampler, told = make(Clock(), [])
    sampler.maybe(successor, lambda: True)
    assert told == [Sample("abcd", "efghi")]


def test_once_in_a_slot_with_another_prompt_each() -> None:
    clock = Clock()
    sampler, told = make(clock, [])
    for _ in range(3):
        sampler.maybe(successor, lambda: True)
    clock.now += 100
    sampler.maybe(successor, lambda: True)
    assert [s.prompt for s in told] == ["abcd", "ABCD"]


def test_of_those_who_know_each_other_one_writes() -> None:
    for slot in range(50):
        assert sum(chosen(slot, own, [p for p in PEERS if p != own]) for own in PEERS) == 1
    assert {p for s in range(50) for p in PEERS if chosen(s, p, PEERS)} == set(PEERS)


def test_whoever_is_not_chosen_writes_nothing() -> None:
    clock = Clock()
    sampler, told = make(clock, PEERS[1:])
    for _ in range(50):
        sampler.maybe(successor, lambda: True)
        clock.now += 100
    assert len(told) == sum(chosen(slot, PEERS[0], PEERS[1:]) for slot in range(10, 60)) < 30


def test_it_stops_when_told_and_when_it_takes_too_long() -> None:
    sampler, told = make(Clock(), [])
    sampler.maybe(successor, lambda: False)
    assert told[0].text == "e"
    clock = Clock()
    sampler, told = make(clock, [])

    def slow(tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
        clock.now += 6
        return successor(tokens_BT)

    sampler.maybe(slow, lambda: True)
    assert told[0].text == "ef"


def test_what_is_written_can_be_shown() -> None:
    assert readable(b"a\x00\x1b[31m\n\tb\r\nc\xff") == "a\ufffd\ufffd[31m\n\tb\nc\ufffd"
    assert len(readable(b"x" * (TEXT_CHARS_MAX + 1))) == TEXT_CHARS_MAX
