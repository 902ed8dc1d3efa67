"""What is known of the accuracy of plans: the table beside a model, and what a count is worth."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.errors import ModelError
from prism.fidelity.accuracy import FILE_NAME, accuracy_of, wilson_interval
from prism.perfmap import Accuracy

TABLE = {
    "model_hash": "abc",
    "dataset": "digits",
    "plans": {"seq:a+b:L10:f16": {"accuracy": 0.96, "drop": 0.02, "count": 400}},
}


def test_a_table_belongs_to_the_weights_it_was_measured_on(tmp_path):
    (tmp_path / FILE_NAME).write_text(json.dumps(TABLE))
    expected = Accuracy("seq:2:L10:f16", 0.96, 0.02, 400, "digits")
    assert accuracy_of(str(tmp_path), "abc") == (expected,)
    assert accuracy_of(str(tmp_path), "other weights") == ()
    assert accuracy_of(str(tmp_path / "absent"), "abc") == ()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", json.dumps({**TABLE, "plans": {"seq:2:L10:f16": {}}})]
)
def test_a_table_that_cannot_be_read_is_named(tmp_path, text):
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ModelError, match=f"{FILE_NAME} is no accuracy table .*measure it again"):
        accuracy_of(str(tmp_path), "abc")


def test_the_interval_is_the_published_one():
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(29, 29) == pytest.approx((0.8830, 1.0), abs=5e-5)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_share_and_mirrors(hits):
    correct, count = hits
    low, high = wilson_interval(correct, count)
    assert 0 <= low <= correct / count + 1e-12 and correct / count - 1e-12 <= high <= 1
    assert wilson_interval(count - correct, count) == pytest.approx((1 - high, 1 - low))
