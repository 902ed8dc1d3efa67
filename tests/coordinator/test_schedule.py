from types import MappingProxyType

from hypothesis import given
from hypothesis import strategies as st

from prism.coordinator.schedule import Arrived, Left, Schedule, Start, step

NODES = ("a", "b", "c")


def play(*events):
    """Return the state after some events, and the numbers that started, in order."""
    state, started = Schedule(), []
    for event in events:
        state, actions = step(state, event)
        started += [action.number for action in actions]
    return state, started


def wants(number, *nodes):
    return Arrived(number, frozenset(nodes))


def test_requests_for_different_nodes_run_at_once():
    state, started = play(wants(1, "a"), wants(2, "b"), wants(3, "c"))
    assert started == [1, 2, 3]
    assert state.occupied == frozenset(NODES) and not state.waiting


def test_one_node_one_request_in_the_order_of_arrival():
    _, started = play(wants(1, "a"), wants(2, "a"), wants(3, "a"), Left(1), Left(2))
    assert started == [1, 2, 3]


def test_a_request_for_many_nodes_is_not_overtaken_by_those_for_few():
    events = [wants(1, "a"), wants(2, "a", "b"), wants(3, "b"), wants(4, "c")]
    _, started = play(*events)
    assert started == [1, 4]  # 3 would keep 2 waiting
    _, started = play(*events, Left(1))
    assert started == [1, 4, 2]
    _, started = play(*events, Left(1), Left(2))
    assert started == [1, 4, 2, 3]


def test_one_that_gives_up_makes_room():
    _, started = play(wants(1, "a"), wants(2, "a", "b"), wants(3, "b"), Left(2))
    assert started == [1, 3]


def test_one_that_comes_back_goes_first():
    _, started = play(wants(1, "a"), wants(2, "b"), wants(3, "b"), Left(1), wants(1, "b"), Left(2))
    assert started == [1, 2, 1]


def test_leaving_twice_changes_nothing():
    state, _ = play(wants(1, "a"), Left(1))
    assert step(state, Left(1)) == (state, ())


@st.composite
def histories(draw):
    """Requests that arrive and, once started, leave, in any order."""
    events, state = [], Schedule()
    for number in range(1, draw(st.integers(1, 12))):
        nodes = draw(st.frozensets(st.sampled_from(NODES), min_size=1))
        events.append(Arrived(number, nodes))
        state, _ = step(state, events[-1])
        while state.running and draw(st.booleans()):
            events.append(Left(draw(st.sampled_from(sorted(state.running)))))
            state, _ = step(state, events[-1])
    return events


@given(histories())
def test_no_node_has_two_requests_and_nothing_starves(events):
    state, held, order = Schedule(), {}, {node: [] for node in NODES}
    wanted = {event.number: event.nodes for event in events if isinstance(event, Arrived)}

    def apply(event):
        nonlocal state
        state, actions = step(state, event)
        if isinstance(event, Left):
            held.pop(event.number)
        for action in actions:
            assert isinstance(action, Start)
            assert not any(held[other] & wanted[action.number] for other in held)
            held[action.number] = wanted[action.number]
            for node in wanted[action.number]:
                order[node].append(action.number)
        assert dict(state.running) == held
        assert isinstance(state.running, MappingProxyType)

    for event in events:
        apply(event)
    while held:
        apply(Left(min(held)))
    assert not state.waiting
    for node, numbers in order.items():
        assert numbers == sorted(n for n in wanted if node in wanted[n])
