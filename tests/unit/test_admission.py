"""Certificates of admission: who signs, for whom, for what and until when, judged without asking anybody."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.admission import (
    CERTIFICATE_BYTES_MAX,
    DAY_S,
    SKEW_S,
    AdmissionRequest,
    Certificate,
    Policy,
    Rule,
    issue,
    read,
)
from agent.errors import AdmissionRejected
from agent.identity import Identity

COORDINATOR, STRANGER, BOB, CHARLIE = (Identity.from_seed(bytes([i]) * 32) for i in range(1, 5))
NOW = 1_800_000_000
KEY = COORDINATOR.peer_id


def certificate(**changes: object) -> Certificate:
    values = {
        "format": 1,
        "peer": BOB.peer_id.raw,
        "experiment": "bees",
        "account": "abc",
        "name": "Bob",
        "issued_at": NOW,
        "ends_at": NOW + 14 * DAY_S,
    }
    return Certificate(**{**values, **changes})  # type: ignore[arg-type]


def rule(policy: Policy = "approval", **changes: object) -> Rule:
    return Rule(**{"experiment": "bees", "policy": policy, "key": KEY, **changes})  # type: ignore[arg-type]


def test_what_the_coordinator_signed_admits_that_peer() -> None:
    data = issue(certificate(), COORDINATOR)
    assert len(data) < 300
    for policy in ("open", "invite", "approval"):
        assert rule(policy).judge(BOB.peer_id, data, NOW) == certificate()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "shows no certificate"),
        (b"x" * (CERTIFICATE_BYTES_MAX + 200), "too many"),
        (b"nonsense", "cannot be read"),
        (issue(certificate(), STRANGER), "not signed by the coordinator"),
        (issue(certificate(peer=CHARLIE.peer_id.raw), COORDINATOR), "is for .*, not for"),
        (issue(certificate(experiment="wasps"), COORDINATOR), "is for 'wasps', not for 'bees'"),
        (issue(certificate(issued_at=NOW + SKEW_S + 1), COORDINATOR), "from the future"),
        (issue(certificate(ends_at=NOW - 2 * DAY_S, issued_at=0), COORDINATOR), r"ended 2\.0 days ago"),
    ],
)
def test_anything_else_does_not(data: bytes, says: str) -> None:
    with pytest.raises(AdmissionRejected, match=says):
        rule().check(BOB.peer_id, data, NOW)
    with pytest.raises(AdmissionRejected, match=f"bees admits by approval: .*{says}"):
        rule().judge(BOB.peer_id, data, NOW)
    with pytest.raises(AdmissionRejected, match="bees admits by invitation"):
        rule("invite").judge(BOB.peer_id, data, NOW)
    assert rule("open").judge(BOB.peer_id, data, NOW) is None


def test_clocks_may_be_apart_by_so_much_and_no_more() -> None:
    data = issue(certificate(), COORDINATOR)
    ends = NOW + 14 * DAY_S
    for now in (NOW - SKEW_S, ends + SKEW_S):
        rule().check(BOB.peer_id, data, now)
    for now in (NOW - SKEW_S - 1, ends + SKEW_S + 1):
        with pytest.raises(AdmissionRejected):
            rule().check(BOB.peer_id, data, now)


@given(st.data())
def test_no_altered_byte_is_accepted(data: st.DataObject) -> None:
    altered = bytearray(issue(certificate(), COORDINATOR))
    altered[data.draw(st.integers(0, len(altered) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(AdmissionRejected):
        rule().check(BOB.peer_id, bytes(altered), NOW)


@given(st.binary(max_size=CERTIFICATE_BYTES_MAX + 300))
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(AdmissionRejected):
        read(garbage, KEY)


def test_a_signature_over_something_else_is_refused() -> None:
    """The coordinator signs other things with the same key: none of them is a certificate."""
    payload = msgspec.msgpack.encode(certificate())
    signed = msgspec.msgpack.encode((payload, COORDINATOR.sign("manifest", payload)))
    with pytest.raises(AdmissionRejected, match="not signed by the coordinator"):
        read(signed, KEY)


@pytest.mark.parametrize("wrong", [{"peer": b"short"}, {"experiment": "x" * 64}, {"name": "x" * 41}, {"account": "x" * 41}])
def test_what_no_agent_would_read_is_not_issued(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no certificate can say this"):
        issue(certificate(**wrong), COORDINATOR)


def test_a_request_is_good_for_one_token_peer_experiment_time_and_label() -> None:
    base = AdmissionRequest(peer=str(BOB.peer_id), experiment="bees", at=NOW, label="laptop")
    others = [
        msgspec.structs.replace(base, peer=str(CHARLIE.peer_id)),
        msgspec.structs.replace(base, experiment="wasps"),
        msgspec.structs.replace(base, at=NOW + 1),
        msgspec.structs.replace(base, label="desk"),
    ]
    signed = {base.signed_bytes("token"), base.signed_bytes("other"), *(o.signed_bytes("token") for o in others)}
    assert len(signed) == 2 + len(others)
    assert not any(b"token" in s for s in signed), "the token itself is not in what is signed"
