import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tests.machines import alone, close, pixels, tiny_vit
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import prism
from prism.errors import ConfigError, ModelError, PlanError, RequestError

PLANS = [
    "local",
    "local@node2",
    "batch:2",
    "batch:3",
    "batch:3:shares=1/0/3",
    "batch:2:shares=0/1",
    "batch:node2+node0",
    "seq:2:full",
    "seq:3:full",
    "seq:node2+node0:full",
    "seq:3:full:shares=1/2/3",
    "seq:3:L99:f16",
]


@pytest.fixture(scope="module")
def gpt2(cluster):
    torch.manual_seed(1)
    config = GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=50, n_positions=64)
    model = GPT2LMHeadModel(config).eval()
    return model, cluster.load(model)


@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_gives_the_models_own_answer(model, vit, plan):
    x = pixels(5)
    output = model(plan=plan, pixel_values=x)
    expected = alone(vit, pixel_values=x)
    assert type(output) is type(expected)
    tolerance = 1e-2 if plan.endswith("f16") else 1e-5
    assert torch.allclose(output.logits, expected.logits, atol=tolerance)
    record = model.last_record
    assert (record.outcome, record.batch, record.length) == ("ok", 5, 17)
    assert str(record.plan) == str(prism.Plan.parse(plan).on(("node0", "node1", "node2")))


@pytest.mark.parametrize(
    ("plan", "head", "others"),
    [
        (None, "node0", {}),
        ("local@node1", "node1", {}),
        ("batch:2:shares=0/1", "node1", {}),
        ("batch:3", "node0", {"node1": 2, "node2": 1}),
        ("batch:3:shares=1/0/3", "node0", {"node2": 4}),
        ("seq:node1+node2:full", "node1", {"node2": 5}),
    ],
)
def test_records_tell_who_worked_on_how_many_rows(model, plan, head, others):
    model(plan=plan, pixel_values=pixels(5))
    record = model.last_record
    assert record.node == head
    assert {name: each.batch for name, each in record.per_node.items()} == others
    assert record.total_s >= max(each.compute_s for each in (record, *record.per_node.values()))


def test_a_batch_smaller_than_the_nodes_runs_on_fewer(model, vit):
    x = pixels(2)
    output = model(plan="batch:3", pixel_values=x)
    assert close(output.logits, alone(vit, pixel_values=x).logits)
    assert set(model.last_record.per_node) == {"node1"}


def test_groups_of_nodes_alternate(model, vit):
    for turn in range(6):
        x = pixels(1, seed=turn)
        plan = ("seq:2:full", "seq:node1+node2:full", "seq:node2+node1:full")[turn % 3]
        output = model(plan=plan, pixel_values=x)
        assert close(output.logits, alone(vit, pixel_values=x).logits)
        assert model.last_record.outcome == "ok"


def test_threads_take_turns_and_get_their_own_answers(model, vit):
    plans = ("local", "batch:3", "seq:3:full", "local@node2", "seq:2:full", "batch:2")
    start = threading.Barrier(6)

    def ask(index):
        x = pixels(index + 1, seed=index)
        start.wait()
        outputs = [model(plan=plan, pixel_values=x) for plan in plans[index:] + plans[:index]]
        expected = alone(vit, pixel_values=x).logits
        return all(close(output.logits, expected) for output in outputs)

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(ask, range(6)))


def test_uint8_pixels_are_normalised_on_the_nodes(cluster, vit, tmp_path):
    vit.config.save_pretrained(tmp_path)
    model = cluster.load(f"random:{tmp_path}")
    x = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    small = model(plan="batch:2", pixel_values=x).logits
    assert close(small, model(plan="local", pixel_values=x).logits)
    assert close(small, model(pixel_values=(x / 255.0 - 0.5) / 0.5).logits)


def test_two_models_stay_apart(cluster, model, vit):
    other = tiny_vit(seed=7)
    second = cluster.load(other)
    assert second.fingerprint != model.fingerprint
    x = pixels(3)
    for _ in range(2):
        assert close(model(plan="seq:3:full", pixel_values=x).logits, alone(vit, pixel_values=x)[0])
        assert close(second(plan="batch:3", pixel_values=x).logits, alone(other, pixel_values=x)[0])


@pytest.mark.parametrize(
    ("plan", "inputs", "error", "named"),
    [
        ("magic", {"pixel_values": pixels(1)}, PlanError, "magic"),
        ("batch:4", {"pixel_values": pixels(4)}, PlanError, "needs 4 nodes, the cluster has 3"),
        ("local@nano7", {"pixel_values": pixels(1)}, PlanError, "nano7"),
        ("seq:node0+nano7:full", {"pixel_values": pixels(1)}, PlanError, "nano7"),
        ("local", {"pixel_values": torch.zeros(1, 3, 16, 32)}, RequestError, "16, 32"),
        ("local", {"pixel_values": torch.zeros(1, 4, 32, 32)}, RequestError, "4, 32, 32"),
        ("local", {"pixel_values": torch.zeros(0, 3, 32, 32)}, RequestError, "0, 3, 32, 32"),
        ("local", {"pixel_values": pixels(1).long()}, RequestError, "int64"),
        ("local", {"pixel_values": [1, 2]}, RequestError, "list"),
        ("local", {}, RequestError, "pixel_values"),
        ("local", {"pixel_values": pixels(1), "colour": 1}, RequestError, "colour"),
        ("local", {"pixel_values": pixels(1), "labels": object()}, RequestError, "labels"),
    ],
)
def test_a_bad_request_names_what_is_wrong_and_the_next_one_works(
    model, vit, plan, inputs, error, named
):
    with pytest.raises(error, match=named):
        model(plan=plan, **inputs)
    x = pixels(2)
    output = model(plan="seq:3:full", pixel_values=x)
    assert close(output.logits, alone(vit, pixel_values=x).logits)
    assert model.last_record.outcome == "ok"


@pytest.mark.parametrize(
    ("plan", "ids", "error", "named"),
    [
        ("local", [[1, 50]], RequestError, "50"),
        ("local", [[-3, 1]], RequestError, "-3"),
        ("local", [[1.5, 2.0]], RequestError, "float"),
        ("local", [1, 2], RequestError, "2,"),
        ("local", [[1] * 65], RequestError, "65"),
        ("seq:3:full", [[1, 2]], RequestError, "2"),
    ],
)
def test_bad_token_ids_are_named_and_the_next_request_works(gpt2, plan, ids, error, named):
    plain, model = gpt2
    with pytest.raises(error, match=named):
        model(plan=plan, input_ids=torch.tensor(ids))
    good = torch.arange(10).reshape(2, 5)
    output = model(plan="seq:3:full", input_ids=good)
    assert close(output.logits, alone(plain, input_ids=good).logits)


def test_lag_on_a_rotary_model_is_refused_before_a_node_works(cluster):
    torch.manual_seed(2)
    config = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, vocab_size=40, max_position_embeddings=32,
    )  # fmt: skip
    plain = LlamaForCausalLM(config).eval()
    model = cluster.load(plain)
    ids = torch.arange(9).reshape(1, 9)
    with pytest.raises(PlanError, match="lag"):
        model(plan="seq:3:L2:lag1", input_ids=ids)
    output = model(plan="seq:3:full", input_ids=ids)
    assert close(output.logits, alone(plain, input_ids=ids).logits)


def test_what_a_node_cannot_run_fails_that_request_only(model, vit):
    """Labels of a wrong class pass all checks and fail inside the forward pass."""
    bad = {"pixel_values": pixels(3), "labels": torch.full((3,), 99)}
    for plan in ("local", "seq:3:full", "batch:3"):
        with pytest.raises(prism.PrismError, match="99"):
            model(plan=plan, **bad)
        x = pixels(3)
        output = model(plan="seq:3:full", pixel_values=x)
        assert close(output.logits, alone(vit, pixel_values=x).logits)
        assert model.last_record.outcome == "ok"


@pytest.mark.parametrize(
    ("source", "named"),
    [("random:no-such", "no-such"), ("/no/such/model", "/no/such/model")],
)
def test_a_model_that_is_not_there_is_named(cluster, source, named):
    with pytest.raises(ModelError, match=named):
        cluster.load(source)


def test_a_model_without_weights_fails_to_load_and_the_nodes_live_on(cluster, vit, tmp_path):
    vit.config.architectures = ["ViTForImageClassification"]
    vit.config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=str(tmp_path)):
        cluster.load(tmp_path)
    assert cluster.nodes == ("node0", "node1", "node2")


def test_wrong_arguments_are_named(cluster):
    with pytest.raises(ModelError, match="float8"):
        cluster.load("random:vit-tiny", dtype="float8")
    for nodes in (0, -1, 65):
        with pytest.raises(ConfigError, match=str(nodes)):
            prism.local_cluster(nodes=nodes)
    with pytest.raises(ConfigError, match="threads must be at least 1, not 0"):
        prism.local_cluster(nodes=1, threads=0)
    with pytest.raises(ConfigError, match="10parsec"):
        prism.local_cluster(nodes=1, link="10parsec")


def test_facts_and_pids_tell_the_nodes_apart(cluster):
    assert len({cluster.pid(name) for name in cluster.nodes}) == 3
    facts = cluster.facts("node1")
    assert (facts.device, facts.threads, facts.torch) == ("cpu", 1, torch.__version__)
    with pytest.raises(prism.PrismError, match="node9"):
        cluster.pid("node9")
