"""Looks for an overlay that fell apart, experts that have no host, and peers that are stuck, in what peers reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from coordinator.experiments.models import Experiment
from coordinator.monitoring.models import Examination
from coordinator.telemetry import queries

EXPERIMENTS_MAX = 100
PEERS_MAX = 5000
"""Of one experiment, those that have been here longest."""
NAMES_MAX, STUCK_MAX, PARTS_MAX = 100, 20, 20


def examine_all(now: float) -> int:
    """Examine every experiment that is open or paused. Returns how many."""
    experiments = Experiment.objects.visible_to().exclude(status=Experiment.Status.FINISHED).order_by("-pk")[:EXPERIMENTS_MAX]
    for experiment in experiments:
        examine(experiment, now)
    return len(experiments)


def examine(experiment: Experiment, now: float) -> Examination:
    """Look at one experiment at time `now` and keep what was found."""
    rows = list(queries.present(experiment, now).values_list("peer", "connections", "stage", "why")[:PEERS_MAX])
    links = {peer: [c["peer"] for c in connections] for peer, connections, _, _ in rows}
    kinds = Counter(c["kind"] for _, connections, _, _ in rows for c in connections if c["peer"] in links)
    experts = queries.experts(experiment, now)
    vacant = [e.uid for e in experts if e.peer is None]
    heaviest = Counter(e.peer for e in experts if e.peer is not None).most_common(1)
    found, _ = Examination.objects.update_or_create(
        experiment=experiment,
        defaults={
            "at": now,
            "peers": len(links),
            "parts": [len(part) for part in parts(links)][:PARTS_MAX],
            "vacant": vacant[:NAMES_MAX],
            "vacant_count": len(vacant),
            "single_count": sum(e.peer is not None and e.copies < 2 for e in experts),
            "experts": len(experts),
            "heaviest_peer": heaviest[0][0] if heaviest else "",
            "heaviest_experts": heaviest[0][1] if heaviest else 0,
            "direct": kinds["direct"],
            "relayed": kinds["relayed"],
            "stuck": [{"peer": p, "stage": stage, "why": why} for p, _, stage, why in rows if why][:STUCK_MAX],
        },
    )
    return found


def parts(links: Mapping[str, Iterable[str]]) -> list[set[str]]:
    """Groups of peers that reach each other over reported connections (either end's word is enough), largest first."""
    leader = {peer: peer for peer in links}

    def find(peer: str) -> str:
        while leader[peer] != peer:
            leader[peer] = peer = leader[leader[peer]]
        return peer

    for peer, others in links.items():
        for other in others:
            if other in leader:
                leader[find(peer)] = find(other)
    groups: dict[str, set[str]] = {}
    for peer in links:
        groups.setdefault(find(peer), set()).add(peer)
    return sorted(groups.values(), key=lambda group: (-len(group), min(group)))
