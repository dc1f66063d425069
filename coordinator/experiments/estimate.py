"""How large an experiment is, and what it asks of volunteers: arithmetic on a manifest's parts, shown while a form is filled in.

Nothing here is measured. What an agent really reaches depends on its machine and its network, and stands on the
experiment's page once it runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from agent.manifest import Averaging, Model, Rules, Training
from agent.models.sizes import FLOAT_BYTES, WIRE_BYTES, activation_bytes_per_token, sizes
from agent.wire.config import WireConfig

UPLOAD_BITS_PER_S = 10_000_000
"""A slow home connection, for which the bound on speed is given."""
FREE_BYTES = 4 * 2**30
"""What a laptop spares, for the number of machines that hold all experts."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Counts of parameters, bytes, and rates."""

    parameters: int
    parameters_active: int
    """That one token (or patch of an image) passes through."""
    experts: int
    expert_parameters: int
    expert_bytes: int
    """Memory of one hosted expert: weights, gradient and AdamW's two moments."""
    experts_bytes: int
    """Of all experts together."""
    machines: int
    """How many with FREE_BYTES to spare hold all experts once."""
    trunk_parameters: int
    trunk_bytes: int
    """Memory of the trunk on each trainer, with its optimizer."""
    token_bytes_up: int
    """What a trainer sends to experts for one token (or image); it receives as much. None if it hosts all experts itself."""
    step_bytes_up: int
    """The same for one batch."""
    tokens_per_s_max: float
    """That UPLOAD_BITS_PER_S carries, averaging set aside."""
    averaging_bytes_per_s: float
    """That one trainer sends on average to keep its trunk equal to the others'; it receives as much."""
    warnings: list[str] = field(default_factory=list)


def estimate(model: Model, training: Training, averaging: Averaging, rules: Rules) -> Estimate:
    """Of what a manifest's parts describe."""
    size = sizes(model)
    up = activation_bytes_per_token(model, training) // 2
    trunk_wire_bytes = size.trunk * FLOAT_BYTES
    return Estimate(
        parameters=size.total,
        parameters_active=size.active,
        experts=size.experts,
        expert_parameters=size.expert,
        expert_bytes=size.expert_bytes,
        experts_bytes=size.experts * size.expert_bytes,
        machines=max(1, math.ceil(size.experts / max(1, FREE_BYTES // size.expert_bytes))),
        trunk_parameters=size.trunk,
        trunk_bytes=size.trunk_bytes,
        token_bytes_up=up,
        step_bytes_up=up * training.batch_size * (model.positions // model.positions_per_unit),
        tokens_per_s_max=UPLOAD_BITS_PER_S / 8 / up,
        averaging_bytes_per_s=trunk_wire_bytes / averaging.period_s,
        warnings=list(_warnings(model, training, averaging, rules)),
    )


def _warnings(model: Model, training: Training, averaging: Averaging, rules: Rules) -> list[str]:
    size, limit = sizes(model), WireConfig().message_bytes_max
    rows = training.batch_size * model.positions
    found = []
    if rows * model.d_model * WIRE_BYTES[training.wire_dtype] > limit:
        found.append(
            f"If one expert is chosen for a whole batch, the call is larger than the {limit >> 20} MiB that a message may have."
        )
    if size.trunk * FLOAT_BYTES > limit:
        found.append(f"The trunk is larger than the {limit >> 20} MiB that a message may have, so trainers could not average it.")
    if size.expert_bytes > FREE_BYTES:
        found.append(f"One expert with its optimizer needs more than {FREE_BYTES >> 30} GiB: few volunteers can host any.")
    if size.trunk_bytes > FREE_BYTES:
        found.append(f"The trunk with its optimizer needs more than {FREE_BYTES >> 30} GiB: few volunteers can train.")
    if size.trunk * FLOAT_BYTES / averaging.period_s > UPLOAD_BITS_PER_S / 8 / 2:
        found.append("Averaging the trunk alone fills half of a 10 Mbit/s upload. Average less often.")
    if rules.call_timeout_s >= rules.lease_s:
        found.append("Trainers wait for a lost expert until its lease has run out. Make the longest wait shorter than the lease.")
    return found
