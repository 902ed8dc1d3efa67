"""The messages of the control plane, and how they become frames.

A message is one JSON frame, validated by pydantic, followed by raw tensor frames. Nodes speak to
the coordinator only. Unknown kinds and malformed JSON are errors that name what came.

A node says `Hello` until it is welcomed or refused. From then on it sends heartbeats, on a
connection of their own: behind the frames of a large output they would come too late. A coordinator
that hears from a node it does not count as alive says `Unknown`, and the node says hello again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from prism.errors import ClusterError, ConfigError
from prism.plan import Precision

PROTOCOL = 4  # raised with every change that an older node would not understand
HEARTBEAT_S = 0.5
_PROBLEM_LENGTH = 200
# Frames that fit into two or three packets take a latency, and nothing that could be measured.
_LARGE_BYTES = 4_000


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NodeFacts(_Message):
    """What a node is and runs; compared at join, written into performance maps."""

    hardware: str
    device: str
    threads: int
    cores: tuple[int, ...] = ()
    prism: str
    torch: str
    transformers: str


class Hello(_Message):
    """A node asks to join.

    Attributes:
        protocol: version of these messages.
        name: unique in the cluster.
        instance: unique to the process; a restarted node is another one.
        address: by which other nodes reach it.
        pid: on its own machine.
        facts: what it is and runs.
    """

    kind: Literal["hello"] = "hello"
    protocol: int
    name: str
    instance: str
    address: str
    pid: int
    facts: NodeFacts


class Welcome(_Message):
    """The coordinator admits a node.

    Attributes:
        coordinator: unique to the coordinator; another coordinator means other models.
        since: the membership epoch that the admission opened.
    """

    kind: Literal["welcome"] = "welcome"
    coordinator: str
    since: int


class Refused(_Message):
    """The coordinator turns a node away for good."""

    kind: Literal["refused"] = "refused"
    reason: str


class Heartbeat(_Message):
    """A node is alive; comes from a connection of its own, so it says whose it is."""

    kind: Literal["heartbeat"] = "heartbeat"
    name: str
    instance: str


class Unknown(_Message):
    """The coordinator does not count the node as alive: it must say hello again."""

    kind: Literal["unknown"] = "unknown"


class Ping(_Message):
    """Nothing: only a broken connection fails to take it."""

    kind: Literal["ping"] = "ping"


class Load(_Message):
    """Bring a model into memory; answered with `Loaded`, off the computing thread.

    Attributes:
        request: its number.
        model: number of the model; a model that is there already gains what it lacks.
        source: what to load.
        dtype: of the weights.
        precisions: at which it shall be there; without float32, the weights that these were made
            of are dropped.
    """

    kind: Literal["load"] = "load"
    request: int
    model: int
    source: str
    dtype: str
    precisions: tuple[Precision, ...] = Field(("float32",), min_length=1)


class Loaded(_Message):
    """A model is in memory.

    Attributes:
        request: number of the `Load`.
        fingerprint: of the weights that were loaded.
        backend: that runs it.
        held: by precision, the bytes of its weights.
        refused: by precision that it cannot have here, why.
    """

    kind: Literal["loaded"] = "loaded"
    request: int
    fingerprint: str
    backend: str = "eager"
    held: dict[Precision, int] = Field(default_factory=dict)
    refused: dict[Precision, str] = Field(default_factory=dict)


class Unload(_Message):
    """Let go of a model; not answered."""

    kind: Literal["unload"] = "unload"
    model: int


class Group(_Message):
    """Who takes part in a sequence plan, and where they meet.

    Attributes:
        epoch: unique to the group.
        members: names of the nodes, by rank.
        transport: name of the transport that connects them.
        meeting_port: of the meeting point on the coordinator's address.
    """

    epoch: int
    members: tuple[str, ...]
    transport: str
    meeting_port: int


class FormGroup(_Message):
    """Connect to the members of a group; sent ahead of the inputs, which may take long."""

    kind: Literal["form_group"] = "form_group"
    request: int
    group: Group


class Announce(_Message):
    """Large frames come next, in one message or two; not answered.

    A message is handed over whole, so that nothing else tells when its first byte came.

    Attributes:
        request: of the message that comes.
    """

    kind: Literal["announce"] = "announce"
    request: int


class Run(_Message):
    """Run a batch; its inputs follow as frames.

    Attributes:
        request: number of the request; answers repeat it.
        model: number of the model.
        plan: in its text form.
        length: tokens per sample; inputs, plan and output have been checked.
        output: the form of the output that is wanted, in its text form.
        inputs: what `codec.pack` said of them.
        epoch: of the group that a sequence plan runs in.
        timeout_s: longest wait for one exchange, or for the rows that follow.
        whole_shape: shape of the main input where helpers have only their own part of it.
        rest_rows: rows that follow in a `Rest`, so that this node can begin with those here.
    """

    kind: Literal["run"] = "run"
    request: int
    model: int
    plan: str
    length: int
    output: str = "full"
    inputs: Any
    epoch: int | None = None
    timeout_s: float
    whole_shape: tuple[int, ...] | None = None
    rest_rows: int = 0


class Rest(_Message):
    """The rows that follow those of a `Run`, as frames; not answered.

    Attributes:
        request: of the run.
        inputs: what `codec.pack` said of them.
    """

    kind: Literal["rest"] = "rest"
    request: int
    inputs: Any


class Done(_Message):
    """A run, or another request, ended well; its output follows as frames.

    Attributes:
        request: its number.
        held_s: from its announcement, or its arrival where there was none, to this answer; what
            the coordinator waited longer, it travelled.
        record: what it cost.
        first_wait_s: part of the record's `comm_s` that went by before any peer's first frame.
        gather_s: part of its `output_s` that it waited inside the model for others' output rows.
        output: what `codec.pack` said of the output.
    """

    kind: Literal["done"] = "done"
    request: int
    held_s: float = 0.0
    record: dict[str, Any] | None = None
    first_wait_s: float = 0.0
    gather_s: float = 0.0
    output: Any = None


class Failed(_Message):
    """A request failed on a node.

    Attributes:
        request: its number.
        error: the class name from `prism.errors`.
        message: what happened.
        in_step: whether the node's connections to the others can serve the next request.
    """

    kind: Literal["failed"] = "failed"
    request: int
    error: str
    message: str
    in_step: bool = False


class Cancel(_Message):
    """Nobody waits for a request any more: drop it where it stands; not answered."""

    kind: Literal["cancel"] = "cancel"
    request: int


class CloseGroups(_Message):
    """Close the connections of these epochs, which will not be used again; not answered."""

    kind: Literal["close_groups"] = "close_groups"
    epochs: tuple[int, ...]


class Probe(_Message):
    """Answer at once, whatever is computed; what it took tells of the link.

    The frames that follow are only weight.
    """

    kind: Literal["probe"] = "probe"
    request: int


class TimeExchanges(_Message):
    """Exchange frames with the other members of a group, and time it.

    Attributes:
        request: number of the request; answers repeat it.
        epoch: of the group.
        sizes: payload bytes of a frame, one after the other.
        repeats: exchanges per size.
        senders: ranks that send; the others only receive.
    """

    kind: Literal["time_exchanges"] = "time_exchanges"
    request: int
    epoch: int
    sizes: tuple[int, ...]
    repeats: int
    senders: tuple[int, ...]


class ExchangesTimed(_Message):
    """The median time of an exchange by size, as this node saw it."""

    kind: Literal["exchanges_timed"] = "exchanges_timed"
    request: int
    times_s: tuple[float, ...]


class TimeCoding(_Message):
    """Compress and decompress an image, and time it; queued behind what is computed."""

    kind: Literal["time_coding"] = "time_coding"
    request: int


class CodingTimed(_Message):
    """What a byte of an image takes on this node; see `control.lossless`."""

    kind: Literal["coding_timed"] = "coding_timed"
    request: int
    compress_per_byte_s: float
    decompress_per_byte_s: float


class Stop(_Message):
    """The coordinator closes; nodes that it started end, the others wait for the next one."""

    kind: Literal["stop"] = "stop"


Message = Annotated[
    Hello | Welcome | Refused | Heartbeat | Unknown | Ping | Load | Loaded | Unload | FormGroup
    | Announce | Run | Rest | Done | Failed | Cancel | CloseGroups | Probe | TimeExchanges
    | ExchangesTimed | TimeCoding | CodingTimed | Stop,
    Field(discriminator="kind"),
]  # fmt: skip
_ADAPTER: TypeAdapter[Message] = TypeAdapter(Message)


def encode(message: BaseModel, frames: Sequence[memoryview] = ()) -> list[Any]:
    """Return the frames of a message."""
    return [message.model_dump_json().encode(), *frames]


def size_of(frames: Sequence[Any]) -> int:
    """Return the bytes of tensor frames."""
    return sum(memoryview(frame).nbytes for frame in frames)


def is_large(frames: Sequence[Any]) -> bool:
    """Whether frames take long enough on a link to be announced."""
    return size_of(frames) >= _LARGE_BYTES


def decode(frames: Sequence[Any]) -> tuple[Message, list[Any]]:
    """Return a message and its tensor frames.

    Raises:
        ClusterError: the frames are no message of this protocol; in one short line.
    """
    try:
        return _ADAPTER.validate_json(bytes(frames[0])), list(frames[1:])
    except (ValidationError, IndexError, RecursionError) as error:
        raise ClusterError(f"not a prism message: {_problem(error)}") from error


def _problem(error: Exception) -> str:
    if isinstance(error, IndexError):
        return "it has no frames"
    if not isinstance(error, ValidationError):
        return "it is nested too deeply"
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    # It quotes what came, which may be long and is not to be trusted on a terminal.
    text = f"{where}: {first['msg']}" if where else first["msg"]
    return ascii(text[:_PROBLEM_LENGTH])[1:-1]


def protocol_of(frames: Sequence[Any]) -> int | None:
    """Return the protocol of a hello that `decode` could not read; None if it is no hello."""
    try:
        values = json.loads(bytes(frames[0]))
    except (ValueError, IndexError, RecursionError):
        return None
    if not isinstance(values, dict) or values.get("kind") != "hello":
        return None
    protocol = values.get("protocol")
    return protocol if type(protocol) is int else None


def host_and_port(endpoint: str) -> tuple[str, int]:
    """Return the parts of `tcp://HOST:PORT`.

    Raises:
        ConfigError: it is none.
    """
    scheme, _, rest = endpoint.partition("://")
    host, _, port = rest.rpartition(":")
    if scheme != "tcp" or not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ConfigError(f"the coordinator's address must be tcp://HOST:PORT, not {endpoint!r}")
    return host.strip("[]"), int(port)
