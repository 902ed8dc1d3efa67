"""A clock that tests set, and a transport whose peers answer with zeros and keep it waiting."""

from prism.transport.base import Counters


class Clock:
    """Stands in for the module `time`; moves only when told to."""

    def __init__(self):
        self.now_s = 100.0

    def perf_counter(self):
        return self.now_s

    def pass_s(self, seconds):
        self.now_s += seconds


class FakeTransport:
    """Rank 0 of `size`; what was sent stays under way until somebody waits for it.

    Args:
        size: number of ranks.
        clock: moved on by waiting; None = waiting takes no time.
        arrival_s: what each `wait` takes.
        sent_s: what each `wait_sent` takes.
    """

    header_bytes = 0
    closed = False

    def __init__(self, size=2, clock=None, arrival_s=0.0, sent_s=0.0):
        self.rank = 0
        self.size = size
        self.counters = Counters()
        self.handles = []
        self._clock, self._arrival_s, self._sent_s = clock, arrival_s, sent_s

    def post(self, frame, send_to, receive):
        handle = FakeHandle(self, frame, receive)
        self.handles.append(handle)
        self.counters.messages += len(send_to)
        return handle

    def stand_still(self, seconds):
        if self._clock is not None:
            self._clock.pass_s(seconds)
        self.counters.comm_s += seconds

    def close(self):
        self.closed = True


class FakeHandle:
    def __init__(self, owner, frame, receive):
        self._owner = owner
        self.frame, self.posted = frame, frame.clone()
        self._receive = receive
        self.arrived = self.sent = False

    def wait(self, timeout_s):
        self.arrived = True
        for buffer in self._receive.values():
            buffer.zero_()
        self._owner.stand_still(self._owner._arrival_s)

    def wait_sent(self, timeout_s):
        # A slow peer reads the frame only now.
        assert self.frame.equal(self.posted), "a frame was refilled while it was being sent"
        self.sent = True
        self._owner.stand_still(self._owner._sent_s)
