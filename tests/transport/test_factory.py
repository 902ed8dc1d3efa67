"""Transports by name: ranks of a group meet at a point the coordinator serves."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from prism.errors import ConfigError, PeerLost
from prism.transport import factory as module
from prism.transport.factory import GlooFactory

HOST = "127.0.0.1"
MEMBERS = ("x", "y")


def connected(factories, meeting, epoch):
    with ThreadPoolExecutor(2) as pool:
        return list(
            pool.map(
                lambda name: factories[name].connect(
                    (HOST, meeting.port), epoch, MEMBERS, name, HOST, 20.0
                ),
                MEMBERS,
            )
        )


def test_members_find_each_other_by_name_and_keep_their_way_to_the_meeting_point(monkeypatch):
    real, stores = module.connect_store, []
    monkeypatch.setattr(
        module, "connect_store", lambda *where: stores.append(where) or real(*where)
    )
    meeting = GlooFactory().serve(HOST)
    factories = {name: GlooFactory() for name in MEMBERS}
    for epoch in (3, 4):
        x, y = connected(factories, meeting, epoch)
        assert [(each.rank, each.size) for each in (x, y)] == [(0, 2), (1, 2)]
        frame, got = torch.full((5,), epoch, dtype=torch.uint8), torch.zeros(5, dtype=torch.uint8)
        received = y.receive(y.take_numbers(1), {0: got})
        sent = x.send(x.take_numbers(1), frame, [1])
        received.wait(20.0)
        sent.wait(20.0)
        assert torch.equal(got, frame)
        x.close()
        y.close()
    assert len(stores) == len(MEMBERS)
    factories["x"].forget()
    for each in connected(factories, meeting, 5):
        each.close()
    assert len(stores) == len(MEMBERS) + 1


def test_a_meeting_point_that_is_not_there_is_an_error_and_is_looked_for_again():
    factory = GlooFactory()
    for _ in range(2):
        with pytest.raises(PeerLost, match="no store answered"):
            factory.connect((HOST, 1), 1, MEMBERS, "x", HOST, 0.5)


def test_a_meeting_point_needs_an_address_of_this_machine():
    with pytest.raises(ConfigError, match=r"203\.0\.113\.9"):
        GlooFactory().serve("203.0.113.9")
