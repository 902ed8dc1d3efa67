"""One rank of the transport tests: does every exchange, then lives through a fault of rank 2.

Run as `peer.py FAULT RANK PORT MEDIUM`; prints one JSON line of what it saw.
"""

import json
import os
import signal
import sys
import time

import torch

from prism.emulation.link import LinkShape
from prism.emulation.medium import Medium
from prism.emulation.shaped import ShapedTransport
from prism.errors import ClusterError
from prism.transport.gloo import GlooTransport, connect_store, epoch_store
from prism.transport.staging import WIRE_DTYPES, Staging

SIZE = 3
HOST = "127.0.0.1"
LONG_S = 30.0


class Exchanged:
    """Frames to and from some peers under one number."""

    def __init__(self, transport, frame, send_to, receive):
        number = transport.take_numbers(1)
        self.arriving = transport.receive(number, receive)
        self.leaving = transport.send(number, frame, send_to)

    def wait(self, timeout_s):
        self.arriving.wait(timeout_s)

    def wait_sent(self, timeout_s):
        self.leaving.wait(timeout_s)


class Peer:
    def __init__(self, rank, port, medium_path):
        self.rank = rank
        self.others = [peer for peer in range(SIZE) if peer != rank]
        self.medium_path = medium_path
        self.store = connect_store(HOST, port, LONG_S)
        self.tasks_before = len(os.listdir("/proc/self/task"))
        self.transport = self.join(0, SIZE)
        self.seen = {}

    def join(self, epoch, size):
        return GlooTransport(epoch_store(self.store, epoch), self.rank, size, LONG_S, HOST)

    def meet(self, name):
        for peer in (0, 1):
            if peer == self.rank:
                self.store.set(f"{name}{peer}", "here")
            else:
                self.store.get(f"{name}{peer}")

    def swap(self, transport, send_to, receive_from, length=lambda rank: 1000):
        header = transport.header_bytes
        frame = torch.full((header + length(self.rank),), self.rank + 1, dtype=torch.uint8)
        receive = {
            peer: torch.zeros(header + length(peer), dtype=torch.uint8) for peer in receive_from
        }
        return Exchanged(transport, frame, send_to, receive), receive

    def exchanges(self):
        transport = self.transport
        handle, got = self.swap(transport, self.others, self.others, lambda rank: 100 + 1000 * rank)
        handle.wait(LONG_S)
        self.seen["unequal"] = {peer: (len(x), x.unique().tolist()) for peer, x in got.items()}
        counters = transport.counters
        self.seen["counters"] = [
            counters.bytes_sent,
            counters.bytes_received,
            counters.messages,
            counters.comm_s,
        ]
        handle.wait(0.0)
        handle.wait_sent(LONG_S)
        handle.wait_sent(0.0)
        self.seen["received_once"] = counters.bytes_received == self.seen["counters"][1]

        later = range(self.rank + 1, SIZE)
        handle, got = self.swap(transport, later, range(self.rank))
        handle.wait(LONG_S)
        self.seen["causal"] = {peer: x.unique().tolist() for peer, x in got.items()}

        first, got1 = self.swap(transport, self.others, self.others, lambda rank: 4_000_000)
        empty, _ = self.swap(transport, (), ())
        second, got2 = self.swap(transport, self.others, self.others, lambda rank: 3_000_000)
        for handle in (second, empty, first):
            handle.wait_sent(LONG_S)
            handle.wait(LONG_S)
        self.seen["overlapping"] = {
            peer: [len(x) for x in (got1[peer], got2[peer]) if bool((x == peer + 1).all())]
            for peer in self.others
        }

    def wires(self):
        staging = Staging("cpu", self.transport.header_bytes)
        self.seen["wires"] = {}
        for name, dtype in WIRE_DTYPES.items():
            payloads = [torch.randn(2, 3 + rank, 8, generator=_seeded(rank)) for rank in range(3)]
            frame = staging.frame("own", payloads[self.rank].shape, dtype)
            staging.pack(payloads[self.rank], dtype, frame)
            receive = {
                peer: staging.frame(("from", peer), payloads[peer].shape, dtype)
                for peer in self.others
            }
            handle = Exchanged(self.transport, frame, self.others, receive)
            handle.wait(LONG_S)
            handle.wait_sent(LONG_S)
            right = True
            for peer in self.others:
                out = torch.empty_like(payloads[peer])
                staging.unpack(receive[peer], dtype, out)
                right = right and torch.equal(out, payloads[peer].to(dtype).float())
            self.seen["wires"][name] = right

    def shaped(self):
        paced = self.shape("20mbit,5ms")
        self.seen["paced"] = self.timed(paced, self.others, self.others, 20_000)
        totals, before = paced.counters, self.seen["counters"]
        self.seen["paced_bytes"] = [
            totals.bytes_sent - before[0],
            totals.bytes_received - before[1],
        ]
        slow = self.shape("800ms")
        self.seen["one_way"] = self.timed(slow, range(self.rank + 1, SIZE), range(self.rank), 10)
        stalled = self.shape("stall=0+300ms" if self.rank == 1 else "none")
        self.seen["stalled"] = self.timed(stalled, self.others, self.others, 10)
        self.swap_all().wait(LONG_S)  # the deadline below is short: begin it together
        dropped = self.shape("drop=0" if self.rank == 1 else "none")
        handle, _ = self.swap(dropped, self.others, self.others)
        self.seen["dropped"] = _error(lambda: handle.wait(LONG_S if self.rank == 1 else 0.5))
        self.seen["dropped_again"] = _error(lambda: handle.wait(0.0))
        if self.rank != 1:
            # With a number of its own, rank 1 would count differently from here on.
            self.seen["dropped_post"] = _error(lambda: dropped.receive(0, {}))
        self.seen["shared_totals"] = dropped.counters is self.transport.counters

    def shape(self, text):
        shape = LinkShape.parse(text)
        medium = Medium(f"{self.medium_path}-{len(self.seen)}", shape, SIZE)
        return ShapedTransport(self.transport, shape, medium, range(SIZE))

    def timed(self, transport, send_to, receive_from, nbytes):
        comm_s = transport.counters.comm_s
        begun = time.monotonic()
        handle, got = self.swap(transport, send_to, receive_from, lambda rank: nbytes)
        handle.wait(LONG_S)
        ended = time.monotonic()
        bodies = {peer: x[transport.header_bytes :] for peer, x in got.items()}
        assert all(bool((body == peer + 1).all()) for peer, body in bodies.items())
        return {
            "begun": begun,
            "ended": ended,
            "stamps": {peer: transport.arrival(x) for peer, x in got.items()},
            "comm_s": transport.counters.comm_s - comm_s,
        }

    def fault(self, kind):
        if self.rank == 2:
            os.kill(os.getpid(), signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
            # Only a frozen process comes here, when it is thawed.
            self.seen["thawed"] = _error(lambda: self.swap_all().wait(LONG_S))
            self.transport.close()
            return
        self.meet("fault")
        begun = time.monotonic()
        error = None
        pending = []
        try:
            # Large, so that sends are still under way when the transport is closed.
            pending.append(self.swap_all())
            pending.append(self.swap_all(lambda rank: 20_000_000))
            pending[0].wait(LONG_S if kind == "kill" else 1.0)
        except ClusterError as caught:
            error = caught
        self.seen["fault"] = [type(error).__name__, str(error)]
        self.seen["fault_s"] = time.monotonic() - begun
        self.seen["fault_post"] = _error(self.swap_all)
        self.seen["fault_wait"] = _error(lambda: [handle.wait(1.0) for handle in pending])
        self.seen["fault_sent"] = _error(lambda: [handle.wait_sent(1.0) for handle in pending])
        self.seen["open_after_fault"] = not self.transport.closed
        self.meet("failed")
        begun = time.monotonic()
        self.transport.close()
        self.transport.close()
        self.seen["close_s"] = time.monotonic() - begun
        self.seen["closed"] = self.transport.closed
        # With `error` still held: no thread of Gloo is left that could write to a buffer.
        self.seen["leftover_tasks"] = len(os.listdir("/proc/self/task")) - self.tasks_before
        waits = [wait for handle in pending for wait in (handle.wait, handle.wait_sent)]
        self.seen["closed_wait"] = [_error(lambda wait=wait: wait(1.0)) for wait in waits]
        self.seen["closed_post"] = _error(self.swap_all)

    def swap_all(self, length=lambda rank: 1000):
        return self.swap(self.transport, self.others, self.others, length)[0]

    def regroup(self):
        transport = self.join(1, 2)
        handle, got = self.swap(transport, [1 - self.rank], [1 - self.rank])
        handle.wait(LONG_S)
        self.seen["regrouped"] = got[1 - self.rank].unique().tolist()
        transport.close()


def _seeded(rank):
    return torch.Generator().manual_seed(rank)


def _error(action):
    try:
        action()
    except ClusterError as error:
        return [type(error).__name__, str(error)]
    return None


def main():
    fault, rank, port, medium_path = sys.argv[1:]
    torch.set_num_threads(1)
    peer = Peer(int(rank), int(port), medium_path)
    if fault == "kill":
        peer.exchanges()
        peer.wires()
        peer.shaped()
    peer.fault(fault)
    if peer.rank != 2:
        peer.regroup()
    print(json.dumps(peer.seen), flush=True)


if __name__ == "__main__":
    main()
