"""What somebody who holds the secret could send instead of a message."""

import json

from hypothesis import strategies as st

_KINDS = st.sampled_from(
    ("hello", "heartbeat", "run", "done", "failed", "close_groups", "probe", "stop", "nonsense", 7)
)
_FIELDS = st.sampled_from(
    ("protocol", "name", "instance", "facts", "request", "inputs", "epochs", "record", "model")
)
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(("x" * 100_000, "\x1b[2J\n\r\0", "\u2028"))
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def _deep(depth, brackets):
    left, right = brackets
    return left * depth + b"1" + right * depth


_NESTED = st.builds(
    _deep, st.integers(1, 20_000), st.sampled_from(((b"[", b"]"), (b'{"a":', b"}")))
)
_OBJECTS = st.builds(
    lambda kind, values: json.dumps({"kind": kind, **values}).encode(),
    _KINDS,
    st.dictionaries(_FIELDS, _VALUES, max_size=4),
)
_DEEP_FIELDS = st.builds(
    lambda kind, name, deep: b'{"kind": "%b", "%b": %b}' % (kind.encode(), name.encode(), deep),
    _KINDS.map(str),
    _FIELDS,
    _NESTED,
)

WILD = st.one_of(
    st.binary(),
    _NESTED,
    _OBJECTS,
    _DEEP_FIELDS,
    _OBJECTS.map(lambda raw: raw[: len(raw) // 2]),
    st.sampled_from((b"[" * 100_000, b"9" * 100_000, b'"' + b"\\u0000" * 100_000 + b'"')),
)
