"""The models of a server, by the name that requests call them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from prism.api.model import DistributedModel
from prism.errors import ConfigError
from prism.models.load import ModelInfo
from prism.server.errors import UnknownModel
from prism.server.tensor_specs import TensorSpec, input_specs, output_specs

# What a URL's path can hold as it stands.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


@dataclass(frozen=True, slots=True)
class Served:
    """One model of the server.

    Attributes:
        name: that requests call it.
        model: on the nodes.
        info: its description.
        inputs: the tensors that it takes; the first one is needed.
        outputs: the tensors that it gives when a request asks for all.
    """

    name: str
    model: DistributedModel
    info: ModelInfo
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()

    @classmethod
    def of(cls, name: str, model: DistributedModel) -> Served:
        """Return a loaded model under a name, with its tensors; runs it on small inputs.

        Raises:
            ClusterError: no node could answer.
        """
        return cls(name, model, model.info, input_specs(model.info), output_specs(model))

    @property
    def ready(self) -> bool:
        """Whether some node can answer, even if only one is left."""
        return bool(self.model.nodes)


class Models(Mapping[str, Served]):
    """The models of a server by name, in the order in which they were given.

    Args:
        served: at least one; no two of one name.
    """

    def __init__(self, served: Iterable[Served]) -> None:
        self._served = {each.name: each for each in served}

    def find(self, name: str) -> Served:
        """Return a model.

        Raises:
            UnknownModel: there is none of that name.
        """
        if name not in self._served:
            raise UnknownModel(name, tuple(self._served))
        return self._served[name]

    @override
    def __getitem__(self, name: str) -> Served:
        return self._served[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._served)

    @override
    def __len__(self) -> int:
        return len(self._served)


def named_sources(arguments: Iterable[str]) -> dict[str, str]:
    """Return the MODEL arguments of a server by the name that each is served under.

    `NAME=MODEL` says the name; else it is the last part of a path or an id.

    Raises:
        ConfigError: a name cannot stand in a URL, or two models have the same.
    """
    sources: dict[str, str] = {}
    for argument in arguments:
        name, equals, source = argument.partition("=")
        if not equals or not _NAME.fullmatch(name) or Path(argument).exists():
            source, name = argument, Path(argument).name
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} cannot stand in a URL; name the model with NAME={source}, "
                f"in letters, digits and inner . _ : -"
            )
        if name in sources:
            raise ConfigError(
                f"{sources[name]} and {source} would both be named {name}; "
                f"name one with NAME=MODEL, such as {name}-2={source}"
            )
        sources[name] = source
    return sources
