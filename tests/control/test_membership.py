from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from prism.control.membership import (
    LOST_AFTER_S,
    Admit,
    Joined,
    Left,
    Lose,
    Refuse,
    Seen,
    State,
    Tick,
    step,
)

NAMES = st.sampled_from(("a", "b", "c"))


@st.composite
def histories(draw):
    """Events in the order of time, as the head feeds them."""
    now, events = 0.0, []
    for _ in range(draw(st.integers(0, 25))):
        now += draw(st.sampled_from((0.0, 0.1, 1.0, LOST_AFTER_S, 2 * LOST_AFTER_S)))
        events.append(
            draw(
                st.one_of(
                    NAMES.map(lambda name, now=now: Joined(name, now)),
                    NAMES.map(lambda name, now=now: Seen(name, now)),
                    NAMES.map(lambda name: Left(name, "told so")),
                    st.just(Tick(now)),
                )
            )
        )
    return events


def play(events, state=None):
    state = state or State()
    for event in events:
        after, actions = step(state, event)
        yield state, event, after, actions
        state = after


def last(events):
    return [State(), *(after for _, _, after, _ in play(events))][-1]


@given(histories())
def test_the_epoch_grows_exactly_when_the_alive_set_changes(events):
    for before, _, after, actions in play(events):
        changes = [action for action in actions if isinstance(action, (Admit, Lose))]
        assert after.epoch - before.epoch == len(changes)
        assert (after.epoch != before.epoch) == (set(after.alive) != set(before.alive))


@given(histories())
def test_names_are_unique_and_actions_tell_the_changes(events):
    for before, _, after, actions in play(events):
        assert len(set(after.alive)) == len(after.alive)
        admitted = {action.name for action in actions if isinstance(action, Admit)}
        lost = {action.name for action in actions if isinstance(action, Lose)}
        assert set(after.alive) == (set(before.alive) | admitted) - lost
        assert admitted.isdisjoint(before.alive) and lost <= set(before.alive)


@given(histories())
def test_a_tick_loses_the_silent_and_nobody_else(events):
    for before, event, after, _ in play(events):
        if isinstance(event, Tick):
            silent = {
                name
                for name in before.alive
                if event.at_s - before.members[name].seen_s > LOST_AFTER_S
            }
            assert set(after.alive) == set(before.alive) - silent


@given(histories(), NAMES)
def test_whoever_is_not_in_is_admitted_whatever_happened_before(events, name):
    state = last([*events, Left(name, "killed")])
    after, actions = step(state, Joined(name, 1e6))
    assert actions == (Admit(name),)
    assert name in after.alive and after.members[name].since == after.epoch


@given(histories())
def test_since_is_the_epoch_of_the_latest_admission(events):
    since = {}
    for _, _, after, actions in play(events):
        for action in actions:
            if isinstance(action, Admit):
                since[action.name] = after.epoch
        assert all(after.members[name].since == since[name] for name in after.alive)


@given(histories())
def test_the_past_is_not_changed(events):
    for before, event, _, _ in play(events):
        kept = replace(before, members=dict(before.members))
        step(before, event)
        assert dict(before.members) == kept.members


def test_a_taken_name_is_refused_once_its_owner_is_heard():
    state = last([Joined("a", 0.0), Joined("a", 1.0), Joined("a", 1.5)])
    _, actions = step(state, Joined("a", 1.6))
    assert actions == ()  # nothing was heard of the owner: it may be dead
    state, _ = step(state, Seen("a", 1.7))
    state, (refused,) = step(state, Joined("a", 2.0))
    assert isinstance(refused, Refuse) and "a" in refused.reason
    assert state.alive == ("a",)


def test_a_restarted_node_gets_its_name_back_when_the_dead_one_is_missed():
    state = last([Joined("a", 0.0), Joined("a", 1.0), Tick(3.0), Joined("a", 3.0)])
    state, actions = step(state, Tick(3.5))
    assert isinstance(actions[0], Lose)
    _, actions = step(state, Joined("a", 3.6))
    assert actions == (Admit("a"),)
