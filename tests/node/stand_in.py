"""A coordinator of few words: admits whoever comes, sends what a test says, keeps what arrives."""

import itertools
import queue
import threading
from collections import defaultdict

import torch

from prism.control import codec
from prism.control import messages as control
from prism.control.admission import protocol_mismatch
from prism.control.delivery import DIRECT
from prism.control.listener import Listener
from prism.errors import ClusterError
from prism.transport.factory import GlooFactory

HOST = "127.0.0.1"
PATIENCE_S = 60.0
NODES = ("a", "b")
_requests = itertools.count(1)


class StandIn:
    """Serves one address; `answers` has what came, by request, in the order it came."""

    def __init__(self, secret, *, port=0, identity="stand-in", delivery=DIRECT, refusal=None):
        self.id = identity
        self.refusal = refusal
        self.hellos = {}
        self.beats = defaultdict(int)
        self.answers = defaultdict(queue.SimpleQueue)
        self.order = []
        self._identities = {}
        self._since = itertools.count(1)
        self._admitted = {}
        self._epochs = itertools.count(1)
        self._changed = threading.Condition()
        self.listener = Listener(HOST, port, secret, delivery)
        self.endpoint = f"tcp://{HOST}:{self.listener.port}"
        self.meeting = GlooFactory().serve(HOST)
        self.listener.serve(self)

    # -- what the listener calls

    def receive(self, identity, frames):
        try:
            message, rest = control.decode(frames)
        except ClusterError:
            protocol = control.protocol_of(frames)
            if protocol is None:
                raise
            reason = protocol_mismatch(protocol)
            self.listener.send(identity, "", control.Refused(reason=reason))
            return
        with self._changed:
            if isinstance(message, control.Hello):
                self._admit(identity, message)
            elif isinstance(message, control.Heartbeat):
                self.beats[message.name] += 1
            else:
                name = next(n for n, known in self._identities.items() if known == identity)
                self.order.append((message.request, type(message).__name__))
                self.answers[message.request].put((name, message, rest))
            self._changed.notify_all()

    def tick(self):
        pass

    def unreachable(self, identity):
        pass

    def _admit(self, identity, hello):
        if self.refusal is not None:
            self.listener.send(identity, "", control.Refused(reason=self.refusal))
            return
        self.hellos[hello.name] = hello
        self._identities[hello.name] = identity
        if hello.name not in self._admitted:
            self._admitted[hello.name] = next(self._since)
        welcome = control.Welcome(coordinator=self.id, since=self._admitted[hello.name])
        self.listener.send(identity, hello.name, welcome)

    # -- what tests use

    def wait_for(self, *names):
        """Wait until nodes have joined and shown so by a heartbeat."""
        with self._changed:
            assert self._changed.wait_for(lambda: all(self.beats[n] for n in names), PATIENCE_S)

    def lose_sight(self, name):
        """Let a node join again, as after a silence; return once it has."""
        with self._changed:
            del self._admitted[name]
            identity, self.beats[name] = self._identities[name], 0
        self.listener.send(identity, name, control.Unknown())
        with self._changed:
            assert self._changed.wait_for(lambda: name in self._admitted, PATIENCE_S)
        self.wait_for(name)

    def send(self, name, message, frames=()):
        self.listener.send(self._identities[name], name, message, frames)

    def answer(self, request):
        """Return the next answer to a request as (name, message, frames); announced or not."""
        while True:
            found = self.answers[request].get(timeout=PATIENCE_S)
            if not isinstance(found[1], control.Announce):
                return found

    def failure(self, request):
        _, message, _ = self.answer(request)
        assert isinstance(message, control.Failed), message
        return message

    def load(self, name, source, model=1):
        """Ask for a model; return the request."""
        request = next(_requests)
        message = control.Load(request=request, model=model, source=str(source), dtype="float32")
        self.send(name, message)
        return request

    def loaded(self, name, source, model=1):
        """Load a model; return its fingerprint."""
        _, message, _ = self.answer(self.load(name, source, model))
        assert isinstance(message, control.Loaded), message
        return message.fingerprint

    def announce(self, name):
        """Tell a node that the message of a request is coming; return the request."""
        request = next(_requests)
        self.send(name, control.Announce(request=request))
        return request

    def run(self, names, plan, pixels, *, model=1, epoch=None, timeout_s=30.0, request=None):
        """Ask nodes to run a batch; return the request."""
        packed = codec.pack({"pixel_values": pixels})
        return self.send_run(
            names, plan, *packed, model=model, epoch=epoch, timeout_s=timeout_s, request=request
        )

    def send_run(
        self,
        names,
        plan,
        description,
        frames,
        *,
        model=1,
        epoch=None,
        timeout_s=30.0,
        request=None,
        **more,
    ):
        """Ask nodes to run a batch as it is packed, and with more said; return the request."""
        request = request or next(_requests)
        message = control.Run(
            request=request,
            model=model,
            plan=plan,
            length=17,
            inputs=description,
            epoch=epoch,
            timeout_s=timeout_s,
            **more,
        )
        for name in names:
            self.send(name, message, frames)
        return request

    def send_rest(self, name, request, inputs):
        """Send the rows that follow those of a run."""
        description, frames = codec.pack(inputs)
        self.send(name, control.Rest(request=request, inputs=description), frames)

    def output(self, request, nodes=1):
        """Return the logits and the record of a run, once all its nodes have answered."""
        found = None
        for _ in range(nodes):
            _, message, frames = self.answer(request)
            assert isinstance(message, control.Done), message
            if message.output is not None:
                found = codec.unpack(message.output, frames).logits, message.record
        return found

    def form(self, *names, members=None):
        """Tell nodes to form a group; return its epoch and the request."""
        request, epoch = next(_requests), next(self._epochs)
        group = control.Group(
            epoch=epoch,
            members=members or names,
            transport="gloo",
            meeting_port=self.meeting.port,
        )
        for name in names:
            self.send(name, control.FormGroup(request=request, group=group))
        return epoch, request

    def probe(self, name, payload=b""):
        """Send a probe; return the request."""
        request = next(_requests)
        self.send(name, control.Probe(request=request), [memoryview(payload)] if payload else [])
        return request

    def time_coding(self, name):
        """Ask what coding images takes; return the request."""
        request = next(_requests)
        self.send(name, control.TimeCoding(request=request))
        return request

    def close(self):
        for name, identity in self._identities.items():
            self.listener.send(identity, name, control.Stop())
        self.listener.close()


def big_pixels(batch):
    return torch.rand(batch, 3, 224, 224)
