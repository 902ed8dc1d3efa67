"""Maps made from a known truth, for the planner's tests."""

from __future__ import annotations

from dataclasses import dataclass, replace

from prism.perfmap import Accuracy, MapLink, Measurement, NodeInfo, Payload, PerformanceMap, Stat
from prism.plan import ModelShape, Plan
from prism.planner.traffic import (
    cover_s,
    exchange_bytes,
    exchange_count,
    helper_input_bytes,
    transfer_s,
)
from prism.record import LinkState

MODEL = ModelShape("vit", 12, 768, 768, False, False, 197)
LENGTH = 197
LINK = MapLink(100e6, 0.001, 0.0015, shared=False)
PAYLOAD = Payload(input_bytes=224 * 224 * 3, output_bytes=40)
SHAPES = ("seq:2:full", "seq:2:L10", "seq:2:L10:lag1", "seq:3:L10", "seq:3:L10:lag1")


# Part of the computation in float32 that is needed.
PARTS = {"float32": 1.0, "half": 0.6, "int8": 0.3}


@dataclass(frozen=True)
class Truth:
    """A cluster that obeys the model exactly: what it would measure under any link."""

    fixed_s: float = 0.004
    row_s: float = 0.040
    hidden_s: float = 0.0008

    def local_s(self, batch: int) -> float:
        return self.fixed_s + self.row_s * batch

    def compute_s(self, plan: Plan, batch: int) -> float:
        part = PARTS[plan.precision]
        return part * self.local_s(batch) * (1.0 if plan.size == 1 else 1.1 / plan.size)

    def comm_s(self, plan: Plan, batch: int, link: LinkState, length: int = LENGTH) -> float:
        if not plan.exchanges:
            return 0.0
        hidden_s = self.hidden_s * batch * (4 if plan.lag else 1) * PARTS[plan.precision]
        took_s = transfer_s(exchange_bytes(plan, MODEL, batch, length, LINK.shared), LINK, link)
        return exchange_count(plan, MODEL, LINK) * max(0.0, took_s - hidden_s)

    def input_s(self, plan: Plan, batch: int, link: LinkState) -> float:
        """The helpers' inputs in transfer; with lag a block of computation hides them."""
        if plan.exchanges:
            nbytes = sum(helper_input_bytes(plan, MODEL, PAYLOAD, batch, LENGTH))
        else:
            nbytes = len(plan.nodes) * PAYLOAD.inputs(batch, LENGTH)
        if not nbytes:
            return 0.0
        arrival_s = 8 * nbytes / link.bandwidth_bps + link.latency_s
        hidden_s = cover_s(plan, MODEL, self.compute_s(plan, batch)) if plan.lag else 0.0
        return max(0.0, arrival_s - hidden_s)

    def total_s(self, plan: Plan, batch: int, link: LinkState) -> float:
        waited_s = self.comm_s(plan, batch, link) + self.input_s(plan, batch, link)
        return self.compute_s(plan, batch) + waited_s

    def measure(self, plan: Plan, batch: int, energy: bool = False) -> Measurement:
        compute_s, comm_s = self.compute_s(plan, batch), self.comm_s(plan, batch, LINK.state())
        total_s = self.total_s(plan, batch, LINK.state())
        return Measurement(
            plan.shape,
            batch,
            LENGTH,
            5,
            Stat(total_s),
            Stat(compute_s),
            comm_s=Stat(comm_s),
            input_s=Stat(self.input_s(plan, batch, LINK.state())),
            energy_j=Stat(5.0 * plan.size * total_s) if energy else None,
        )


def make_nodes(*speeds: str) -> tuple[NodeInfo, ...]:
    return tuple(
        NodeInfo(f"node{index}", hardware, "2.13.0", "5.23.0", "float32", 4)
        for index, hardware in enumerate(speeds)
    )


def make_map(
    shapes=SHAPES,
    batches=(1, 2, 4, 8, 16),
    nodes=("board", "board", "board"),
    energy=False,
    truth: Truth | None = None,
    drops=None,
) -> PerformanceMap:
    truth = truth or Truth()
    drops = {"seq:2:L10": 0.02, "seq:2:L10:lag1": 0.03} if drops is None else drops
    return PerformanceMap(
        "abc",
        MODEL,
        make_nodes(*nodes),
        LINK,
        tuple(
            truth.measure(Plan.parse(shape), batch, energy)
            for shape in ("local", *shapes)
            for batch in batches
        ),
        PAYLOAD,
        tuple(Accuracy(shape, 0.98 - drop, drop, 500) for shape, drop in drops.items()),
    )


def replace_measurements(perf: PerformanceMap, *measurements: Measurement) -> PerformanceMap:
    return replace(perf, measurements=measurements)
