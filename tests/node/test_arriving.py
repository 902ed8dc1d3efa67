"""The rows after the first ones, as the computing thread finds them."""

import threading

import pytest
import torch

from prism.control import codec, messages
from prism.errors import Cancelled, DeadlineExceeded
from prism.node.arriving import ArrivingRows
from prism.node.tasks import Tasks

LONG_S = 30.0


@pytest.fixture
def tasks():
    return Tasks("here", lambda message, frames: None)


def run_with_rest(tasks, request=3, rows=2):
    return tasks.add(
        messages.Run(
            request=request,
            model=0,
            plan="batch:2",
            length=1,
            inputs=None,
            timeout_s=LONG_S,
            rest_rows=rows,
        )
    )


def rest_of(request, rows):
    description, frames = codec.pack({"x": rows})
    return messages.Rest(request=request, inputs=description), frames


def test_rows_are_taken_once_they_are_there(tasks):
    rest = ArrivingRows(run_with_rest(tasks), LONG_S)
    assert (rest.rows, rest.arrived) == (2, False)
    rows = torch.arange(6).view(2, 3)
    tasks.add_rest(*rest_of(4, rows))  # another request's: nobody's here
    assert not rest.arrived
    threading.Timer(0.05, lambda: tasks.add_rest(*rest_of(3, rows))).start()
    assert torch.equal(rest.take()["x"], rows)
    assert rest.waited_s > 0


@pytest.mark.parametrize("give_up", [lambda tasks: tasks.cancel(3), lambda tasks: tasks.void_all()])
def test_a_request_that_is_given_up_ends_the_wait(tasks, give_up):
    rest = ArrivingRows(run_with_rest(tasks), LONG_S)
    threading.Timer(0.05, give_up, (tasks,)).start()
    with pytest.raises(Cancelled, match="request 3"):
        rest.take()


def test_rows_that_never_come_end_in_a_deadline(tasks):
    with pytest.raises(DeadlineExceeded, match="2 rows did not arrive within 0.01 s"):
        ArrivingRows(run_with_rest(tasks), 0.01).take()


def test_what_was_announced_and_given_up_is_forgotten(tasks):
    tasks.announce(3)
    tasks.cancel(3)
    assert run_with_rest(tasks).announced_s is None


def test_rows_that_nobody_took_are_let_go(tasks):
    task = run_with_rest(tasks)
    tasks.add_rest(*rest_of(3, torch.ones(2, 3)))
    assert ArrivingRows(task, LONG_S).arrived
    assert tasks.carry_out(task, lambda task: None)
    assert task.rest.empty()
