"""Forms with a file, read from bytes."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.server.errors import BadRequest
from prism.server.forms import is_form, read_form

NAMES = st.sampled_from(["model", "top_k", "plan", "text"])


def encoded(texts, content):
    """Return the Content-Type and the body that a client makes of a form."""
    files = {name: (None, text.encode()) for name, text in texts.items()}
    request = httpx.Request("POST", "http://host", files={**files, "file": ("a.png", content)})
    return request.headers["content-type"], request.read()


@given(st.dictionaries(NAMES, st.text(st.characters(codec="utf-8"))), st.binary())
def test_a_form_is_read_as_it_was_sent(texts, content):
    form = read_form(*encoded(texts, content))
    assert form.texts == texts and form.file == content


@given(st.binary(max_size=40), st.data())
def test_a_form_that_is_cut_off_is_refused(content, data):
    kind, body = encoded({"model": "digits"}, content)
    length = data.draw(st.integers(0, len(body) - 5))  # two dashes and a line's end close it
    with pytest.raises(BadRequest, match="form"):
        read_form(kind, body[:length])


def test_a_form_with_more_parts_than_any_route_has_fields_is_refused():
    kind, body = encoded({f"field{number}": "" for number in range(40)}, b"")
    with pytest.raises(BadRequest, match="more than 32 fields"):
        read_form(kind, body)


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("multipart/form-data; boundary=a", True),
        ("Multipart/Form-Data", True),
        ("application/json", False),
        ("", False),
    ],
)
def test_a_form_is_told_by_its_content_type(kind, answer):
    assert is_form(kind) is answer
