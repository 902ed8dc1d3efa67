"""`cluster.yaml`: where the coordinator listens, the secret, and the nodes it expects."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prism.errors import ConfigError
from prism.plan import Precision, is_node_name

DEFAULT_PORT = 7070
_TRANSPORTS = ("gloo",)  # the keys of `transport.factory.FACTORIES`, which imports torch


class ClusterConfig(BaseModel):
    """The contents of `cluster.yaml`.

    Attributes:
        nodes: names of the nodes, the one on the coordinator's own device first.
        host: address of the coordinator that the other nodes can reach.
        port: control port of the coordinator.
        secret: path of the cluster secret, relative to the file.
        device: torch device of the coordinator's own node.
        min_nodes: the cluster opens with so many; the others are taken in when they come.
        transport: what connects the nodes of a sequence plan.
        backend: what runs models on the coordinator's own node; see `prism node --backend`.
        precisions: that nodes keep models in, and no others; without float32 its weights are
            dropped. Left out: float32, and others once a plan has them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: tuple[str, ...] = Field(min_length=1)
    host: str
    port: int = Field(DEFAULT_PORT, ge=1, le=65535)
    secret: Path = Path("cluster.key")
    device: str = "auto"
    min_nodes: int = Field(1, ge=1)
    transport: str = "gloo"
    backend: str = "eager"
    precisions: tuple[Precision, ...] | None = Field(None, min_length=1)


def read_config(path: Path) -> ClusterConfig:
    """Read `cluster.yaml`.

    Raises:
        ConfigError: names the file, the field and what is wrong with it.
    """
    try:
        values = yaml.safe_load(path.read_text())
        config = ClusterConfig.model_validate(values)
    except FileNotFoundError as error:
        raise ConfigError(f"no cluster file at {path}") from error
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{path}: {where}: {first['msg']}") from error
    if config.transport not in _TRANSPORTS:
        raise ConfigError(
            f"{path}: transport must be one of {', '.join(_TRANSPORTS)}, not {config.transport}"
        )
    wrong = [name for name in config.nodes if not is_node_name(name)]
    if wrong or len(set(config.nodes)) != len(config.nodes):
        raise ConfigError(f"{path}: nodes must be distinct names, not {', '.join(config.nodes)}")
    return config.model_copy(update={"secret": path.parent / config.secret})
