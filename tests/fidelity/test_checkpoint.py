"""A checkpoint is whole at any moment and goes on with the arguments it was made with only."""

import os
import signal
import threading

import pytest
import torch

from prism.errors import ConfigError
from prism.fidelity.checkpoint import FOLDER, Checkpoint, interrupts_held_back

ARGUMENTS = {"--seed": "0", "--steps": "10"}
STATE = {"model": {"weight": torch.arange(4.0)}, "steps_done": 3}


def checkpoint(tmp_path, arguments=None, every_s=60.0):
    return Checkpoint(tmp_path / "out" / FOLDER, arguments or ARGUMENTS, every_s)


def test_a_state_is_found_again(tmp_path):
    first = checkpoint(tmp_path)
    assert first.open(discard=False) is None
    first.write(STATE)
    found = checkpoint(tmp_path).open(discard=False)
    assert found["steps_done"] == 3
    assert torch.equal(found["model"]["weight"], STATE["model"]["weight"])
    assert [path.name for path in first.folder.iterdir()] == ["state.pt"]
    first.remove()
    assert not first.folder.exists()


def test_other_arguments_are_refused_by_name_until_forced(tmp_path):
    first = checkpoint(tmp_path)
    first.open(discard=False)
    first.write(STATE)
    other = checkpoint(tmp_path, {**ARGUMENTS, "--seed": "1"})
    with pytest.raises(ConfigError, match=r"--seed 0, not 1; .*--force to start anew"):
        other.open(discard=False)
    assert checkpoint(tmp_path).open(discard=True)["steps_done"] == 3
    assert other.open(discard=True) is None
    assert list(other.folder.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_a_state_that_cannot_be_read_is_named(tmp_path, content):
    first = checkpoint(tmp_path)
    first.open(discard=False)
    (first.folder / "state.pt").write_bytes(content)
    with pytest.raises(ConfigError, match=r"state.pt cannot be read .*--force"):
        first.open(discard=False)
    assert first.open(discard=True) is None


def test_a_full_disk_leaves_the_state_before(tmp_path):
    first = checkpoint(tmp_path)
    first.open(discard=False)
    first.write(STATE)
    (first.folder / "state.pt.tmp").symlink_to("/dev/full")
    with pytest.raises(ConfigError, match="the one before is unchanged"):
        first.write({**STATE, "steps_done": 9})
    assert checkpoint(tmp_path).open(discard=False)["steps_done"] == 3
    assert [path.name for path in first.folder.iterdir()] == ["state.pt"]


def test_a_place_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be written to"):
        checkpoint(tmp_path).open(discard=False)


def test_writing_takes_a_small_part_of_the_time(tmp_path):
    soon = checkpoint(tmp_path, every_s=0.0)
    soon.open(discard=False)
    assert soon.due
    soon.write({"model": {"weight": torch.zeros(2_000_000)}, "steps_done": 1})
    assert not soon.due
    assert not checkpoint(tmp_path).due


def test_ctrl_c_waits_for_the_end_of_a_block():
    done = False
    with pytest.raises(KeyboardInterrupt), interrupts_held_back():
        os.kill(os.getpid(), signal.SIGINT)
        done = True
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_threads_have_no_interrupts_to_hold_back():
    entered = []

    def work():
        with interrupts_held_back():
            entered.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered == [signal.default_int_handler]
