"""Secrets that the coordinator hands out once and afterwards only recognizes: tokens, device codes, invitations.

What is stored is an HMAC-SHA256 under a key derived from SECRET_KEY: a copy of the database opens nothing, and looking
one up costs microseconds. (Passwords are guessable, and go through Argon2 instead.)
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from django.conf import settings

LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
"""Without those that look alike: 32 letters, 5 bits each."""
DIGEST_CHARS = 64


def word(letters: int, alphabet: str = LETTERS) -> str:
    """So many unpredictable letters."""
    return "".join(secrets.choice(alphabet) for _ in range(letters))


def digest(purpose: str, secret: str) -> str:
    """What is stored of `secret`: 64 hex digits."""
    return _digest(settings.SECRET_KEY, purpose, secret)


def matches(purpose: str, secret: str, stored: str) -> bool:
    """Whether `stored` is the digest of `secret`, under the current key or one that settings still accept."""
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return any([hmac.compare_digest(_digest(key, purpose, secret), stored) for key in keys])


def proves(purpose: str, public: str, proof: str, key: str) -> bool:
    """Whether `proof` is the beginning of the digest of `public`, as only a holder of `key` can make it."""
    return hmac.compare_digest(_digest(key, purpose, public)[: len(proof)].encode(), proof.encode())


def _digest(key: str, purpose: str, secret: str) -> str:
    derived = hashlib.sha256(f"hive/{purpose}\n{key}".encode()).digest()
    return hmac.new(derived, secret.encode(), hashlib.sha256).hexdigest()
