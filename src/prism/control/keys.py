"""The cluster secret: one CURVE key pair, made by `prism keygen`, copied to every node.

Holding the file is what makes a machine part of the cluster: the control plane is encrypted with it
and refuses every other key.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import zmq

from prism.errors import ConfigError

ZAP_DOMAIN = "prism"


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A CURVE key pair in Z85 text."""

    public: bytes
    private: bytes


def generate() -> Secret:
    """Return a fresh secret."""
    public, private = zmq.curve_keypair()
    return Secret(public, private)


def save(secret: Secret, path: Path) -> None:
    """Write a secret for its owner's eyes only; never overwrites.

    Raises:
        ConfigError: the file exists, or cannot be written.
    """
    text = json.dumps(
        {"public": secret.public.decode(), "private": secret.private.decode()}, indent=1
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigError(f"{path} exists; remove it first, or choose another name") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")


def read(path: Path) -> Secret:
    """Read what `save` wrote.

    Raises:
        ConfigError: there is no secret at `path`.
    """
    try:
        values = json.loads(path.read_text())
        public, private = values["public"].encode(), values["private"].encode()
        if zmq.curve_public(private) != public:
            raise ValueError("the keys do not belong together")
    except FileNotFoundError as error:
        raise ConfigError(
            f"no cluster secret at {path}; make one with prism keygen and copy it to every node"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zmq.ZMQError) as error:
        raise ConfigError(f"{path} is no cluster secret ({error}); see prism keygen") from error
    return Secret(public, private)


def secure_server(socket: zmq.Socket[bytes], secret: Secret) -> None:
    """Let `socket` accept peers with the cluster secret only, before it binds."""
    socket.curve_server = True
    socket.curve_publickey = secret.public
    socket.curve_secretkey = secret.private
    socket.zap_domain = ZAP_DOMAIN.encode()


def secure_client(socket: zmq.Socket[bytes], secret: Secret) -> None:
    """Let `socket` connect to a coordinator with the cluster secret, before it connects."""
    socket.curve_serverkey = secret.public
    socket.curve_publickey = secret.public
    socket.curve_secretkey = secret.private
