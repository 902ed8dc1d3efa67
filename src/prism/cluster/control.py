"""The messages of the control plane, and how they become frames.

A message is one JSON frame, validated by pydantic, followed by raw tensor frames. Nodes speak to the
head only. Unknown kinds and malformed JSON are errors that name what came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import zmq
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from prism.cluster.keys import Secret
from prism.errors import ClusterError

PROTOCOL = 1
HEARTBEAT_S = 0.5
ZAP_DOMAIN = "prism"


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
    """A node asks to join."""

    kind: Literal["hello"] = "hello"
    protocol: int
    name: str
    address: str
    pid: int
    facts: NodeFacts


class Welcome(_Message):
    """The head admits a node."""

    kind: Literal["welcome"] = "welcome"


class Refused(_Message):
    """The head turns a node away for good."""

    kind: Literal["refused"] = "refused"
    reason: str


class Heartbeat(_Message):
    """A node is alive."""

    kind: Literal["heartbeat"] = "heartbeat"


class Load(_Message):
    """Bring a model into memory."""

    kind: Literal["load"] = "load"
    request: int
    model: int
    source: str
    dtype: str


class Loaded(_Message):
    """A model is in memory."""

    kind: Literal["loaded"] = "loaded"
    request: int
    fingerprint: str
    dtype: str


class Group(_Message):
    """Who takes part in a sequence plan, and where they meet."""

    epoch: int
    members: tuple[str, ...]
    store_port: int


class Run(_Message):
    """Run a batch; its inputs follow as frames."""

    kind: Literal["run"] = "run"
    request: int
    model: int
    plan: str
    inputs: Any
    group: Group | None = None
    timeout_s: float
    arrives_s: float = 0.0


class Done(_Message):
    """A run, or another request, ended well; its output follows as frames."""

    kind: Literal["done"] = "done"
    request: int
    record: dict[str, Any] | None = None
    output: Any = None
    arrives_s: float = 0.0


class Failed(_Message):
    """A request failed on a node; `error` is the class name from `prism.errors`."""

    kind: Literal["failed"] = "failed"
    request: int
    error: str
    message: str


class Forget(_Message):
    """Close the connections of epochs below `epoch`, which will not be used again."""

    kind: Literal["forget"] = "forget"
    epoch: int


class Stop(_Message):
    """Leave the cluster; a node process started by the head ends."""

    kind: Literal["stop"] = "stop"


Message = Annotated[
    Hello | Welcome | Refused | Heartbeat | Load | Loaded | Run | Done | Failed | Forget | Stop,
    Field(discriminator="kind"),
]
_ADAPTER: TypeAdapter[Message] = TypeAdapter(Message)


def encode(message: BaseModel, frames: Sequence[memoryview] = ()) -> list[Any]:
    """Return the frames of a message."""
    return [message.model_dump_json().encode(), *frames]


def decode(frames: Sequence[Any]) -> tuple[Message, list[Any]]:
    """Return a message and its tensor frames.

    Raises:
        ClusterError: the frames are no message of this protocol.
    """
    try:
        return _ADAPTER.validate_json(bytes(frames[0])), list(frames[1:])
    except (ValidationError, IndexError) as error:
        raise ClusterError(f"not a prism message: {str(error).splitlines()[0]}") from error


def secure_server(socket: zmq.Socket[bytes], secret: Secret) -> None:
    """Let `socket` accept peers with the cluster secret only, before it binds."""
    socket.curve_server = True
    socket.curve_publickey = secret.public
    socket.curve_secretkey = secret.private
    socket.zap_domain = ZAP_DOMAIN.encode()


def secure_client(socket: zmq.Socket[bytes], secret: Secret) -> None:
    """Let `socket` connect to a head with the cluster secret, before it connects."""
    socket.curve_serverkey = secret.public
    socket.curve_publickey = secret.public
    socket.curve_secretkey = secret.private
