"""What a strategy is: the way of one batch over the nodes of its plan, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from prism.engine.arriving import Rest
from prism.engine.waiting import Report
from prism.models.instrument import BeforeBlock
from prism.models.load import LoadedModel, ModelInfo
from prism.models.outputs import Reduction
from prism.output_form import OutputForm
from prism.partition.forward_pass import ForwardPass
from prism.plan import Plan
from prism.record import RunRecord
from prism.transport.base import Transport
from prism.transport.staging import Staging

Inputs = Mapping[str, Any]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """One batch as one node is given it.

    Attributes:
        plan: how it is run.
        inputs: checked; what `Strategy.place` made for this node.
        length: tokens per sample.
        output: the form of the output that is wanted.
        transport: connects the plan's nodes in its order; None where they exchange nothing.
        whole_shape: see `Placement`.
        rest: rows that follow those of `inputs`; see `Strategy.sent_first`.
        timeout_s: longest wait for one exchange.
        should_cancel: whether nobody waits for the answer any more.
    """

    plan: Plan
    inputs: Inputs
    length: int
    output: OutputForm
    transport: Transport | None
    timeout_s: float
    should_cancel: Callable[[], bool]
    whole_shape: Shape | None = None
    rest: Rest | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """What the nodes of a plan are given.

    Attributes:
        inputs: by node, the same object where they are the same; a node with nothing to do is
            left out.
        whole_shape: shape of the main input, where all nodes but the first are given only the part
            that their own positions are made of; None where nothing is cut by positions.
    """

    inputs: Mapping[str, Inputs]
    whole_shape: Shape | None = None


@dataclass(frozen=True, slots=True)
class Ran:
    """What a node computed, and what of its time was no computing; see `RunRecord`."""

    output: Any
    staging_s: float = 0.0
    comm_s: float = 0.0
    input_s: float = 0.0
    output_s: float = 0.0
    bytes_sent: int = 0
    messages: int = 0
    first_wait_s: float = 0.0


class Runner(Protocol):
    """What a strategy needs of a loaded model on this node; the engine is one.

    Attributes:
        loaded: the model.
        device: where it lives.
        hooked: whether whole batches, too, run through hooked blocks, so that `before_block` works.
    """

    loaded: LoadedModel
    device: torch.device
    hooked: bool

    def forward(
        self,
        inputs: Inputs,
        forward_pass: ForwardPass | None,
        should_cancel: Callable[[], bool],
        reduction: Reduction,
        before_block: BeforeBlock | None = None,
    ) -> Any:
        """Return what becomes of the model's output, its blocks computed as the pass says."""

    def staging_for(self, transport: Transport) -> Staging:
        """Return the frames of this transport, kept so that they are reused while it lives."""

    def drop_frames(self) -> None:
        """Let go of the frames of closed transports; those of others may still be on their way."""


class Strategy(Protocol):
    """One way to use several nodes."""

    def check(self, info: ModelInfo, plan: Plan, inputs: Inputs, length: int) -> None:
        """Check that a plan can serve a request that fits the model.

        Args:
            info: the model.
            plan: of this strategy.
            inputs: checked by `models.inputs.check_inputs`.
            length: tokens per sample.

        Raises:
            PlanError: the plan does not fit the model.
            RequestError: the plan does not fit the request.
        """

    def place(
        self, info: ModelInfo, plan: Plan, nodes: Sequence[str], inputs: Inputs, length: int
    ) -> Placement:
        """Return what each node is given to compute on, in the order of `nodes`.

        Args:
            info: the model.
            plan: of this strategy.
            nodes: names of its nodes, rank 0 first.
            inputs: the whole request, checked.
            length: tokens per sample.
        """

    def sent_first(self, info: ModelInfo, inputs: Inputs) -> tuple[Inputs, Inputs] | None:
        """Cut what a node is given in two, so that it can begin while the second part travels.

        Args:
            info: the model.
            inputs: what `place` gave it.

        Returns:
            What to send first, and the rest; None where it needs all to begin.
        """

    def run(self, runner: Runner, job: Job) -> Ran:
        """Compute this node's part.

        Raises:
            Cancelled: nobody waits for it.
            ModelFailed: the model raised.
            NodeFailed: this machine failed.
            PeerLost, DeadlineExceeded: a peer failed.
        """

    def join(self, outputs: Sequence[Any]) -> Any:
        """Return the request's output from those of its nodes, in the order of `place`.

        Raises:
            RequestError: the model's outputs cannot be joined.
        """

    def settle(self, first: Report, others: Sequence[Report], ended_s: float) -> RunRecord:
        """Return the first node's record with all waiting booked where it came from.

        Args:
            first: of the first node.
            others: of the other nodes that took part.
            ended_s: when the output was joined; from the first node's answer to here is added.
        """
