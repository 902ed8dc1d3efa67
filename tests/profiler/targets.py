"""A cluster that obeys the cost model: what it would measure is known beforehand."""

from __future__ import annotations

import random
from collections import Counter

from prism.partition.spans import rows, spans
from prism.perfmap import Accuracy, ClusterIdentity, CodingTimes, MapLink, NodeInfo, Payload
from prism.plan import ModelShape
from prism.planner.traffic import exchange_bytes, exchange_count, transfer_s
from prism.profiler.linkfit import LinkTimes
from prism.record import RunRecord

VIT = ModelShape("vit", 12, 768, 768, causal=False, rotary=False, max_length=197)
LLAMA = ModelShape("llama", 12, 768, 256, causal=True, rotary=True, max_length=512)
FIXED_S = 0.004
ROW_S = 0.040
HIDDEN_S = 0.0002  # of a transfer, behind computation
OVERHEAD_S = 0.0005  # of an exchange, in software


class LawfulTarget:
    """Answers at once with what a request would have cost.

    It stands in for a cluster because no real one costs the same twice. `speeds` are how many times
    longer each node takes, `kinds` what boards they are (else each its own); `stop_at` is the pass
    at which somebody presses Ctrl-C, `disturbed` how many times the link is timed while other
    programs keep the devices busy, `hiccups` how many times longer than that a pass takes, by its
    number; `gains` by precision how many times faster the nodes compute, float32 apart. `clock`
    goes on by what everything would have taken.
    """

    def __init__(
        self,
        speeds=(1.0, 1.0),
        kinds=None,
        *,
        bandwidth_bps=100e6,
        latency_s=0.003,
        noise=0.0,
        model=VIT,
        lengths=(197,),
        threads=1,
        stop_at=None,
        disturbed=0,
        hiccups=None,
        gains=None,
    ):
        self.identity = ClusterIdentity(
            "abc",
            tuple(
                NodeInfo(f"node{index}", f"board {kind:g}", "2.13", "5.23", "float32", threads)
                for index, kind in enumerate(kinds or speeds)
            ),
        )
        self.model, self.lengths, self.any_length = model, lengths, len(lengths) > 1
        self.now_s = 1000.0
        self.payload = Payload(input_bytes=224 * 224 * 3, output_bytes=40)
        self.accuracy = (Accuracy("seq:2:L10:f16", 0.96, 0.02, 400),)
        self.coding = tuple(CodingTimes(node.name, 9e-9, 5e-9) for node in self.identity.nodes)
        self.log = []
        self.latency_s = latency_s
        self.link = MapLink(bandwidth_bps, latency_s, latency_s + OVERHEAD_S)
        self._speeds, self._noise, self._stop_at = speeds, noise, stop_at
        self._disturbed, self._hiccups = disturbed, hiccups or {}
        self._gains = {"float32": 1.0, **(gains or {})}
        self.precisions = tuple(self._gains)

    def clock(self):
        return self.now_s

    def run(self, plan, batch, length):
        if self._stop_at is not None and len(self.log) >= self._stop_at:
            raise KeyboardInterrupt
        point = (str(plan), batch, length)
        self.log.append(point)
        rng = random.Random(f"{point} {Counter(self.log)[point]}")
        factor = rng.uniform(1 - self._noise, 1 + self._noise)
        parts = {name: part * factor for name, part in self._parts(plan, batch, length).items()}
        nodes = plan.place([node.name for node in self.identity.nodes])
        self.now_s += sum(parts.values()) * self._hiccups.get(len(self.log), 1.0)
        return RunRecord(nodes[0], plan, batch, length, sum(parts.values()), **parts)

    def link_times(self, sizes, repeats):
        copies = len(self._speeds) - 1
        per_byte_s = 8 * copies / self.link.bandwidth_bps
        late_s = 2 * self.link.fixed_s if self._disturbed > 0 else 0.0
        self._disturbed -= 1
        times_s = tuple(late_s + self.link.fixed_s + size * per_byte_s for size in sizes)
        self.now_s += 2 * repeats * sum(times_s)
        return LinkTimes(copies + 1, tuple(sizes), times_s, times_s, self.latency_s)

    def _parts(self, plan, batch, length):
        names = [node.name for node in self.identity.nodes]
        nodes = [names.index(name) for name in plan.place(names)]
        gain = self._gains[plan.precision]
        if plan.strategy == "batch":
            counts = [span.size for span in rows(batch, plan.size, plan.shares)]
            ends_s = [
                self._alone(n, count, length, gain) for n, count in zip(nodes, counts, strict=True)
            ]
            compute_s = self._busy(nodes[0], counts[0], length, gain)
            return {"compute_s": compute_s, "output_s": max(0.0, max(ends_s) - compute_s)}
        if plan.strategy == "local":
            compute_s = self._busy(nodes[0], batch, length, gain)
            return {
                "compute_s": compute_s,
                "input_s": self._alone(*nodes, batch, length, gain) - compute_s,
            }
        sizes = [span.size for span in spans(length, plan.size, plan.shares)]
        busy_s = [
            self._busy(node, batch, size, gain) for node, size in zip(nodes, sizes, strict=True)
        ]
        exchange_s = transfer_s(
            exchange_bytes(plan, self.model, batch, length, False), self.link, self.link.state()
        )
        stalls_s = exchange_count(plan, self.model, self.link) * max(
            0.0, exchange_s - HIDDEN_S / gain
        )
        return {
            "compute_s": busy_s[0],
            "comm_s": max(busy_s) - busy_s[0] + stalls_s,
            "input_s": self._sent((plan.size - 1) * self.payload.inputs(batch, length)),
        }

    def _busy(self, node, batch, positions, gain):
        whole = self.model.max_length
        return self._speeds[node] / gain * (FIXED_S + ROW_S * batch * positions / whole)

    def _alone(self, node, batch, length, gain):
        """How long a node needs for rows of its own, their way there and back included."""
        busy_s = self._busy(node, batch, length, gain)
        if not node:
            return busy_s
        there_s = self._sent(self.payload.inputs(batch, length))
        return busy_s + there_s + self._sent(self.payload.outputs(batch, length))

    def _sent(self, nbytes):
        return self.latency_s + 8 * nbytes / self.link.bandwidth_bps
