"""The manifest: schema, signature, revision."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ManifestRejected
from agent.identity import Identity
from agent.manifest import MANIFEST_BYTES_MAX, GPTModel, Manifest, TextFile, decode, decode_signed, sign

COORDINATOR, STRANGER = (Identity.from_seed(bytes([i]) * 32) for i in (1, 2))
MANIFEST = Manifest(name="gpt-crowd", revision=3, title="GPT", data=TextFile(sha256="0" * 64))


def test_a_signed_manifest_travels_as_json() -> None:
    signed = decode_signed(msgspec.json.encode(sign(MANIFEST, COORDINATOR)))
    assert signed.open(pinned_key=str(COORDINATOR.peer_id), name="gpt-crowd", revision_min=3) == MANIFEST


def test_another_key_name_or_an_older_revision_is_refused() -> None:
    signed = sign(MANIFEST, COORDINATOR)
    with pytest.raises(ManifestRejected, match="another coordinator key"):
        signed.open(pinned_key=str(STRANGER.peer_id))
    with pytest.raises(ManifestRejected, match="not for 'other'"):
        signed.open(name="other")
    with pytest.raises(ManifestRejected, match="older than 4"):
        signed.open(revision_min=4)
    with pytest.raises(ManifestRejected, match="no usable signing key"):
        msgspec.structs.replace(signed, key="?").open()


@given(st.data())
def test_no_altered_byte_is_accepted(data: st.DataObject) -> None:
    signed = sign(MANIFEST, COORDINATOR)
    i = data.draw(st.integers(0, len(signed.payload) - 1))
    payload = bytearray(signed.payload)
    payload[i] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ManifestRejected, match="altered"):
        msgspec.structs.replace(signed, payload=bytes(payload)).open()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "GPT crowd"}, r"\$\.name"),
        ({"name": "gpt-crowd\n"}, r"\$\.name"),
        ({"revision": 0}, r"\$\.revision"),
        ({"model": {"kind": "gpt", "layers": 0}}, r"\$\.model\.layers"),
        ({"model": {"kind": "lstm"}}, "lstm"),
        ({"model": {"kind": "gpt", "heads": 7}}, "multiple of heads"),
        ({"model": {"kind": "gpt", "grid": [2], "k_best": 3}}, "k_best 3"),
        ({"model": {"kind": "gpt", "grid": [256, 256], "layers": 2}}, "65,536"),
        ({"model": {"kind": "gpt", "vocabulary": 255}}, "values of a byte"),
        ({"model": {"kind": "image-classifier"}}, "learns from images"),
        ({"data": {"kind": "digits"}}, "learns from text"),
        ({"model": {"kind": "image-classifier", "patch": 3}, "data": {"kind": "digits"}}, r"\$\.model\.patch"),
        ({"model": {"kind": "image-classifier", "heads": 7}, "data": {"kind": "digits"}}, "multiple of heads"),
        ({"bootstrap": ["ws://host:1/short"]}, r"\$\.bootstrap"),
        ({"bootstrap": ["http://host:1/" + "a" * 52]}, r"\$\.bootstrap"),
        ({"bootstrap": ["ws://user@host:1/" + "a" * 52]}, r"\$\.bootstrap"),
        ({"data": {"kind": "url", "url": "http://x"}}, "url"),
        ({"training": {"learning_rate": 1e9}}, "learning_rate"),
        ({"training": {"optimizer_code": "import os"}}, "optimizer_code"),
        ({"ice_servers": [{"urls": "http://x"}]}, "ice_servers"),
    ],
)
def test_a_bad_value_is_named(change: dict[str, object], says: str) -> None:
    body = {**msgspec.to_builtins(MANIFEST), **change}
    with pytest.raises(ManifestRejected, match=says):
        decode(msgspec.json.encode(body))


def test_the_number_of_experts_at_its_limit() -> None:
    at_limit = msgspec.structs.replace(MANIFEST, model=GPTModel(grid=(256, 256), layers=1))
    assert decode(msgspec.json.encode(at_limit)) == at_limit


@given(st.binary(max_size=300))
def test_garbage_is_refused(garbage: bytes) -> None:
    for read in (decode, decode_signed):
        with pytest.raises(ManifestRejected):
            read(garbage)


def test_the_size_is_bounded() -> None:
    payload = msgspec.json.encode(MANIFEST)
    at_limit = payload[:-1] + b" " * (MANIFEST_BYTES_MAX - len(payload)) + b"}"
    assert len(at_limit) == MANIFEST_BYTES_MAX and decode(at_limit) == MANIFEST
    with pytest.raises(ManifestRejected, match="at most"):
        decode(at_limit[:-1] + b" }")


def test_signing_refuses_what_would_not_validate() -> None:
    bad = Manifest(name="no spaces allowed", revision=1, title="x", model=GPTModel())
    with pytest.raises(ManifestRejected, match="name"):
        sign(bad, COORDINATOR)


def test_a_manifest_that_nests_without_end_is_refused_like_any_other() -> None:
    nested = b'{"model":{"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}}"  # what stands before the tag of the kind is skipped first
    with pytest.raises(ManifestRejected, match="recursion"):
        decode(nested)
