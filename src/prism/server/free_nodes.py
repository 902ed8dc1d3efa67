"""Which nodes a batch could start on now, as far as the planner makes use of them."""

from __future__ import annotations

import time
from collections.abc import Collection

from prism.api.condition import Condition
from prism.server.batch import Batch

# After that, the planner is asked again whether a node it passed over is worth using.
_ASK_AGAIN_S = 5.0


class FreeNodes:
    """The free nodes of one model.

    A batch that the planner lets wait for a node, while others are free, says that those are not
    worth using. They do not count as free for a while: otherwise all requests would be handed in
    one by one, to wait where nothing can join them.

    Args:
        condition: of the model.
    """

    def __init__(self, condition: Condition) -> None:
        self._condition = condition
        self._passed_over: frozenset[str] = frozenset()
        self._until_s = 0.0

    def now(self, running: Collection[Batch]) -> tuple[str, ...]:
        """Return the free nodes; those of batches handed in are not."""
        over = self._passed_over if time.monotonic() < self._until_s else frozenset()
        taken = {name for batch in running for name in batch.nodes} | over
        return tuple(name for name in self._condition.idle if name not in taken)

    def placed(self, batch: Batch, running: Collection[Batch]) -> None:
        """Learn from where the planner put a batch; `running` are all that were handed in."""
        others = {name for each in running if each is not batch for name in each.nodes}
        if others & set(batch.nodes):
            self._passed_over = frozenset(self._condition.idle) - others
            self._until_s = time.monotonic() + _ASK_AGAIN_S
