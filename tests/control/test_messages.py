import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.control.wild import WILD

from prism.control import messages as control
from prism.control.admission import mismatch
from prism.errors import ClusterError

WORDS = st.text(max_size=8)
SMALL = st.integers(0, 2**31)
FACTS = st.builds(
    control.NodeFacts,
    hardware=WORDS, device=WORDS, threads=SMALL, cores=st.tuples(SMALL),
    prism=WORDS, torch=WORDS, transformers=WORDS,
)  # fmt: skip
HELLOS = st.builds(
    control.Hello,
    protocol=SMALL, name=WORDS, instance=WORDS, address=WORDS, pid=SMALL, facts=FACTS,
)  # fmt: skip
GROUPS = st.builds(
    control.Group, epoch=SMALL, members=st.lists(WORDS, max_size=3).map(tuple), transport=WORDS,
    meeting_port=SMALL,
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | SMALL | WORDS, lambda inner: st.lists(inner, max_size=2)
)
SECONDS = st.floats(0, 1e9)
MESSAGES = st.one_of(
    HELLOS,
    st.builds(control.Welcome, coordinator=WORDS, since=SMALL),
    st.builds(control.Refused, reason=WORDS),
    st.builds(control.Heartbeat, name=WORDS, instance=WORDS),
    st.just(control.Unknown()),
    st.just(control.Ping()),
    st.builds(control.Load, request=SMALL, model=SMALL, source=WORDS, dtype=WORDS),
    st.builds(control.Loaded, request=SMALL, fingerprint=WORDS),
    st.builds(control.FormGroup, request=SMALL, group=GROUPS),
    st.builds(
        control.Run, request=SMALL, model=SMALL, plan=WORDS, length=SMALL, inputs=JSON,
        epoch=st.none() | SMALL, timeout_s=SECONDS,
    ),
    st.builds(control.Announce, request=SMALL),
    st.builds(control.Done, request=SMALL, output=JSON),
    st.builds(control.Failed, request=SMALL, error=WORDS, message=WORDS),
    st.builds(control.Unload, model=SMALL),
    st.builds(control.Cancel, request=SMALL),
    st.builds(control.CloseGroups, epochs=st.lists(SMALL, max_size=3).map(tuple)),
    st.builds(control.Probe, request=SMALL),
    st.just(control.Stop()),
)  # fmt: skip


@given(MESSAGES, st.lists(st.binary(max_size=5), max_size=3))
def test_messages_arrive_as_they_were_sent(message, frames):
    assert control.decode(control.encode(message, frames)) == (message, frames)


@pytest.mark.parametrize(
    ("frames", "named"),
    [
        ([], "no frames"),
        ([b""], "JSON"),
        ([b"\xff\xfe"], "JSON"),
        ([b"{"], "JSON"),
        ([b"[]"], "object"),
        ([b"{}"], "kind"),
        ([b'{"kind": "explode"}'], "explode"),
        ([b'{"kind": "cancel"}'], "request"),
        ([b'{"kind": "cancel", "request": "soon"}'], "request"),
        ([b'{"kind": "stop", "really": true}'], "really"),
    ],
)
def test_what_is_no_message_is_an_error_that_says_why(frames, named):
    with pytest.raises(ClusterError, match=named):
        control.decode(frames)


@given(WILD)
def test_any_bytes_are_a_message_or_an_error_of_one_short_line(raw):
    assert isinstance(control.protocol_of([raw]), int | None)
    try:
        control.decode([raw])
    except ClusterError as error:
        text = str(error)
        assert len(text) < 1000 and text.isascii() and text.isprintable()


@pytest.mark.parametrize("depth", [150, 100_000])
def test_deep_nesting_is_an_error(depth):
    deep = b"[" * depth + b"]" * depth
    for raw in (deep, b'{"kind": "hello", "protocol": %b}' % deep):
        assert control.protocol_of([raw]) is None
        with pytest.raises(ClusterError, match="not a prism message"):
            control.decode([raw])


def test_the_protocol_of_a_hello_from_the_future_can_be_read():
    raw = json.dumps({"kind": "hello", "protocol": 99, "shiny": True}).encode()
    with pytest.raises(ClusterError):
        control.decode([raw])
    assert control.protocol_of([raw]) == 99


@pytest.mark.parametrize("what", ["prism", "torch", "transformers"])
def test_another_version_is_refused_with_both_named(what):
    facts = control.NodeFacts(
        hardware="h", device="cpu", threads=1, prism="1.0", torch="2.0+cpu", transformers="5.0"
    )
    first = control.Hello(
        protocol=control.PROTOCOL, name="a", instance="1", address="x", pid=1, facts=facts
    )
    other = first.model_copy(update={"name": "b", "facts": facts.model_copy(update={what: "9.9"})})
    reason = mismatch(other, [first])
    assert reason is not None
    assert all(word in reason for word in ("a", "b", what, "9.9", getattr(facts, what)))
    assert mismatch(other, []) is None
    same = facts.model_copy(update={"torch": "2.0+cu130"})
    assert mismatch(first.model_copy(update={"facts": same}), [first]) is None


def test_another_protocol_is_refused_with_both_named():
    facts = control.NodeFacts(
        hardware="h", device="cpu", threads=1, prism="1", torch="2", transformers="5"
    )
    first = control.Hello(
        protocol=control.PROTOCOL, name="a", instance="1", address="x", pid=1, facts=facts
    )
    old = first.model_copy(update={"protocol": 77})
    assert "77" in mismatch(old, []) and str(control.PROTOCOL) in mismatch(old, [])
