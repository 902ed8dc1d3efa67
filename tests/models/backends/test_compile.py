"""Compiled blocks: the model's own answers, hooks in their place, nothing compiled in a request."""

import threading

import pytest
import torch
from tests.families import BY_NAME
from tests.models.backends.prepared import prepared

from prism.errors import Cancelled
from prism.models.backends.selection import TOLERANCE, difference
from prism.models.instrument import Instrumented
from prism.models.load import adopt
from prism.models.virtual import virtual
from prism.plan import Plan

# Compiling takes a minute or more per family, so that the suite tries one.
NAMES = ("ViTForImageClassification",)
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module", params=NAMES)
def compiled(request):
    case = BY_NAME[request.param]
    loaded = adopt(case.model())
    return case, loaded, prepared("compile", loaded)


def frames():
    """Return how many pieces of code have been compiled so far."""
    return torch._dynamo.utils.counters["frames"]["ok"]


def test_whole_batches_and_parts_equal_eager_without_compiling_again(compiled):
    case, loaded, call = compiled
    before = frames()
    for batch, padding in ((1, 0), (3, 0), (2, 4)):
        inputs = case.inputs(batch=batch, padding=padding)
        mask = inputs.get("attention_mask")
        for plan in ("local", "seq:2:L3" if case.means else "seq:2:full", "seq:3:full"):
            with torch.inference_mode(), virtual(loaded.model, Plan.parse(plan), mask):
                found, expected = call(**inputs), loaded.model(**inputs)
            assert difference(found, expected, mask) <= TOLERANCE["float32"]
    assert frames() == before


def test_outside_its_calls_the_model_is_as_it_was(compiled):
    case, loaded, call = compiled
    inputs = case.inputs()
    with torch.inference_mode():
        call(**inputs)
        untouched = adopt(case.model()).model(**inputs)
        assert torch.equal(loaded.model(**inputs).logits, untouched.logits)
    assert not any("forward" in module.__dict__ for module in loaded.model.modules())


def test_hooks_see_every_block_and_can_end_a_call(compiled):
    case, loaded, call = compiled
    instrumented = Instrumented(loaded.model, loaded.info.family)
    asked = []

    def given_up():
        asked.append(None)
        return len(asked) == 2

    try:
        with (
            torch.inference_mode(),
            instrumented.running(None, given_up),
            pytest.raises(Cancelled, match="before block 1"),
        ):
            call(**case.inputs())
    finally:
        instrumented.remove()


def test_another_thread_runs_what_this_one_compiled(compiled):
    case, loaded, call = compiled
    inputs, found = case.inputs(), []
    before = frames()

    def run():
        with torch.inference_mode():
            found.append(call(**inputs))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    with torch.inference_mode():
        assert difference(found[0], loaded.model(**inputs)) <= TOLERANCE["float32"]
    assert frames() == before
