"""Rates that a peer or an address may not exceed."""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict

IPV6_PREFIX = 64
"""A home or a rented machine has at least this much IPv6, so all of it counts as one address."""


class TokenBucket:
    """`burst` at once, then `per_s` a second."""

    __slots__ = ("_at", "_burst", "_level", "_per_s")

    def __init__(self, *, per_s: float, burst: float, now: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._level, self._at = burst, now

    def take(self, now: float, amount: float = 1.0) -> bool:
        """True if `amount` was there. `now` is monotonic, seconds."""
        self._level = min(self._burst, self._level + max(0.0, now - self._at) * self._per_s)
        self._at = now
        if self._level < amount:
            return False
        self._level -= amount
        return True


class KeyedBuckets:
    """A bucket per key; the keys not seen for longest are forgotten beyond `keys_max`."""

    def __init__(self, *, per_s: float, burst: float, keys_max: int) -> None:
        self._per_s, self._burst, self._keys_max = per_s, burst, keys_max
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, key: str, now: float) -> bool:
        bucket = self._buckets.pop(key, None) or TokenBucket(per_s=self._per_s, burst=self._burst, now=now)
        self._buckets[key] = bucket
        if len(self._buckets) > self._keys_max:
            self._buckets.popitem(last=False)
        return bucket.take(now)

    def __len__(self) -> int:
        return len(self._buckets)


class Places:
    """How many may be there at once: in all, and of one key."""

    def __init__(self, *, total_max: int, each_max: int) -> None:
        self.total_max, self.each_max = total_max, each_max
        self._taken: Counter[str] = Counter()
        self._total = 0

    def __len__(self) -> int:
        return self._total

    @property
    def full(self) -> bool:
        return self._total >= self.total_max

    def take(self, key: str) -> bool:
        """A place for `key`, to be given back; False if there is none."""
        if self.full or self._taken[key] >= self.each_max:
            return False
        self._taken[key] += 1
        self._total += 1
        return True

    def give_back(self, key: str) -> None:
        self._total -= 1
        self._taken[key] -= 1
        if not self._taken[key]:
            del self._taken[key]


def client_key(address: object) -> str:
    """Whom an address is counted as: an IPv4 address, the /64 of an IPv6 one, or `unknown` for what is neither."""
    try:
        ip = ipaddress.ip_address(str(address or "").partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, IPV6_PREFIX), strict=False).network_address)
