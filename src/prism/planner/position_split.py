"""Positions of a sequence over nodes: what another split than the measured one would cost.

Each node's computation follows from two measurements, of the plan's own split and of the whole on
one node, as a fixed part and one that grows with the arithmetic. How the nodes wait for each other
is played through block by block: who begins late, for want of its input, who computes longer, and
what an exchange takes. The difference between two splits played so is added to what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import NamedTuple

from prism.partition.senders import sent_rows, sizes_of, sources_of
from prism.perfmap import MapLink, Payload
from prism.plan import ModelShape, Plan
from prism.planner.answers import WHOLE, Wanted
from prism.planner.cost import NO_STALL_S, PlanCost
from prism.planner.parts import Cost
from prism.planner.setting import Setting
from prism.planner.shares import improved
from prism.planner.steps import blocks_computed, played
from prism.planner.traffic import (
    cover_s,
    exchange_bytes,
    exchange_count,
    helper_input_bytes,
    needs_all_rows,
    output_row_bytes,
    transfer_s,
)

# Splits differ in steps of this part of all positions: few enough for accuracies to be measured.
STEP_PERCENT = 5
_KEPT = 1024
# Nodes whose computation differs by a smaller part than this end together.
_ALIKE = 0.02


class _Work(NamedTuple):
    """Computation as a fixed part and one that grows with the multiplications."""

    fixed_s: float
    per_multiplication_s: float


Shares = tuple[float, ...]


class Solution(NamedTuple):
    """Shares, and the part of the predicted time that they gain."""

    shares: Shares
    gain: float


class PositionSplit:
    """Predicts splits by positions on nodes that were measured alone.

    Args:
        model: what a block's work depends on.
        link: as measured.
        payload: bytes in and out, of whole outputs.
        alone_s: returns how long a node computes (name, batch, length) alone.
        wanted: the form of output that requests want.
    """

    def __init__(
        self,
        model: ModelShape,
        link: MapLink,
        payload: Payload,
        alone_s: Callable[[str, int, int], float],
        wanted: Wanted = WHOLE,
    ) -> None:
        self._model = model
        self._link = link
        self._payload = payload
        self._alone_s = alone_s
        self._wanted = wanted
        self._moved = lru_cache(maxsize=_KEPT)(self._find_moved)

    def compute_s(
        self, plan: Plan, measured: PlanCost, nodes: Sequence[str], batch: int, length: int
    ) -> tuple[float, ...]:
        """Return how long each node of a plan computes, as in the map.

        Args:
            plan: with any shares.
            measured: of the same plan with shares of its own.
            nodes: that run it, rank 0 first.
            batch: rows.
            length: positions per row.
        """
        blocks = self.blocks_computed(measured, length)
        paces = self._block_s(plan, measured, nodes, batch, length)
        return tuple(count * seconds for count, seconds in zip(blocks, paces, strict=True))

    def blocks_computed(self, measured: PlanCost, length: int) -> list[float]:
        """Return by rank how many blocks' work a node does, whatever the split."""
        return blocks_computed(measured.plan, self._model, not self._gathers(measured, length))

    def _block_s(
        self, plan: Plan, measured: PlanCost, nodes: Sequence[str], batch: int, length: int
    ) -> list[float]:
        """Return how long each node of a plan computes on one block, as in the map."""
        own_s = measured.work(batch, length).compute_s / self.blocks_computed(measured, length)[0]
        whole_s = [self._alone_s(name, batch, length) / self._model.blocks for name in nodes]
        if not own_s or not whole_s[0]:
            return [own_s] * len(nodes)
        at_measured = self._multiplications(measured.plan, length)[0]
        whole = self._block(length, 0)
        work = _fitted((at_measured, own_s), (whole, whole_s[0]))
        return [
            (work.fixed_s + work.per_multiplication_s * multiplications) * alone_s / whole_s[0]
            for multiplications, alone_s in zip(
                self._multiplications(plan, length), whole_s, strict=True
            )
        ]

    def cost(self, plan: Plan, measured: PlanCost, base: Cost, setting: Setting) -> Cost:
        """Return the cost of a plan from that of the measured split under the same conditions.

        Args:
            plan: with other shares.
            measured: the plan in its measured split.
            base: its cost.
            setting: the request.
        """
        own_s, longer_s = self._moved(plan, measured, setting)
        in_model_s = max(0.0, base.compute_s + base.comm_s + longer_s)
        compute_s = min(own_s, in_model_s)
        moved = base._replace(compute_s=compute_s, comm_s=in_model_s - compute_s)
        if base.energy_j is None or not base.total_s:
            return moved
        return moved._replace(energy_j=base.energy_j * moved.total_s / base.total_s)

    def _find_moved(self, plan: Plan, measured: PlanCost, setting: Setting) -> tuple[float, float]:
        """Return how long rank 0 computes, and how much longer all takes than as measured."""
        base = _as_measured(measured, setting)
        longer_s = self._ends_s(plan, measured, base, setting)
        longer_s -= self._ends_s(measured.plan, measured, base, setting)
        own_s = self.compute_s(plan, measured, setting.nodes, setting.batch, setting.length)[0]
        return own_s * setting.slowdown[0], longer_s

    def solve(
        self, measured: PlanCost, setting: Setting, known: Sequence[Shares] | None = None
    ) -> Solution:
        """Return the shares with which a plan ends first, and what they gain.

        Args:
            measured: the plan in its measured split.
            setting: the request.
            known: choose among these; None = any in whole steps. From the measured split on, the
                step that gains most is then taken as long as one gains.
        """
        base = _as_measured(measured, setting)
        own = measured.plan.shares
        if self._ends_together(measured, setting):
            return Solution(own, 0.0)

        @cache
        def ends_s(shares: Shares) -> float:
            return self._ends_s(with_shares(measured.plan, shares), measured, base, setting)

        if known is None:
            units = sizes_of(measured.plan, 100 // STEP_PERCENT)
            best = _percent(improved(units, lambda split: ends_s(_percent(split)), least=1))
        else:
            best = min((own, *known), key=ends_s)
        return Solution(best, (ends_s(own) - ends_s(best)) / base.total_s)

    def _ends_together(self, measured: PlanCost, setting: Setting) -> bool:
        """Whether all nodes of the measured split are busy to the end anyway.

        Then the one that begins last sets the pace, and a smaller share of its would cost more in
        every block than it gains in the first. Not so where rank 0 waits for it at the end, nor
        with lag, where helpers compute fewer blocks.
        """
        nodes, batch, length, _, slowdown = setting
        if measured.plan.lag or self._gathers(measured, length):
            return False
        block_s = self._block_s(measured.plan, measured, nodes, batch, length)
        paces = [each * slow for each, slow in zip(block_s, slowdown, strict=True)]
        return max(paces) <= (1 + _ALIKE) * min(paces)

    def _gathers(self, measured: PlanCost, length: int) -> bool:
        """Whether rank 0 needs something of the others' rows: of causal ones the last, at least."""
        if self._model.causal or not self._wanted.gathers_rows or measured.brings_rows:
            return True
        return needs_all_rows(self._model, self._payload, length)

    def _outputs(self, plan: Plan, batch: int, length: int) -> list[float]:
        """Return the bytes that each helper sends at the end."""
        if not self._wanted.gathers_rows:
            pooled = self._wanted.payload(self._payload, self._model).outputs(batch, length)
            return [pooled] * (plan.size - 1)
        if needs_all_rows(self._model, self._payload, length):
            return output_row_bytes(plan, self._model, batch, length)
        return [0.0] * (plan.size - 1)  # but for the last position's

    def _ends_s(self, plan: Plan, measured: PlanCost, base: Cost, setting: Setting) -> float:
        """Return when rank 0 has everything that its model head needs, from when it began."""
        nodes, batch, length, ways, slowdown = setting
        as_in_map = self._block_s(plan, measured, nodes, batch, length)
        block_s = [seconds * slow for seconds, slow in zip(as_in_map, slowdown, strict=True)]
        # All inputs leave the first node at once and share its uplink.
        bits = 8.0 * sum(helper_input_bytes(plan, self._model, self._payload, batch, length))
        begins_s = [0.0, *(way.latency_s + bits / way.bandwidth_bps for way in ways)]
        exchange_s = self._exchange_s(plan, measured, base, setting)
        one_row = not self._gathers(measured, length)
        ends_s = played(plan, self._model, block_s, begins_s, exchange_s, one_row)
        if one_row:
            return ends_s[0]
        outputs = self._outputs(plan, batch, length)
        came_s = [
            end_s + 8.0 * nbytes / way.bandwidth_bps + way.latency_s
            for way, end_s, nbytes in zip(ways, ends_s[1:], outputs, strict=True)
        ]
        return max(ends_s[0], *came_s)

    def _exchange_s(self, plan: Plan, measured: PlanCost, base: Cost, setting: Setting) -> float:
        """Return what an exchange takes, such that the measured split stalls as it does.

        More or less of it may be hidden than the block's arithmetic says: the measured stall tells.
        """
        nodes, batch, length, *_ = setting
        took_s, takes_s = (
            transfer_s(
                exchange_bytes(each, self._model, batch, length, self._link.shared),
                self._link,
                setting.slowest,
            )
            for each in (measured.plan, plan)
        )
        count = exchange_count(plan, self._model, self._link)
        if not count:
            return takes_s
        block_s = self._block_s(measured.plan, measured, nodes, batch, length)
        hidden_s = cover_s(plan, self._model, self._model.blocks * max(block_s))
        longer_s = self._model.blocks * (max(block_s) - block_s[0])
        stall_s = (base.comm_s - longer_s) / count
        so_far_s = min(took_s, hidden_s) if stall_s <= NO_STALL_S else hidden_s + stall_s
        return max(0.0, so_far_s + takes_s - took_s)

    def _multiplications(self, plan: Plan, length: int) -> list[float]:
        """Return the multiplications of one block, per sample, on each node."""
        sent = sent_rows(plan, length)
        return [
            self._block(
                size, sum(sent[other] for other in sources_of(rank, plan, self._model.causal))
            )
            for rank, size in enumerate(sizes_of(plan, length))
        ]

    def _block(self, rows: int, context: int) -> float:
        """Return the multiplications of a block with own rows and rows of others.

        An MLP four times as wide as the model; keys and values of others' means are projected here,
        unless they travel as such.
        """
        width = self._model.hidden
        attention = 2.0 * rows * (rows + context) * width
        projected = 0 if self._model.rotary else 2.0 * context * width**2
        return 12.0 * rows * width**2 + attention + projected


def _as_measured(measured: PlanCost, setting: Setting) -> Cost:
    _, batch, length, _, slowdown = setting
    return measured.at(batch, length, setting.slowest, max(slowdown))


def with_shares(plan: Plan, shares: Shares) -> Plan:
    """Return a plan with other shares; equal ones are not named."""
    return replace(plan, shares=shares if len(set(shares)) > 1 else ())


def _percent(units: tuple[int, ...]) -> Shares:
    return tuple(float(STEP_PERCENT * each) for each in units)


def _fitted(small: tuple[float, float], whole: tuple[float, float]) -> _Work:
    """Return the work that took so many seconds for two numbers of multiplications."""
    per_one_s = (whole[1] - small[1]) / (whole[0] - small[0])
    fixed_s = small[1] - per_one_s * small[0]
    if per_one_s < 0 or fixed_s < 0:  # a part cannot take longer than the whole: noise
        return _Work(0.0, small[1] / small[0])
    return _Work(fixed_s, per_one_s)
