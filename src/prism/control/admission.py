"""Whether a node may join: what must be the same on all nodes, and both values when it is not."""

from __future__ import annotations

from collections.abc import Sequence

from prism.control.messages import PROTOCOL, Hello
from prism.plan import is_node_name

_SAME_VERSIONS = ("prism", "torch", "transformers")


def mismatch(hello: Hello, others: Sequence[Hello]) -> str | None:
    """Return why a node cannot work with the `others`, who are in; None when it can."""
    if hello.protocol != PROTOCOL:
        return protocol_mismatch(hello.protocol)
    if not is_node_name(hello.name):
        return f"{hello.name!r} cannot name a node; use letters, digits and inner dots or dashes"
    if not others:
        return None
    first = others[0]
    for what in _SAME_VERSIONS:
        here, there = getattr(first.facts, what), getattr(hello.facts, what)
        # What follows a + tells builds of one version apart, as for another device.
        if here.partition("+")[0] != there.partition("+")[0]:
            return (
                f"{hello.name} has {what} {there}, {first.name} has {here}; "
                f"install the same version on both"
            )
    return None


def protocol_mismatch(theirs: int) -> str:
    """Return why a node that speaks protocol `theirs` cannot join."""
    return (
        f"it speaks protocol {theirs}, the coordinator {PROTOCOL}; install the same prism on both"
    )
