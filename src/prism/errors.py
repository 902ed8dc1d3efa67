"""Everything prism raises on purpose, as one tree.

    PrismError
    ├── InputError (ValueError)      the caller can fix it; the CLI exits with 2
    │   ├── PlanError                a plan that is malformed or does not fit the cluster
    │   ├── ModelError               a model that cannot be found or loaded
    │   │   ├── UnsupportedModel     a model prism cannot partition, with the reason
    │   │   └── UnsupportedPrecision a precision or backend a model cannot have here
    │   ├── RequestError             inputs the model or the plan cannot take
    │   │   └── ModelFailed          the model itself raised while it ran, as it would anywhere
    │   ├── ConfigError              a link, cluster file or option with a wrong value
    │   └── MapError                 a performance map that is broken or belongs elsewhere
    └── ClusterError (RuntimeError)  the machines, not the caller; the CLI exits with 1
        ├── PeerLost                 a peer closed its connection or died
        ├── DeadlineExceeded         a peer, or a request, was not there in time
        ├── Cancelled                the caller gave the request up
        └── NodeFailed               a node's machine failed while it worked

Every message names the value that is wrong and says what to do next.
"""

import concurrent.futures


class PrismError(Exception):
    """Base of all errors raised by prism.

    Attributes:
        node: name of the node that reported it or that it is about; empty where none is.
    """

    node: str = ""


class InputError(PrismError, ValueError):
    """The caller gave something that cannot be used; nothing was changed."""


class PlanError(InputError):
    """A plan is malformed, or does not fit the cluster or the model."""


class ModelError(InputError):
    """A model cannot be found or loaded."""


class UnsupportedModel(ModelError):
    """A model cannot be partitioned; the message names the reason."""


class UnsupportedPrecision(ModelError):
    """A model cannot be had at a precision, or with a backend, on some device; says why."""


class RequestError(InputError):
    """Inputs that the model or the plan cannot take."""


class ModelFailed(RequestError):
    """The model itself raised while it ran; it would on every node.

    Attributes:
        in_step: whether the node's connections to the others can serve the next request.
    """

    in_step: bool = False


class ConfigError(InputError):
    """A link, cluster file or option has a wrong value."""


class MapError(InputError):
    """A performance map is broken, or was measured on something else."""


class ClusterError(PrismError, RuntimeError):
    """The machines failed, not the caller."""


class PeerLost(ClusterError):
    """A peer closed its connection or died."""


class DeadlineExceeded(ClusterError):
    """A peer, or a whole request, was not there before its deadline."""


class Cancelled(ClusterError, concurrent.futures.CancelledError):
    """The caller gave the request up."""


class NodeFailed(ClusterError):
    """A node's machine failed while it worked: memory, device, files."""
