"""A loaded model on a cluster, as the profiler sees it (`prism.profiler.ProfileTarget`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from prism.api.cluster import Cluster
from prism.api.model import DistributedModel
from prism.control import codec as tensors
from prism.energy import EnergyReading, combine
from prism.errors import ClusterError, ModelError
from prism.fidelity.accuracy import accuracy_of
from prism.models.inputs import main_input
from prism.models.synthetic import lengths_of, synthetic_inputs
from prism.perfmap import Payload
from prism.plan import Plan, Precision
from prism.profiler.linkfit import LinkTimes
from prism.record import RunRecord

_SMALL_BYTES = 1


class ProfiledModel:
    """Runs made-up inputs on a cluster and times its link.

    Args:
        cluster: the nodes.
        model: loaded on them.
        precisions: to measure, float32 first; None = all that its plans may have.

    Attributes:
        refused: by precision that some node cannot compute at, why not; such are not measured.
    """

    def __init__(
        self,
        cluster: Cluster,
        model: DistributedModel,
        precisions: Sequence[Precision] | None = None,
    ) -> None:
        self._cluster = cluster
        self.identity = model.identity()
        self.model = model.info.shape
        self.lengths = lengths_of(model.info)
        self.any_length = main_input(model.info) == "input_ids"
        self.accuracy = accuracy_of(model.info.files, model.fingerprint)
        # Made-up images are noise, which does not tell what coding a photo takes.
        pixels = main_input(model.info) == "pixel_values"
        self.coding = cluster.coding_times() if pixels else ()
        self._model = model
        self._inputs: tuple[tuple[int, int], dict[str, Any]] = ((0, 0), {})
        self.payload = self._payload()
        reasons = {each: self._obstacle(each) for each in precisions or model.precisions}
        self.refused = {each: reason for each, reason in reasons.items() if reason}
        self.precisions = tuple(each for each, reason in reasons.items() if not reason)

    def run(self, plan: Plan, batch: int, length: int) -> RunRecord:
        """Run made-up inputs once; return the first node's record.

        Raises:
            ClusterError: a node failed; a profile must not be made of what was left.
        """
        if self._inputs[0] != (batch, length):
            inputs = synthetic_inputs(self._model.info, batch, length)
            self._inputs = ((batch, length), inputs)
        self._model(plan=plan, **self._inputs[1])
        record = self._model.last_record
        assert record is not None
        if record.outcome != "ok":
            raise ClusterError(
                f"a node failed while {plan} was measured; nodes left: "
                f"{', '.join(self._cluster.nodes)}; run the profile again to continue it"
            )
        return with_cluster_energy(record)

    def link_times(self, sizes: Sequence[int], repeats: int) -> LinkTimes:
        """Time exchanges among all nodes."""
        names = self._cluster.nodes
        together = self._cluster.exchange_times(sizes, repeats, senders=names)
        alone = self._cluster.exchange_times(sizes, repeats, senders=names[:1])
        trips = [self._cluster.round_trip_s(names[1], _SMALL_BYTES) for _ in range(repeats)]
        return LinkTimes(len(names), tuple(sizes), together, alone, min(trips) / 2)

    def _obstacle(self, precision: Precision) -> str:
        """Return why some node cannot compute at a precision, or nothing."""
        if precision == "float32":
            return ""
        inputs: dict[str, Any] = {**synthetic_inputs(self._model.info, 1, self.lengths[0])}
        for name in self._cluster.nodes:
            try:
                self._model(plan=Plan("local", (name,), precision=precision), **inputs)
            except ModelError as error:
                return str(error)
        return ""

    def _payload(self) -> Payload:
        """Measure bytes in and out, at two lengths where lengths differ."""
        short, long = self.lengths[0], self.lengths[-1]
        inputs = [self._bytes_in(length) for length in (short, long)]
        outputs = [self._bytes_out(length) for length in (short, long)]
        per_input, per_output = 0.0, 0.0
        if long > short:
            per_input = (inputs[1] - inputs[0]) / (long - short)
            per_output = (outputs[1] - outputs[0]) / (long - short)
        return Payload(
            input_bytes=max(0.0, inputs[0] - per_input * short),
            input_bytes_per_position=max(0.0, per_input),
            output_bytes=max(0.0, outputs[0] - per_output * short),
            output_bytes_per_position=max(0.0, per_output),
        )

    def _bytes_in(self, length: int) -> int:
        return _size(tensors.pack(synthetic_inputs(self._model.info, 1, length))[1])

    def _bytes_out(self, length: int) -> int:
        inputs: dict[str, Any] = {**synthetic_inputs(self._model.info, 1, length)}
        output = self._model(plan=Plan(), **inputs)
        return _size(tensors.pack(output)[1])


def _size(frames: Sequence[memoryview]) -> int:
    return sum(frame.nbytes for frame in frames)


def with_cluster_energy(record: RunRecord) -> RunRecord:
    """Return the record with the energy of all nodes that took part, if all measured."""
    energy = combine([_reading(each) for each in (record, *record.per_node.values())])
    return replace(
        record,
        energy_j=energy.joules,
        energy_scope=energy.scope if energy.joules is not None else None,
        energy_quality=energy.quality if energy.joules is not None else None,
    )


def _reading(record: RunRecord) -> EnergyReading:
    known = record.energy_j is not None
    return EnergyReading(
        joules=record.energy_j,
        scope=record.energy_scope or "",
        quality=record.energy_quality if known else None,
        duration_s=record.total_s,
        node=record.node,
        domain=record.energy_domain or "",
        reason=None if known else record.energy_scope or "nobody measured",
    )
