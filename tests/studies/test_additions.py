"""The pass with additions: without any it is the package's own; each of them changes something."""

import json

import pytest
import torch
from studies import additions as study
from studies.additions import TRIALS
from studies.additions_groups import Additions, centres_towards_the_end, refined
from studies.additions_pass import half_variance, trying
from tests.families import BY_NAME, assert_equal_outputs, largest_difference

import prism
from prism.partition.clusters import farthest_first

NAMES = ("BertModel", "ViTForImageClassification", "LlamaForCausalLM")
BASE = {name: Additions(judged_by="keys" if "Llama" in name else "input") for name in NAMES}
SEGMENTS = Additions(grouping="segments")


def answer(name, additions, nodes, means, padding=0, length=0):
    case = BY_NAME[name]
    model, inputs = case.model(), case.inputs(padding=padding, length=length)
    mask = inputs.get("attention_mask")
    with torch.no_grad(), trying(model, additions, nodes, means, mask):
        return model(**inputs)


@pytest.mark.parametrize("grouping", ["L", "C"])
@pytest.mark.parametrize("name", NAMES)
def test_without_additions_it_is_what_the_package_computes(name, grouping):
    case = BY_NAME[name]
    model, inputs = case.model(), case.inputs(padding=3)
    mask = inputs.get("attention_mask")
    additions = SEGMENTS if grouping == "L" else BASE[name]
    for nodes, means in ((2, 3), (3, 2)):
        plan = prism.Plan.parse(f"seq:{nodes}:{grouping}{means}")
        with torch.no_grad(), prism.virtual(model, plan, mask):
            expected = model(**inputs)
        assert_equal_outputs(answer(name, additions, nodes, means, padding=3), expected, mask)


@pytest.mark.parametrize("name", NAMES[:2])
@pytest.mark.parametrize("grouping", ["L", "C"])
def test_lag_is_that_of_the_package(name, grouping):
    case = BY_NAME[name]
    model, inputs = case.model(), case.inputs()
    additions = Additions(grouping="segments" if grouping == "L" else "clusters", lag=1)
    with torch.no_grad(), prism.virtual(model, prism.Plan.parse(f"seq:2:{grouping}3:lag1")):
        expected = model(**inputs)
    assert_equal_outputs(answer(name, additions, 2, 3), expected)


EXACT = (
    Additions(),
    Additions(judged_by="keys"),
    Additions(sink_alone=True, last_alone=2),
    Additions(kept_blocks=2),
    Additions(key_variance=True),
)


@pytest.mark.parametrize("additions", EXACT, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_as_many_groups_as_tokens_is_the_model_itself(name, additions):
    case = BY_NAME[name]
    model, inputs = case.model(), case.inputs(padding=3)
    mask = inputs.get("attention_mask")
    with torch.no_grad():
        expected = model(**inputs)
    seen = answer(name, additions, 2, 9, padding=3)
    assert_equal_outputs(seen, expected, mask, atol=5e-5)


def test_copies_of_the_class_token_are_exact_while_they_see_everything():
    case = BY_NAME["BertModel"]
    model, inputs = case.model(), case.inputs()
    with torch.no_grad():
        expected = model(**inputs)
    # One partition has no copy; with two, every row sees one class token and all others alone.
    for nodes in (1, 2):
        seen = answer("BertModel", Additions(class_copies=True), nodes, 17)
        assert_equal_outputs(seen, expected, atol=5e-5)


CHANGES = (
    {"grouping": "segments"},
    {"sink_alone": True},
    {"last_alone": 1},
    {"end_weight": 2.0},
    {"refined": True},
    {"kept_blocks": 2},
    {"key_variance": True},
    {"lag": 1},
    {"lag": 1, "fresh_last_block": True},
    {"class_copies": True},
)


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_every_addition_changes_the_answer(changes):
    plain = answer("BertModel", Additions(), 2, 3, length=60)
    other = answer("BertModel", Additions(**changes), 2, 3, length=60)
    assert largest_difference(other, plain) > 1e-3


def test_a_fresh_last_block_differs_from_lag_everywhere():
    lagged = answer("BertModel", Additions(lag=1), 2, 3)
    fresh = answer("BertModel", Additions(lag=1, fresh_last_block=True), 2, 3)
    assert largest_difference(lagged, fresh) > 1e-3


def test_a_model_answers_as_before_afterwards():
    case = BY_NAME["LlamaForCausalLM"]
    model, inputs = case.model(), case.inputs()
    with torch.no_grad():
        before = model(**inputs).logits
        with trying(model, Additions(judged_by="keys"), 2, 2):
            once, twice = model(**inputs).logits, model(**inputs).logits
        assert torch.equal(once, twice) and not torch.equal(once, before)
        assert torch.equal(model(**inputs).logits, before)


def test_keys_of_the_previous_block_cannot_judge():
    with pytest.raises(ValueError, match="are gone"):
        Additions(lag=1, judged_by="keys")


def test_without_end_weight_it_is_farthest_first_with_it_groups_get_finer_towards_the_end():
    torch.manual_seed(0)
    y, real = torch.randn(8, 20, 6), torch.rand(8, 20) > 0.2
    to_end = 1 - torch.arange(20) / 20
    plain, weighted = (centres_towards_the_end(y, 5, real, to_end, power) for power in (0.0, 2.0))
    assert torch.equal(plain, farthest_first(y, 5, real))

    def groups_of_the_last(owners):
        return sum(len(set(row[-5:].tolist())) for row in owners)

    assert groups_of_the_last(weighted) > groups_of_the_last(plain)


def test_a_lloyd_step_moves_a_row_to_the_more_similar_group():
    angles = torch.tensor([0.0, 0.1, 0.4, 1.2, 1.3])
    y = torch.stack([angles.cos(), angles.sin()], -1)[None]
    real = torch.ones(1, 5, dtype=torch.bool)
    moved = refined(torch.tensor([[0, 0, 1, 1, 1]]), y, 3, real)
    assert moved.tolist() == [[0, 0, 0, 1, 1]]


def test_variance_is_that_of_the_logits_where_keys_vary_alike():
    torch.manual_seed(0)
    query, key = torch.randn(1, 1, 4000, 8), torch.randn(1, 1, 4000, 8)
    pool = torch.full((1, 1, 4000), 1 / 4000)
    found = half_variance(query, key, pool[:, None] @ key, pool, 0.3)
    logits = 0.3 * query[0, 0] @ key[0, 0].T
    assert float(found) == pytest.approx(float(logits.var(dim=1).mean() / 2), rel=0.02)


def test_rows_are_measured_once_and_shown(tmp_path, monkeypatch, capsys):
    rows = {row: TRIALS["digits"].rows[row] for row in ("L", "C, judged by the input")}
    monkeypatch.setattr(study.Trial, "rows", property(lambda self: rows))
    command = ["digits", "--samples", "3", "--out", str(tmp_path), "--threads", "1"]
    study.main(command)
    figures = tmp_path / "additions-digits.json"
    content = json.loads(figures.read_text())
    measured = content["before"]["plans"]
    assert list(measured) == [f"P={nodes} {row}" for row in rows for nodes in (2, 4)]
    assert all(0 < row["error"] < 1 for row in measured.values())
    measured["P=2 L"] = {"agreement": 0.125, "error": 9.0}
    del measured["P=4 L"]
    figures.write_text(json.dumps(content))
    study.main(command)
    text = (tmp_path / "additions-digits.md").read_text()
    assert "| L | 0.1250 | 9.000 | " in text
    assert "`python -m studies.additions digits --samples 3 --seed 0 --threads 1`" in text
    assert capsys.readouterr().err.count("P=4 L") == 2


def test_rotary_models_have_no_lag_and_two_ways_to_judge():
    rows = TRIALS["smollm2"].rows
    assert not any(additions.lag or additions.class_copies for additions in rows.values())
    assert rows["C, judged by the input, sink alone"].judged_by == "input"
    assert rows["+ sink alone"].judged_by == "keys" and rows["+ sink alone"].sink_alone


def test_what_cannot_be_done_is_said_in_a_sentence(tmp_path, capsys):
    (tmp_path / "additions-digits.json").write_text("{}")
    for arguments, message in (
        (["--samples", "0"], "must be at least 2"),
        (["--samples", "2"], "another setting.*--force"),
    ):
        with pytest.raises(SystemExit) as refused:
            study.main(["digits", "--out", str(tmp_path), *arguments])
        assert refused.value.code == 2
        assert message.split(".*")[0] in capsys.readouterr().err
