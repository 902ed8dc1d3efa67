import json
import math
from dataclasses import asdict, replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prism.errors import InputError, PlanError
from prism.plan import PRECISIONS, Objective, Plan, is_node_name
from prism.record import LinkState, RunRecord

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True).filter(is_node_name)
SECONDS = st.floats(0, 1e6)
PIECES = [
    *("local", "batch", "seq", "full", "L4", "C4", "lag1", "f16", "half", "int8", "shares=", "1/2"),
    *":::+@/-.2a",
]


@st.composite
def plans(draw):
    """Any valid plan."""
    precision = draw(st.sampled_from(PRECISIONS))
    strategy = draw(st.sampled_from(["local", "batch", "sequence"]))
    if strategy == "local":
        return Plan(nodes=tuple(draw(st.lists(NAMES, max_size=1))), precision=precision)
    named = st.lists(NAMES, min_size=2, max_size=6, unique=True).map(tuple)
    nodes = draw(st.one_of(st.integers(2, 40), named))
    counted = isinstance(nodes, int)
    size = nodes if counted else len(nodes)
    who = {"count": nodes} if counted else {"nodes": nodes}
    floor = 0.0 if strategy == "batch" else math.ulp(0.0)
    share = st.one_of(
        st.integers(1, 9).map(float), st.floats(floor, allow_infinity=False, allow_nan=False)
    )
    shares = st.lists(share, min_size=size, max_size=size).filter(any)
    shares = draw(st.one_of(st.just(()), shares.map(tuple)))
    plan = Plan(strategy, shares=shares, precision=precision, **who)
    if strategy == "batch":
        return plan
    means = draw(st.one_of(st.none(), st.integers(1, 999_999_999)))
    return replace(
        plan,
        means=means,
        grouping="segments" if means is None else draw(st.sampled_from(["segments", "clusters"])),
        lag=draw(st.sampled_from([0, 1])),
        wire=draw(st.sampled_from(["float32", "float16", "bfloat16"])),
    )


@given(plans())
@example(Plan("batch", count=1024))
def test_parse_reads_what_str_prints(plan):
    assert Plan.parse(str(plan)) == plan


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("local", Plan()),
        ("local@nano2", Plan(nodes=("nano2",))),
        ("batch:2", Plan("batch", count=2)),
        ("batch:a+b:shares=0/1", Plan("batch", ("a", "b"), shares=(0, 1))),
        ("seq:2:full", Plan("sequence", count=2)),
        ("seq:2:L10", Plan("sequence", count=2, means=10)),
        ("seq:2:C10", Plan("sequence", count=2, means=10, grouping="clusters")),
        ("seq:2:L10:lag1", Plan("sequence", count=2, means=10, lag=1)),
        (
            "seq:3:L10:lag1:f16",
            Plan("sequence", count=3, means=10, lag=1, wire="float16"),
        ),
        (
            "seq:2:full:bf16:shares=1/0.25",
            Plan("sequence", count=2, shares=(1.0, 0.25), wire="bfloat16"),
        ),
        ("local:int8", Plan(precision="int8")),
        ("local@nano2:half", Plan(nodes=("nano2",), precision="half")),
        ("batch:2:half:shares=1/3", Plan("batch", count=2, shares=(1, 3), precision="half")),
        (
            "seq:2:C10:lag1:f16:int8",
            Plan(
                "sequence",
                count=2,
                means=10,
                grouping="clusters",
                lag=1,
                wire="float16",
                precision="int8",
            ),
        ),
        (
            "batch:2:shares=0.3333333333333333/1",
            Plan("batch", count=2, shares=(1 / 3, 1)),
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
        "local:int4",
        "local:f16",
        "local:half:int8",
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
        "seq:2:C",
        "seq:2:C0",
        "seq:2:M4",
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
        ({"precision": "float64"}, "'float64'"),
        ({"nodes": ("a", "b")}, "one node"),
        ({"lag": 1}, "sequence plans only"),
        ({"shares": (1.0,)}, "batch and sequence"),
        ({"strategy": "sequence", "nodes": ("a", "b"), "means": 10**9}, "1000000000"),
        ({"strategy": "batch", "nodes": tuple(f"n{i}x" for i in range(1025))}, "1025 nodes"),
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
        ("local:half", False),
        ("batch:2:int8", False),
        ("seq:2:full:half", False),
    ],
)
def test_exact(text, exact):
    assert Plan.parse(text).exact is exact


@given(plans())
def test_shape_counts_the_nodes_and_keeps_the_rest(plan):
    shape = Plan.parse(plan.shape)
    assert shape.shape == plan.shape
    assert replace(shape, nodes=plan.nodes, count=plan.count) == plan
    assert shape.count == plan.size or plan.strategy == "local"


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("local", ("hub", "nano"), ("hub",)),
        ("local@nano", ("hub", "nano"), ("nano",)),
        ("batch:2:shares=1/3", ("hub", "nano", "pi"), ("hub", "nano")),
        ("seq:pi+hub:L4", ("hub", "nano", "pi"), ("pi", "hub")),
        ("seq:2:full", ("node1", "node2", "node0"), ("node1", "node2")),
        ("seq:node0+node1:full", ("node1", "node2", "node0"), ("node0", "node1")),
    ],
)
def test_a_counted_plan_takes_the_first_nodes_and_a_named_one_its_own(text, names, expected):
    plan = Plan.parse(text)
    assert plan.place(names) == expected
    assert plan.on(names).place(names) == expected


def test_counted_and_named_are_two_things():
    counted, named = Plan.parse("seq:2:full"), Plan.parse("seq:node0+node1:full")
    assert counted != named and counted.shape == named.shape == str(counted)
    assert str(named) == "seq:node0+node1:full"
    assert named.place(("node0", "node1")) == counted.place(("node0", "node1"))
    with pytest.raises(PlanError, match="names node0"):
        named.place(("node1", "node2"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seq:3:full", "needs 3 nodes, the cluster has 2"),
        ("local@pi", "names pi; the cluster has hub, nano"),
        ("batch:hub+pi", "names pi; the cluster has hub, nano"),
        ("local@node0", "names node0;"),
    ],
)
def test_nodes_that_the_cluster_lacks_are_refused(text, message):
    with pytest.raises(PlanError, match=message):
        Plan.parse(text).place(("hub", "nano"))


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
