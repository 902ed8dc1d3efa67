"""What a lab is made of, read from text and checked; no rights needed."""

import pytest
from bench.lab.options import one_core_each, read_cores, read_shares
from bench.lab.shape import Board, Link, boards_of, check_name, medium_is_shared, namespace_of
from hypothesis import given
from hypothesis import strategies as st

from prism.errors import ConfigError


def test_boards_have_names_and_addresses_in_order():
    boards = boards_of(3, cores=[[0], [1], [0, 1]], cpu=[0.4])
    assert [board.name for board in boards] == ["board1", "board2", "board3"]
    assert [board.address for board in boards] == ["10.78.0.1", "10.78.0.2", "10.78.0.3"]
    assert [board.cores for board in boards] == [(0,), (1,), (0, 1)]
    assert {board.cpu for board in boards} == {0.4}
    assert boards_of(2) == (Board(0), Board(1))
    assert [board.cpu for board in boards_of(2, cpu=[1.0, 0.5])] == [1.0, 0.5]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"nodes": 1}, "2 to 4"),
        ({"nodes": 5}, "2 to 4"),
        ({"nodes": 3, "cpu": [1.0, 0.5]}, "3 nodes need as many CPU shares, not 2"),
        ({"nodes": 2, "cores": [[0]]}, "2 nodes need as many sets of cores, not 1"),
        ({"nodes": 2, "cpu": [0.0]}, "0.01 to 64"),
    ],
)
def test_boards_that_cannot_be_are_refused(arguments, said):
    with pytest.raises(ConfigError, match=said):
        boards_of(**arguments)


@given(
    rate=st.integers(1, 10_000),
    delay=st.integers(0, 500),
    loss=st.integers(0, 99),
)
def test_a_link_is_read_part_by_part(rate, delay, loss):
    link = Link().changed(f"{rate}mbit", f"{delay}ms", f"{loss}%")
    assert link.rate_bps == rate * 1e6
    assert link.delay_s == pytest.approx(delay / 1e3)
    assert link.loss == pytest.approx(loss / 100)
    assert link.changed() == link
    assert link.reshaped("20mbit,5ms").loss == link.loss


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"rate": "fast"}, "not understood"),
        ({"rate": "3ms"}, "--rate 100mbit"),
        ({"rate": "100bit"}, "1kbit"),
        ({"delay": "100mbit"}, "--delay 3ms"),
        ({"delay": "11s"}, "10s"),
        ({"delay": ""}, "no delay"),
        ({"loss": "some"}, "0.1%"),
        ({"loss": "100%"}, "below 100%"),
    ],
)
def test_a_wrong_part_of_a_link_is_refused_with_an_example(parts, said):
    with pytest.raises(ConfigError, match=said):
        Link().changed(**parts)


@pytest.mark.parametrize("text", ["3ms", "none", "100mbit,3ms,shared", "100mbit,jitter=1ms"])
def test_a_link_over_which_a_contest_runs_has_a_rate_and_a_delay(text):
    with pytest.raises(ConfigError, match="rate and a delay"):
        Link().reshaped(text)


def test_a_link_says_what_it_is():
    link = Link(20e6, 5e-3, loss=0.001, shared=True)
    assert str(link) == "20mbit,5ms,loss=0.1%,shared"
    assert str(Link()) == "100mbit,3ms,switched"
    assert [medium_is_shared(text) for text in ("shared", "switched")] == [True, False]
    with pytest.raises(ConfigError, match="switched, shared"):
        medium_is_shared("wifi")


def test_names_fit_namespaces_and_folders():
    assert namespace_of(check_name("a-1"), "board2") == "prism-a-1-board2"
    for name in ("", "-a", "A", "../a", "a" * 40):
        with pytest.raises(ConfigError, match="cannot name a lab"):
            check_name(name)


def test_shares_and_cores_are_read_from_text():
    assert read_shares("") == []
    assert read_shares("1,0.4") == [1.0, 0.4]
    assert read_cores("0/0") == [[0], [0]]
    assert one_core_each(4, [2, 5]) == [[2], [5], [2], [5]]
    for read, text in ((read_shares, "half"), (read_cores, "0-1"), (read_cores, "99999")):
        with pytest.raises(ConfigError, match=text):
            read(text)
