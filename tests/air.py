"""An emulated link watched from outside, to do something at a known moment of a request.

A node's frames are on the air before they arrive, and with a latency of 100 ms for a long while:
whoever acts when they are seen there acts in the middle of what they belong to.
"""

import struct
import threading
import time
from contextlib import contextmanager
from pathlib import Path

_LINK_BYTES = struct.calcsize("=ddd")
_CLOCK = struct.Struct("=d")
_LOOK_EVERY_S = 0.001


class Air:
    """The file in which the nodes of a local cluster reserve air time.

    `path` is its place, `names` are the nodes, in the cluster's order.
    """

    def __init__(self, path, names):
        self._path, self._names = Path(path), list(names)

    def sends(self, name):
        """Return a condition: the node has sent something since now.

        The first node's frames share its way with the inputs, so nothing is told by its sending.
        """
        before_s = self._busy_until(self._names.index(name))
        return lambda: self._busy_until(self._names.index(name)) > before_s

    def is_sent_something(self, name):
        """Return a condition: something is on the way to the node since now."""
        before_s = self._receives_until(name)
        return lambda: self._receives_until(name) > before_s

    def has_got_something(self, name, latency_s):
        """Return a condition: what was sent to the node since now has arrived there."""
        sent = self.is_sent_something(name)
        return lambda: sent() and time.monotonic() > self._receives_until(name) + latency_s

    def _receives_until(self, name):
        return self._busy_until(len(self._names) + self._names.index(name))

    def _busy_until(self, clock):
        return _CLOCK.unpack_from(self._path.read_bytes(), _LINK_BYTES + clock * _CLOCK.size)[0]


@contextmanager
def once(condition, action, *arguments):
    """Act at the moment a condition comes true, which must be while the body runs."""
    acted, ending = threading.Event(), threading.Event()

    def watch():
        while not ending.wait(_LOOK_EVERY_S):
            if condition():
                action(*arguments)
                acted.set()
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ending.set()
        watcher.join()
    assert acted.is_set(), "the moment to act never came"
