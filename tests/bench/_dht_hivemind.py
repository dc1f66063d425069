"""The DHT's reference cell: hivemind peers do what ours do in dht.py. Runs in a virtual environment that has hivemind.

    VENV/bin/python tests/bench/_dht_hivemind.py --peers 16 --experts 128 --batch 16 --singles 20

Peers are started one after the other, each with up to three earlier ones; one declares experts in batches, another reads them
back in batches, and a third reads single ones past its cache. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import random
import time


def main() -> None:
    began = time.perf_counter()
    import hivemind
    from hivemind.moe.server.dht_handler import declare_experts, get_experts
    from hivemind.utils import get_dht_time

    imports_s = time.perf_counter() - began
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("peers", 16), ("experts", 128), ("batch", 16), ("singles", 20), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    peers, addresses, each = [], [], []
    for _ in range(options.peers):
        began = time.perf_counter()
        initial = rng.sample(addresses, min(3, len(addresses)))
        peers.append(hivemind.DHT(initial_peers=initial, start=True))
        addresses.append(str(peers[-1].get_visible_maddrs()[0]))
        each.append(time.perf_counter() - began)
    storing, reading, single = rng.sample(peers, 3)
    uids = [f"ffn0.{i // 16}.{i % 16}" for i in range(options.experts)]
    groups = [uids[n : n + options.batch] for n in range(0, len(uids), options.batch)]
    began, stored = time.perf_counter(), 0
    for group in groups:
        answers = declare_experts(storing, group, expiration_time=get_dht_time() + 300)
        stored += sum(bool(answers.get(uid)) for uid in group)
    store_s = time.perf_counter() - began
    began, found = time.perf_counter(), 0
    for group in groups:
        found += sum(expert is not None for expert in get_experts(reading, group))
    bulk_s = time.perf_counter() - began
    times, single_found = [], 0
    for uid in rng.sample(uids, options.singles):
        began = time.perf_counter()
        single_found += single.get(uid, latest=True) is not None
        times.append(time.perf_counter() - began)
    result = {
        "engine": f"hivemind {hivemind.__version__}",
        "setup_s_per_peer": round(sum(each) / len(each), 3),
        "imports_s": round(imports_s, 3),
        "store_ms_per_expert": round(1e3 * store_s / len(uids), 2),
        "bulk_get_ms_per_expert": round(1e3 * bulk_s / len(uids), 2),
        "fresh_get_ms": round(1e3 * sum(times) / len(times), 2),
        "stored": stored,
        "found": found,
        "found_single": single_found,
    }
    print(json.dumps(result), flush=True)
    for peer in peers:
        peer.shutdown()


if __name__ == "__main__":
    main()
