"""The forms of an output: what is one, what is none, and that its text says it all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.errors import RequestError
from prism.output_form import FULL, MODES, POOLER, OutputForm

modes = st.lists(st.sampled_from(MODES), unique=True, max_size=3).map(tuple)
forms = st.one_of(
    st.sampled_from([OutputForm("full"), OutputForm("logits")]),
    st.integers(1, 10**8).map(lambda k: OutputForm("top_k", k=k)),
    st.builds(
        OutputForm, st.just("pooled"), modes=modes | st.just((POOLER,)), normalise=st.booleans()
    ),
)


@given(forms)
def test_a_form_is_read_as_it_is_written(form):
    assert OutputForm.parse(str(form)) == form


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("full", FULL),
        ("top_k", OutputForm("top_k", k=5)),
        ("top_k:10", OutputForm("top_k", k=10)),
        ("pooled", OutputForm("pooled")),
        ("pooled:normalise", OutputForm("pooled", normalise=True)),
        ("pooled:cls+mean", OutputForm("pooled", modes=("cls", "mean"))),
        ("pooled:pooler:normalise", OutputForm("pooled", modes=("pooler",), normalise=True)),
    ],
)
def test_what_the_forms_mean(text, form):
    assert OutputForm.parse(text) == form


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("embedding", "unknown output 'embedding'; use full, logits, top_k, top_k:10, pooled"),
        ("", "unknown output ''"),
        ("top_k:", "unknown output 'top_k:'"),
        ("top_k:-1", "unknown output 'top_k:-1'"),
        ("top_k:0", "at least 1, not 0"),
        ("top_k:9999999999999", "unknown output"),
        ("logits:5", "unknown output 'logits:5'"),
        ("pooled:median", "'median' is no way to pool"),
        ("pooled:mean+mean", "'mean\\+mean' is no way to pool"),
        ("pooled:mean+pooler", "'mean\\+pooler' is no way to pool"),
        ("pooled:normalise:mean", "unknown output"),
        ("pooled:mean:max", "unknown output 'pooled:mean:max'"),
    ],
)
def test_what_is_no_form_is_refused_with_what_is_possible(text, sentence):
    with pytest.raises(RequestError, match=sentence):
        OutputForm.parse(text)


def test_fields_of_another_kind_are_refused():
    with pytest.raises(RequestError, match="belong to pooled, not to logits"):
        OutputForm("logits", normalise=True)
