import json
import math
from dataclasses import asdict, replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prism.core import LinkState, Objective, Plan, RunRecord, default_node_name, is_node_name
from prism.errors import InputError, PlanError

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True).filter(is_node_name)
SECONDS = st.floats(0, 1e6)
PIECES = ["local", "batch", "seq", "full", "L4", "lag1", "f16", "shares=", "1/2"] + list(
    ":::+@/-.2a"
)


def anonymous(count):
    return tuple(default_node_name(i) for i in range(count))


@st.composite
def plans(draw):
    """Any valid plan."""
    strategy = draw(st.sampled_from(["local", "batch", "sequence"]))
    if strategy == "local":
        return Plan(nodes=tuple(draw(st.lists(NAMES, max_size=1))))
    named = st.lists(NAMES, min_size=2, max_size=6, unique=True).map(tuple)
    nodes = draw(st.one_of(st.integers(2, 40).map(anonymous), named))
    floor = 0.0 if strategy == "batch" else math.ulp(0.0)
    share = st.one_of(
        st.integers(1, 9).map(float), st.floats(floor, allow_infinity=False, allow_nan=False)
    )
    shares = st.lists(share, min_size=len(nodes), max_size=len(nodes)).filter(any)
    plan = Plan(strategy, nodes, draw(st.one_of(st.just(()), shares.map(tuple))))
    if strategy == "batch":
        return plan
    return replace(
        plan,
        segments=draw(st.one_of(st.none(), st.integers(1, 999_999_999))),
        lag=draw(st.sampled_from([0, 1])),
        wire=draw(st.sampled_from(["float32", "float16", "bfloat16"])),
    )


@given(plans())
@example(Plan("batch", anonymous(1024)))
def test_parse_reads_what_str_prints(plan):
    assert Plan.parse(str(plan)) == plan


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("local", Plan()),
        ("local@nano2", Plan(nodes=("nano2",))),
        ("batch:2", Plan("batch", ("node0", "node1"))),
        ("batch:a+b:shares=0/1", Plan("batch", ("a", "b"), (0, 1))),
        ("seq:2:full", Plan("sequence", ("node0", "node1"))),
        ("seq:2:L10", Plan("sequence", ("node0", "node1"), segments=10)),
        ("seq:2:L10:lag1", Plan("sequence", ("node0", "node1"), segments=10, lag=1)),
        (
            "seq:3:L10:lag1:f16",
            Plan("sequence", anonymous(3), segments=10, lag=1, wire="float16"),
        ),
        (
            "seq:2:full:bf16:shares=1/0.25",
            Plan("sequence", anonymous(2), (1.0, 0.25), wire="bfloat16"),
        ),
        (
            "batch:2:shares=0.3333333333333333/1",
            Plan("batch", anonymous(2), (1 / 3, 1)),
        ),
    ],
)
def test_text_form(text, plan):
    assert str(plan) == text
    assert Plan.parse(text) == plan


@pytest.mark.parametrize(
    "text",
    [
        "",
        "global",
        "local:2",
        "local@",
        "local@a b",
        "local@7",
        "batch",
        "batch:",
        "batch:0",
        "batch:1",
        "batch:1025",
        "batch:" + "9" * 5000,
        "batch:a",
        "batch:a+a",
        "batch:a+",
        "batch:2:L4",
        "batch:2:lag1",
        "batch:2:f16",
        "batch:2:shares=0/0",
        "batch:2:shares=1",
        "batch:2:shares=1/-1",
        "batch:2:shares=nan/1",
        "batch:2:shares=inf/1",
        "batch:2:shares=1/x",
        "batch:2:shares=1/1:shares=1/2",
        "seq:2",
        "seq:2:L",
        "seq:2:L0",
        "seq:2:L-3",
        "seq:2:L1.5",
        "seq:2:L1000000000",
        "seq:2:half",
        "seq:2:full:lag2",
        "seq:2:full:f8",
        "seq:2:full:f16:bf16",
        "seq:2:full:shares=0/1",
        "seq:2:full:",
        "SEQ:2:full",
    ],
)
def test_malformed_text_is_quoted(text):
    with pytest.raises(PlanError) as caught:
        Plan.parse(text)
    assert repr(text) in str(caught.value)


@given(st.lists(st.sampled_from(PIECES)).map("".join))
def test_any_text_is_a_plan_or_a_plan_error(text):
    try:
        plan = Plan.parse(text)
    except PlanError as error:
        assert repr(text) in str(error)
    else:
        assert Plan.parse(str(plan)) == plan


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strategy": "pipeline"}, "'pipeline'"),
        ({"wire": "int8"}, "'int8'"),
        ({"nodes": ("a", "b")}, "one node"),
        ({"lag": 1}, "sequence plans only"),
        ({"shares": (1.0,)}, "batch and sequence"),
        ({"strategy": "sequence", "nodes": ("a", "b"), "segments": 10**9}, "1000000000"),
        ({"strategy": "batch", "nodes": anonymous(1025)}, "1025 nodes"),
    ],
)
def test_an_invalid_plan_cannot_be_made(values, message):
    with pytest.raises(PlanError, match=message):
        Plan(**values)


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("local", True),
        ("local@a", True),
        ("batch:3", True),
        ("batch:2:shares=0/1", True),
        ("seq:2:full", True),
        ("seq:2:full:shares=1/2", True),
        ("seq:2:L8", False),
        ("seq:2:full:lag1", False),
        ("seq:2:full:f16", False),
        ("seq:2:full:bf16", False),
    ],
)
def test_exact(text, exact):
    assert Plan.parse(text).exact is exact


@given(plans())
def test_shape_counts_the_nodes_and_keeps_the_rest(plan):
    shape = Plan.parse(plan.shape)
    assert shape.shape == plan.shape
    assert replace(shape, nodes=plan.nodes) == plan
    assert shape.anonymous or plan.strategy == "local"


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("local", ("hub", "nano"), "local@hub"),
        ("local@nano", ("hub", "nano"), "local@nano"),
        ("batch:2:shares=1/3", ("hub", "nano", "pi"), "batch:hub+nano:shares=1/3"),
        ("seq:pi+hub:L4", ("hub", "nano", "pi"), "seq:pi+hub:L4"),
        ("seq:2:full", ("node1", "node2", "node0"), "seq:node1+node2:full"),
    ],
)
def test_on_draws_the_nodes_from_the_cluster(text, names, expected):
    plan = Plan.parse(text).on(names)
    assert str(plan) == expected
    assert plan.on(names) == plan


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seq:3:full", "needs 3 nodes, the cluster has 2"),
        ("local@pi", "names pi; the cluster has hub, nano"),
        ("batch:hub+pi", "names pi; the cluster has hub, nano"),
        ("local@node0", "names node0;"),
    ],
)
def test_on_refuses_nodes_that_the_cluster_lacks(text, message):
    with pytest.raises(PlanError, match=message):
        Plan.parse(text).on(("hub", "nano"))


def test_size():
    assert [Plan.parse(text).size for text in ("local", "local@a", "batch:a+b", "seq:5:L1")] == [
        1,
        1,
        2,
        5,
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"metric": "speed"}, "'speed'"),
        ({"max_accuracy_drop": -0.1}, "-0.1"),
        ({"max_accuracy_drop": 2.0}, "2.0"),
        ({"max_accuracy_drop": math.nan}, "nan"),
    ],
)
def test_objective_refuses(values, message):
    with pytest.raises(InputError, match=message):
        Objective(**values)


def test_objective_allows_only_exact_plans_by_default():
    assert Objective() == Objective("latency", 0.0)


@pytest.mark.parametrize(
    ("bandwidth_bps", "latency_s"),
    [(0.0, 0.0), (-1.0, 0.0), (math.inf, 0.0), (math.nan, 0.0), (1e6, -0.1), (1e6, math.inf)],
)
def test_link_state_refuses(bandwidth_bps, latency_s):
    wrong = latency_s if bandwidth_bps == 1e6 else bandwidth_bps
    with pytest.raises(InputError, match=str(wrong)):
        LinkState(bandwidth_bps, latency_s)


RECORDS = st.builds(
    RunRecord,
    node=NAMES,
    plan=plans(),
    batch=st.integers(1, 64),
    length=st.integers(1, 4096),
    total_s=SECONDS,
    compute_s=SECONDS,
    staging_s=SECONDS,
    comm_s=SECONDS,
    input_s=SECONDS,
    output_s=SECONDS,
    bytes_sent=st.integers(0, 2**50),
    messages=st.integers(0, 10**6),
    energy_j=st.one_of(st.none(), SECONDS),
    energy_scope=st.one_of(st.none(), st.text()),
    energy_quality=st.sampled_from([None, "measured", "estimated"]),
    outcome=st.sampled_from(["ok", "recovered", "failed"]),
)


@given(RECORDS)
def test_a_record_survives_json(record):
    assert RunRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_a_record_from_a_newer_writer_is_read():
    record = RunRecord("hub", Plan.parse("seq:2:L4"), batch=1, length=197, total_s=0.1)
    written = record.to_dict()
    assert written["plan"] == "seq:2:L4"
    assert written.keys() == asdict(record).keys()
    assert RunRecord.from_dict({**written, "added_later": 1}) == record
