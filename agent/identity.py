"""Who a peer is: an Ed25519 key, what it signs, and messages sealed for it.

A `PeerId` *is* the peer's Ed25519 public key, so whatever names a peer can be checked with no further look-up
(docs/decisions/0002). Its place in the DHT's key space is the SHA-256 of it, which its owner cannot choose freely.
Signatures are domain-separated: bytes signed for one purpose never verify for another.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import os
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from agent.errors import IdentityError, RemoteError

PEER_ID_BYTES = 32
SIGNATURE_BYTES = 64
SEAL_OVERHEAD_BYTES = 32 + 16
_P = 2**255 - 19
_RAW = serialization.Encoding.Raw, serialization.PublicFormat.Raw


class PeerId(msgspec.Struct, frozen=True, order=True, cache_hash=True, gc=False):
    """A peer's Ed25519 public key, 32 bytes. Ordered and hashable; `str` is its text form (base32, 52 letters).

    A Struct, because the DHT looks peers up many times for each message: its hash and comparison are in C.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if type(self.raw) is not bytes or len(self.raw) != PEER_ID_BYTES:
            raise ValueError(f"a peer id has {PEER_ID_BYTES} bytes")

    @property
    def key(self) -> bytes:
        """Its place in the 256-bit key space of the DHT: SHA-256 of the public key."""
        return hashlib.sha256(self.raw).digest()

    @property
    def short(self) -> str:
        """The first eight letters, for logs and pages."""
        return str(self)[:8]

    @classmethod
    def parse(cls, text: str) -> PeerId:
        """Read the text form. Raises ValueError with a sentence for a person."""
        try:
            raw = base64.b32decode(text.strip().upper() + "====")
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != PEER_ID_BYTES or str(cls(raw)) != text.strip().lower():
            raise ValueError(f"{text[:80]!r} is not a peer id (52 letters a-z and digits 2-7)")
        return cls(raw)

    def verify(self, purpose: str, message: bytes, signature: bytes) -> bool:
        """True if this peer signed `message` for `purpose` (RFC 8032)."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, _tagged(purpose, message))
        except (InvalidSignature, ValueError):
            return False
        return True

    def seal(self, plaintext: bytes) -> bytes:
        """Encrypt so that only this peer can read it; anonymous sender, 48 bytes longer.

        Ephemeral X25519, HKDF-SHA256, ChaCha20-Poly1305: the construction of libsodium's sealed boxes.
        Raises ValueError if this id is not a point that can be encrypted to.
        """
        recipient = X25519PublicKey.from_public_bytes(_montgomery(self.raw))
        ephemeral = X25519PrivateKey.generate()
        public = ephemeral.public_key().public_bytes(*_RAW)
        return public + _box(ephemeral.exchange(recipient), public, self.raw).encrypt(b"\0" * 12, plaintext, None)

    def __str__(self) -> str:
        return base64.b32encode(self.raw).decode().rstrip("=").lower()

    def __repr__(self) -> str:
        return f"PeerId({self.short})"


@dataclass(frozen=True)
class Identity:
    """A peer's private key, kept in memory."""

    private: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> Identity:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """From 32 secret bytes; tests and simulations pass fixed ones."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @cached_property
    def peer_id(self) -> PeerId:
        return PeerId(self.private.public_key().public_bytes(*_RAW))

    @property
    def seed(self) -> bytes:
        return self.private.private_bytes_raw()

    def sign(self, purpose: str, message: bytes) -> bytes:
        """A 64-byte signature of `message` for `purpose`, for example `"record"`."""
        return self.private.sign(_tagged(purpose, message))

    def unseal(self, sealed: bytes) -> bytes:
        """Decrypt what was sealed for this peer. Raises RemoteError if it was not, or was altered."""
        secret = bytearray(hashlib.sha512(self.seed).digest()[:32])  # RFC 8032 5.1.5; clamped by X25519 itself
        try:
            shared = X25519PrivateKey.from_private_bytes(bytes(secret)).exchange(X25519PublicKey.from_public_bytes(sealed[:32]))
            return _box(shared, sealed[:32], self.peer_id.raw).decrypt(b"\0" * 12, sealed[32:], None)
        except (InvalidTag, ValueError):
            raise RemoteError("a sealed message was not for this peer, or was altered") from None


class KeyFile:
    """An identity in a file, mode 0600, locked while an agent uses it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_fd: int | None = None

    def open(self) -> Identity:
        """Read the key, making it on first use, and hold it until `close`.

        Raises IdentityError if the file is not a key, is readable by others, or is held by another agent.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as e:
            raise IdentityError(f"cannot open the key file {self.path}: {e.strerror}. Choose another with --key-file.") from e
        try:
            identity = self._read(fd)
        except BaseException:
            os.close(fd)
            raise
        self._lock_fd = fd
        return identity

    def close(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def _read(self, fd: int) -> Identity:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise IdentityError(
                f"the key file {self.path} is used by another running agent. Stop that one, or give this one its own --key-file."
            ) from None
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        if mode & 0o077:
            raise IdentityError(f"the key file {self.path} can be read by others (mode {mode:04o}). Run: chmod 600 {self.path}")
        text = os.read(fd, 4096)
        if not text:
            identity = Identity.generate()
            try:
                os.write(fd, b"hive-ed25519 " + base64.b64encode(identity.seed) + b"\n")
                os.fsync(fd)
            except OSError as e:
                raise IdentityError(f"cannot write the key file {self.path}: {e.strerror}.") from e
            return identity
        return self.parse(text)

    def parse(self, text: bytes) -> Identity:
        """The identity that a key file's content is. Raises IdentityError."""
        word, _, encoded = text.strip().partition(b" ")
        try:
            seed = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            seed = b""
        if word != b"hive-ed25519" or len(seed) != 32:
            raise IdentityError(
                f"{self.path} is not a Hive key file. Move it away to get a new identity, or name another with --key-file."
            )
        return Identity.from_seed(seed)


def read_key(path: Path) -> Identity:
    """The identity in a key file that exists, whether or not somebody holds it. Raises IdentityError."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError as e:
        raise IdentityError(f"cannot open the key file {path}: {e.strerror}.") from e
    try:
        return KeyFile(path).parse(os.read(fd, 4096))
    finally:
        os.close(fd)


def _tagged(purpose: str, message: bytes) -> bytes:
    tag = f"hive/1/{purpose}".encode()
    return bytes([len(tag)]) + tag + message


def _montgomery(ed25519_public: bytes) -> bytes:
    """The X25519 public key of an Ed25519 one: u = (1 + y) / (1 - y) (RFC 7748, section 4.1)."""
    y = int.from_bytes(ed25519_public, "little") & ((1 << 255) - 1)
    return ((1 + y) * pow(1 - y, -1, _P) % _P).to_bytes(32, "little")


def _box(shared: bytes, ephemeral: bytes, recipient: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(HKDF(hashes.SHA256(), 32, salt=ephemeral + recipient, info=b"hive/1/seal").derive(shared))
