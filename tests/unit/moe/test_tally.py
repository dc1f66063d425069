from __future__ import annotations

import pytest
import torch

from agent.errors import LocalError
from agent.experts.modules import make_module
from agent.manifest import GPTModel, Manifest
from agent.moe.experts_api import BackwardCall, Choice, ForwardCall, new_call_id
from agent.moe.layer import MixtureOfExperts
from agent.moe.local import LocalExperts
from agent.moe.tally import Tally

MODEL = GPTModel(d_model=16, heads=2, layers=1, expert_hidden=32, grid=(2, 2), k_best=2)
MANIFEST = Manifest(name="gpt-crowd", revision=1, title="test", model=MODEL)
(GRID,) = MODEL.grids()
BROKEN = next(iter(GRID))


class Recording(LocalExperts):
    kept = 0

    def forward(self, calls):  # type: ignore[no-untyped-def]
        self.kept += sum(call.keep for call in calls)
        return super().forward(calls)


def experts() -> Recording:
    return Recording({uid: make_module(MANIFEST, uid) for uid in GRID}, fails=lambda direction, uid: uid == BROKEN)


def test_it_computes_the_same_and_counts() -> None:
    inner = experts()
    tally = Tally(inner)
    layer = MixtureOfExperts(16, GRID, 2, experts=tally)
    x = torch.randn(2, 30, 16)
    with torch.no_grad():
        found = layer(x)[0]
        layer.experts = experts()
        assert torch.equal(found, layer(x)[0])
    assert tally.answered == set(GRID) - {BROKEN}
    assert tally.calls >= 4 and tally.calls_failed >= 1


def test_hosts_are_asked_to_keep_nothing() -> None:
    inner = experts()
    uid = list(GRID)[1]
    Tally(inner).forward([ForwardCall(uid=uid, call=new_call_id(), inputs=torch.randn(3, 16))])
    assert inner.kept == 0


def test_it_refuses_to_teach() -> None:
    call = BackwardCall(uid=BROKEN, call=new_call_id(), gradient=torch.zeros(1, 16), inputs=torch.zeros(1, 16))
    with pytest.raises(LocalError, match="does not train"):
        Tally(experts()).backward([call])


def test_choices_are_those_of_the_experts_behind() -> None:
    logits = torch.randn(5, sum(GRID.shape))
    found: Choice = Tally(experts()).choose(GRID, logits, 2)
    assert torch.equal(found.chosen_UK, experts().choose(GRID, logits, 2).chosen_UK)
