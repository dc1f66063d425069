"""What is wrong, for whom, and what to do about it: from what the background tasks found, by rules that anybody can read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from coordinator.experiments.models import Experiment
from coordinator.leaderboard.models import Board
from coordinator.monitoring.machinery import Machinery
from coordinator.monitoring.models import BootstrapCheck, Census, Examination, Outcome

LAG_S = 15.0
STALE_S = 120.0
CENSUS_OLD_S = 300.0
QUEUE_LONG = 100
BUFFER_LONG = 0.5
HEAVY_SHARE = 0.5
RELAYED_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`severity` is `bad` (something does not work) or `warning` (it may soon not)."""

    severity: str
    where: str
    what: str
    fix: str


def of_machinery(machinery: Machinery, now: float) -> Iterator[Problem]:
    """The coordinator's own."""
    where = "coordinator"
    for name, lag_s in machinery.lags_s.items():
        if lag_s is None or lag_s > LAG_S + machinery.periods_s.get(name, 0.0):
            said = "has not run yet" if lag_s is None else f"is {lag_s:.0f} s behind"
            yield Problem(
                severity="bad",
                where=where,
                what=f"The background task “{name}” {said}.",
                fix="See that a Celery worker and beat run (deploy/), and what their log says. Charts and boards wait.",
            )
    if machinery.queue is None:
        yield Problem(
            severity="bad",
            where=where,
            what="The task queue cannot be reached.",
            fix="Check REDIS_URL or CELERY_BROKER_URL, and that the broker runs.",
        )
    elif machinery.queue > QUEUE_LONG:
        yield Problem(
            severity="bad",
            where=where,
            what=f"{machinery.queue} tasks wait in the queue.",
            fix="Workers are too slow or stuck: look at their log, then add workers.",
        )
    if machinery.buffered > machinery.buffered_max * BUFFER_LONG:
        yield Problem(
            severity="warning",
            where=where,
            what=f"{machinery.buffered} of at most {machinery.buffered_max} reports wait to be stored.",
            fix="The database is slow. Agents keep what is not stored, so nothing is lost; look at its disk and its load.",
        )


def of_experiment(
    experiment: Experiment, examination: Examination | None, checks: list[BootstrapCheck], now: float
) -> Iterator[Problem]:
    """One experiment's."""
    where = experiment.name
    if examination is None and now - experiment.created_at.timestamp() < STALE_S:
        return  # it is new
    if examination is None or now - examination.at > STALE_S:
        yield Problem(
            severity="bad",
            where=where,
            what="It has not been looked at for two minutes.",
            fix="The task monitoring.examine does not run; see the coordinator's problems.",
        )
        return
    yield from _of_peers(where, examination)
    yield from _of_experts(where, examination)
    yield from _of_bootstrap(where, examination, checks)


def of_census(experiment: Experiment, census: Census | None, now: float) -> Iterator[Problem]:
    """What the site's own peer in the overlay saw; nothing if that was long ago."""
    if census is None or census.error or now - census.at > CENSUS_OLD_S:
        return
    where = experiment.name
    if len(census.parts) > 1:
        yield Problem(
            severity="bad",
            where=where,
            what=f"The overlay is in parts of {', '.join(map(str, census.parts))} peers, as the site's observer found it.",
            fix="Parts find each other through a bootstrap peer within minutes. If they do not, see that the bootstrap addresses "
            "below answer, and name one of each part in the manifest.",
        )
    if census.missing:
        yield Problem(
            severity="warning",
            where=where,
            what=f"{census.missing} {_verb(census.missing, 'peer reports', 'peers report')} to this site, and the site's "
            "observer does not reach them in the overlay.",
            fix="They may just have left or be joining. If the number stays, they are cut off from the others: "
            "`hive-agent doctor` on such a machine names the fix.",
        )


def _verb(count: int, one: str, many: str) -> str:
    return one if count == 1 else many


def _of_peers(where: str, found: Examination) -> Iterator[Problem]:
    if len(found.parts) > 1:
        sizes = ", ".join(map(str, found.parts))
        yield Problem(
            severity="bad",
            where=where,
            what=f"The overlay seems to have come apart: groups of {sizes} peers report no connection to each other.",
            fix="Groups find each other again through a bootstrap peer: see that one answers (below). A group of one is a peer "
            "that cannot connect; ask its owner for `hive-agent doctor`.",
        )
    for peer in found.stuck:
        yield Problem(
            severity="warning",
            where=where,
            what=f"Peer {peer['peer'][:8]} is {peer['stage']}: {peer['why']}",
            fix="What it says is what its owner sees; `hive-agent doctor` on that machine names the fix.",
        )
    if found.direct + found.relayed and found.relayed / (found.direct + found.relayed) > RELAYED_SHARE:
        yield Problem(
            severity="warning",
            where=where,
            what=f"{found.relayed} of {found.direct + found.relayed} reported connections are relayed.",
            fix="Most peers are behind strict NATs. A TURN server nearer to them, and peers with a reachable address, help.",
        )


def _of_experts(where: str, found: Examination) -> Iterator[Problem]:
    if found.vacant_count and found.peers:
        names = ", ".join(found.vacant[:8]) + (" …" if found.vacant_count > 8 else "")
        yield Problem(
            severity="bad",
            where=where,
            what=f"{found.vacant_count} of {found.experts} experts {_verb(found.vacant_count, 'has', 'have')} no host: {names}",
            fix="Peers with room claim them within seconds. If they stay vacant, no peer has room: more hosts are needed, or "
            "--max-experts of those that are here is too low.",
        )
    hosted = found.experts - found.vacant_count
    if found.peers > 1 and 0 < found.single_count < hosted:  # where none has two, the experiment keeps no copies
        yield Problem(
            severity="warning",
            where=where,
            what=f"{found.single_count} of {found.experts} experts {_verb(found.single_count, 'is', 'are')} on one peer alone.",
            fix="If it crashes, they fall back to an older state. Peers with room take copies by themselves; more hosts help.",
        )
    if found.peers > 1 and found.experts and found.heaviest_experts / found.experts > HEAVY_SHARE:
        yield Problem(
            severity="warning",
            where=where,
            what=f"Peer {found.heaviest_peer[:8]} hosts {found.heaviest_experts} of {found.experts} experts.",
            fix="If it crashes, all of them begin anew at once. More hosts spread them.",
        )


def _of_bootstrap(where: str, found: Examination, checks: list[BootstrapCheck]) -> Iterator[Problem]:
    tried = [c for c in checks if c.outcome != Outcome.SKIPPED]
    for check in tried:
        if check.outcome == Outcome.FAILED:
            yield Problem(
                severity="warning",
                where=where,
                what=f"{check.address} does not answer: {check.detail}.",
                fix="Start that peer, or open its port; take the address out of the manifest if it is gone.",
            )
    if tried and not any(c.outcome == Outcome.OK for c in tried):
        yield Problem(
            severity="bad",
            where=where,
            what="No bootstrap peer answers.",
            fix="Newcomers can only join through this site's rendezvous. Run an agent with a reachable address: --listen.",
        )
    elif not checks and found.peers:
        yield Problem(
            severity="warning",
            where=where,
            what="There is no bootstrap peer.",
            fix="Newcomers can only join while this site is up. Run an agent with a reachable address: --listen.",
        )


def boards_age_s(now: float) -> float | None:
    """How old the oldest board is; None if there is none."""
    oldest = Board.objects.order_by("computed_at").values_list("computed_at", flat=True).first()
    return None if oldest is None else now - oldest
