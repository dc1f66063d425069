"""The manifest: a declarative, signed description of an experiment. No code travels in it.

Shared by coordinator and agent, so this module imports neither torch nor Django. A manifest is JSON. The coordinator
signs the exact bytes; an agent verifies them, then decodes, then never trusts a field that did not validate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from agent.errors import ManifestRejected
from agent.grid import Grid
from agent.identity import Identity, PeerId

FORMAT: Final = 1
MANIFEST_BYTES_MAX = 64 * 1024
EXPERTS_MAX = 65_536
"""In all layers together. Agents and the coordinator keep a list of them all."""
BYTE_VALUES = 256
DIGIT_SIDE = 8
"""Pixels along either side of an image."""
DIGIT_CLASSES = 10
SIGNING_PURPOSE = "manifest"
TAKES_EFFECT_AT_ONCE = frozenset({"revision", "status", "title", "description", "admission", "bootstrap", "ice_servers"})
"""What running agents need not be restarted for: they follow it within half a minute, or it is for newcomers only."""

Slug = Annotated[str, Meta(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")]
BootstrapAddress = Annotated[str, Meta(max_length=300, pattern=r"^wss?://[^\s/?#@]{1,230}/[a-z2-7]{52}\Z")]
Seconds = Annotated[float, Meta(ge=0.001, le=86_400)]
Rate = Annotated[float, Meta(gt=0, le=10)]
WireDtype = Literal["float32", "float16", "bfloat16"]


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=False):
    pass


class GPTModel(_Part, frozen=True, kw_only=True, tag="gpt", tag_field="kind"):
    """A decoder-only transformer whose feed-forward layers are remote mixtures of experts."""

    unit: ClassVar[str] = "byte"
    units: ClassVar[str] = "tokens"
    """What is counted, and what the loss is a mean over, in pages' words."""
    position: ClassVar[str] = "token"
    """What passes through a layer as one row."""
    positions_per_unit: ClassVar[int] = 1

    d_model: Annotated[int, Meta(ge=8, le=16_384)] = 64
    layers: Annotated[int, Meta(ge=1, le=128)] = 2
    heads: Annotated[int, Meta(ge=1, le=128)] = 4
    sequence: Annotated[int, Meta(ge=8, le=65_536)] = 64
    """Context length, tokens."""
    vocabulary: Annotated[int, Meta(ge=2, le=262_144)] = 256
    expert_hidden: Annotated[int, Meta(ge=8, le=131_072)] = 256
    """Width of an expert's hidden layer."""
    grid: Annotated[tuple[Annotated[int, Meta(ge=1, le=256)], ...], Meta(min_length=1, max_length=4)] = (4, 4)
    k_best: Annotated[int, Meta(ge=1, le=64)] = 2
    routing: Literal["token", "sequence"] = "token"
    """`sequence` routes by the mean over the sequence: fewer calls, but later tokens then influence earlier ones."""

    def grids(self) -> list[Grid]:
        """One grid per layer: `ffn0`, `ffn1`, …"""
        return [Grid(f"ffn{i}", self.grid) for i in range(self.layers)]

    @property
    def positions(self) -> int:
        """Rows of one example in each layer."""
        return self.sequence


class ImageClassifier(_Part, frozen=True, kw_only=True, tag="image-classifier", tag_field="kind"):
    """Tells which digit an image of DIGIT_SIDE × DIGIT_SIDE pixels shows. Its feed-forward layers are mixtures of experts."""

    unit: ClassVar[str] = "image"
    units: ClassVar[str] = "images"
    position: ClassVar[str] = "patch"

    d_model: Annotated[int, Meta(ge=8, le=16_384)] = 32
    layers: Annotated[int, Meta(ge=1, le=128)] = 2
    heads: Annotated[int, Meta(ge=1, le=128)] = 4
    patch: Literal[1, 2, 4, 8] = 4
    """Side of the squares that the image is cut into, pixels."""
    expert_hidden: Annotated[int, Meta(ge=8, le=131_072)] = 64
    """Width of an expert's hidden layer."""
    grid: Annotated[tuple[Annotated[int, Meta(ge=1, le=256)], ...], Meta(min_length=1, max_length=4)] = (2, 2)
    k_best: Annotated[int, Meta(ge=1, le=64)] = 2
    routing: Literal["token", "sequence"] = "token"
    """`token` routes every patch by itself, `sequence` the whole image."""

    def grids(self) -> list[Grid]:
        """One grid per layer: `ffn0`, `ffn1`, …"""
        return [Grid(f"ffn{i}", self.grid) for i in range(self.layers)]

    @property
    def positions(self) -> int:
        """Rows of one example in each layer: patches of an image."""
        return (DIGIT_SIDE // self.patch) ** 2

    @property
    def positions_per_unit(self) -> int:
        return self.positions


Model = GPTModel | ImageClassifier


class PythonStdlib(_Part, frozen=True, kw_only=True, tag="python-stdlib", tag_field="kind"):
    """The running interpreter's own standard-library sources, as bytes."""

    validation_share: Annotated[float, Meta(gt=0, lt=0.5)] = 0.05
    """Share of the files, chosen by a hash of their names, that is held out."""


class TextFile(_Part, frozen=True, kw_only=True, tag="text", tag_field="kind"):
    """A local file that every volunteer names with `--data`, as bytes."""

    sha256: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""
    """What the file must hash to; empty accepts any."""
    validation_share: Annotated[float, Meta(gt=0, lt=0.5)] = 0.05


class Digits(_Part, frozen=True, kw_only=True, tag="digits", tag_field="kind"):
    """1,797 images of handwritten digits that come with the agent (agent/data/files/digits.txt)."""

    validation_share: Annotated[float, Meta(gt=0, lt=0.5)] = 0.2


Data = PythonStdlib | TextFile | Digits


class Training(_Part, frozen=True, kw_only=True):
    """How trainers and experts learn."""

    batch_size: Annotated[int, Meta(ge=1, le=65_536)] = 8
    """Sequences (or images) per batch."""
    batches_in_flight: Annotated[int, Meta(ge=1, le=64)] = 2
    """Per trainer. More hide the network's latency; each makes gradients staler, and early learning slower (twice at 2)."""
    learning_rate: Rate = 1e-2
    """Of the trunk (AdamW)."""
    expert_learning_rate: Rate = 2e-3
    warmup_steps: Annotated[int, Meta(ge=0, le=1_000_000)] = 5
    clip_norm: Annotated[float, Meta(gt=0, le=1e6)] = 1.0
    balance_weight: Annotated[float, Meta(ge=0, le=10)] = 0.05
    """Weight of the load-balancing loss."""
    wire_dtype: WireDtype = "bfloat16"
    """Activations and gradients travel as this; everyone computes in float32."""
    validation_period_s: Seconds = 30.0


class Averaging(_Part, frozen=True, kw_only=True):
    """How trainers keep one trunk."""

    period_s: Seconds = 8.0


class Rules(_Part, frozen=True, kw_only=True):
    """Leases, deadlines and limits."""

    lease_s: Seconds = 12.0
    """An expert's lease lapses this long after its last renewal; it is renewed every third of it."""
    call_timeout_s: Seconds = 10.0
    """Upper bound of a call's deadline; what an expert has shown makes it shorter."""
    experts_per_agent_max: Annotated[int, Meta(ge=0, le=65_536)] = 4096
    batch_rows_max: Annotated[int, Meta(ge=1, le=1_048_576)] = 8192
    """Rows that an expert merges into one batch."""


class IceServer(_Part, frozen=True, kw_only=True):
    """A STUN or TURN server, as in W3C RTCIceServer."""

    urls: Annotated[str, Meta(pattern=r"^(stun|stuns|turn|turns):.{1,290}\Z")]
    username: Annotated[str, Meta(max_length=200)] = ""
    credential: Annotated[str, Meta(max_length=200)] = ""


class Manifest(_Part, frozen=True, kw_only=True):
    """One revision of one experiment."""

    format: Literal[1] = FORMAT
    name: Slug
    revision: Annotated[int, Meta(ge=1)]
    title: Annotated[str, Meta(min_length=1, max_length=120)]
    description: Annotated[str, Meta(max_length=4000)] = ""
    status: Literal["open", "paused", "finished"] = "open"
    admission: Literal["open", "invite", "approval"] = "open"
    """Who may take part: anybody, or only peers with a certificate of the coordinator (agent/admission.py)."""
    seed: Annotated[int, Meta(ge=0, lt=2**31)] = 0
    model: GPTModel | ImageClassifier = GPTModel()
    data: PythonStdlib | TextFile | Digits = PythonStdlib()
    training: Training = Training()
    averaging: Averaging = Averaging()
    rules: Rules = Rules()
    bootstrap: Annotated[tuple[BootstrapAddress, ...], Meta(max_length=64)] = ()
    """Addresses of bootstrap peers, `ws://host:port/PEERID` or `wss://…`, as the organizer gave them."""
    ice_servers: Annotated[tuple[IceServer, ...], Meta(max_length=16)] = ()

    def __post_init__(self) -> None:
        for _, what in inconsistencies(self.model):
            raise ValueError(what)
        if what := mismatch(self.model, self.data):
            raise ValueError(what)


def mismatch(model: Model, data: Data) -> str:
    """Why this model cannot learn from these data, in a sentence; empty if it can."""
    if isinstance(model, ImageClassifier) and not isinstance(data, Digits):
        return "an image classifier learns from images: choose the handwritten digits as its data"
    if isinstance(model, GPTModel) and isinstance(data, Digits):
        return "a GPT learns from text: choose text as its data, or an image classifier as the model"
    return ""


def inconsistencies(model: Model) -> Iterator[tuple[str, str]]:
    """What does not fit together although each value by itself is allowed: (field of the model, sentence)."""
    if model.d_model % model.heads:
        yield "heads", f"d_model {model.d_model} is not a multiple of heads {model.heads}"
    experts = math.prod(model.grid)
    if model.k_best > experts:
        yield "k_best", f"k_best {model.k_best} is more than the {experts} experts of a layer"
    if model.layers * experts > EXPERTS_MAX:
        yield "grid", f"{model.layers} layers of {experts:,} experts are more than the {EXPERTS_MAX:,} that are allowed"
    if isinstance(model, GPTModel) and model.vocabulary < BYTE_VALUES:
        yield (
            "vocabulary",
            f"vocabulary {model.vocabulary} is less than the {BYTE_VALUES} values of a byte, which the data consist of",
        )


class SignedManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the API serves and agents cache. `payload` is the manifest's JSON (base64 in JSON)."""

    payload: Annotated[bytes, Meta(max_length=MANIFEST_BYTES_MAX)]
    signature: Annotated[bytes, Meta(max_length=64)]
    key: str
    """The coordinator's Ed25519 public key, in the text form of a PeerId."""

    def open(self, *, pinned_key: str | None = None, name: str | None = None, revision_min: int = 1) -> Manifest:
        """Verify and decode.

        Raises ManifestRejected if the signature is bad, the key is not the pinned one, the name is another's, the
        revision is older than one seen before, or the content does not validate.
        """
        if pinned_key is not None and self.key != pinned_key:
            raise ManifestRejected(
                f"the manifest is signed by another coordinator key ({self.key[:8]}…) than the one that this agent trusts "
                f"({pinned_key[:8]}…). If the organizer really changed keys, pass --coordinator-key {self.key}."
            )
        try:
            signer = PeerId.parse(self.key)
        except ValueError as e:
            raise ManifestRejected(f"the manifest names no usable signing key: {e}") from None
        if not signer.verify(SIGNING_PURPOSE, self.payload, self.signature):
            raise ManifestRejected(
                "the manifest was altered: its signature does not match. Fetch it again, or tell the organizer."
            )
        manifest = decode(self.payload)
        if name is not None and manifest.name != name:
            raise ManifestRejected(f"the manifest is for {manifest.name!r}, not for {name!r}")
        if manifest.revision < revision_min:
            raise ManifestRejected(
                f"the manifest's revision {manifest.revision} is older than {revision_min}, which was seen before"
            )
        return manifest


def decode(payload: bytes) -> Manifest:
    """Decode and validate manifest JSON. Raises ManifestRejected, naming the field."""
    if len(payload) > MANIFEST_BYTES_MAX:
        raise ManifestRejected(f"the manifest has {len(payload)} bytes; at most {MANIFEST_BYTES_MAX} are allowed")
    try:
        return msgspec.json.decode(payload, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:  # ValidationError is a DecodeError
        raise ManifestRejected(f"the manifest is not valid: {e}") from None


def sign(manifest: Manifest, identity: Identity) -> SignedManifest:
    """The coordinator's signature over the exact JSON bytes. Raises ManifestRejected if they would not validate."""
    payload = msgspec.json.encode(manifest)
    decode(payload)
    return SignedManifest(payload=payload, signature=identity.sign(SIGNING_PURPOSE, payload), key=str(identity.peer_id))


def decode_signed(body: bytes) -> SignedManifest:
    """Decode the JSON form of a SignedManifest. Raises ManifestRejected."""
    if len(body) > 2 * MANIFEST_BYTES_MAX:
        raise ManifestRejected("the manifest that was served is too large")
    try:
        return msgspec.json.decode(body, type=SignedManifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise ManifestRejected(f"what was served is not a signed manifest: {e}") from None
