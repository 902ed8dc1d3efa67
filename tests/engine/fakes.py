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
        arrival_s: what each `wait` for frames takes that somebody sends.
        sent_s: what each `wait` for own frames takes.
    """

    header_bytes = 0
    closed = False

    def __init__(self, size=2, clock=None, arrival_s=0.0, sent_s=0.0):
        self.rank = 0
        self.size = size
        self.counters = Counters()
        self.received, self.sent = [], []
        self._next = 0
        self._clock, self._arrival_s, self._sent_s = clock, arrival_s, sent_s

    def take_numbers(self, count):
        first, self._next = self._next, self._next + count
        return first

    def receive(self, number, buffers):
        assert number < self._next
        self.received.append(FakeReceive(self, number, buffers))
        return self.received[-1]

    def send(self, number, frame, peers):
        assert number < self._next
        self.sent.append(FakeSend(self, number, frame))
        self.counters.messages += len(peers)
        return self.sent[-1]

    def settle(self, timeout_s):
        for handle in self.sent:
            if not handle.over:
                handle.wait(timeout_s)

    def stand_still(self, seconds):
        if self._clock is not None:
            self._clock.pass_s(seconds)
        self.counters.comm_s += seconds

    def close(self):
        self.closed = True


class FakeReceive:
    def __init__(self, owner, number, buffers):
        self._owner, self.number, self._buffers = owner, number, buffers
        self.over = False

    def wait(self, timeout_s):
        self.over = True
        for buffer in self._buffers.values():
            buffer.zero_()
        self._owner.stand_still(self._owner._arrival_s)


class FakeSend:
    def __init__(self, owner, number, frame):
        self._owner, self.number = owner, number
        self.frame, self.posted = frame, frame.clone()
        self.over = False

    def wait(self, timeout_s):
        # A slow peer reads the frame only now.
        assert self.frame.equal(self.posted), "a frame was refilled while it was being sent"
        self.over = True
        self._owner.stand_still(self._owner._sent_s)
