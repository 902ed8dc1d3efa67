"""The study of precisions: its measures against figures by hand, and a run on the digits."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from studies import precisions as study
from studies.precisions import TRIALS
from studies.precisions_measures import Classes, Embeddings, Predictions
from studies.single_run import run_command
from torch.nn import functional

from prism.models.processor import has_bfloat16
from prism.plan import Plan


def test_classes_lose_accuracy_and_agreement():
    labels = torch.tensor([0, 1, 2, 3, 4])
    exact, seen = torch.tensor([0, 1, 2, 0, 0]), torch.tensor([0, 1, 0, 3, 0])
    found = Classes().compare(exact, seen, labels)
    assert found["accuracy"].value == pytest.approx(0.6)
    assert found["lost"].value == 0 and found["lost"].low < 0 < found["lost"].high
    assert found["agreement"].value == pytest.approx(3 / 5)
    assert found["agreement"].low < 3 / 5 < found["agreement"].high


def test_embeddings_of_real_tokens_keep_their_direction_and_their_neighbours():
    hidden_BND = torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(0))
    inputs = {"attention_mask": torch.tensor([[1, 1, 0]] * 4)}
    measure = Embeddings()
    read = measure.read(SimpleNamespace(last_hidden_state=hidden_BND), inputs)
    assert torch.allclose(read, functional.normalize(hidden_BND[:, :2].mean(1), dim=-1))
    same = measure.compare(read, read, None)
    assert same["cosine"].value == pytest.approx(1.0) and same["retrieval"].value == 1.0
    turned = measure.compare(read, read.roll(1, 0), None)
    cosines = (read * read.roll(1, 0)).sum(-1)
    assert turned["cosine"].value == pytest.approx(cosines.mean().item(), abs=1e-6)
    assert turned["cosine"].low < turned["cosine"].value < turned["cosine"].high


def test_predictions_lose_perplexity_by_windows_and_next_tokens():
    ids = torch.randint(0, 7, (3, 5), generator=torch.Generator().manual_seed(1))
    logits = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(2))
    measure = Predictions()
    exact, seen = (
        measure.read(SimpleNamespace(logits=each), {"input_ids": ids}) for each in logits
    )
    losses = [
        functional.cross_entropy(each[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        for each in logits
    ]
    found = measure.compare(exact, seen, None)
    assert found["perplexity"].value == pytest.approx(math.exp(losses[1]), rel=1e-5)
    assert found["ratio"].value == pytest.approx(math.exp(losses[1] - losses[0]), rel=1e-5)
    assert found["ratio"].low < found["ratio"].value < found["ratio"].high
    equal = logits[0, :, :-1].argmax(-1) == logits[1, :, :-1].argmax(-1)
    assert found["agreement"].value == pytest.approx(equal.float().mean().item())


def test_every_exchange_is_measured_at_every_precision():
    for trial in TRIALS.values():
        plans = list(trial.rows.values())
        assert plans[:3] == [Plan.parse(each) for each in ("local", "local:half", "local:int8")]
        assert {plan.precision for plan in plans if plan.compressed} == {"float32", "half", "int8"}
        assert "seq:2:full" not in trial.rows and "seq:2:full:int8" in trial.rows


def test_a_run_leaves_figures_with_intervals_and_a_page_and_measures_nothing_twice(
    tmp_path, capsys
):
    arguments = ["digits", "--samples", "8", "--out", str(tmp_path)]
    study.main(arguments)
    content = json.loads((tmp_path / "precision-digits.json").read_text())
    rows = content["before"]["plans"]
    missing = {row for row in TRIALS["digits"].rows if row not in rows}
    assert missing == ({row for row in missing if "half" in row} if not has_bfloat16() else set())
    assert rows["local"]["lost"] == 0 and rows["local"]["agreement"] == 1
    for row in rows.values():
        assert row["lost low"] <= row["lost"] <= row["lost high"]
    text = (tmp_path / "precision-digits.md").read_text()
    assert text.startswith("# Precisions on the digits model")
    assert text.count("\n| ") == 1 + len(rows)
    assert "`python -m studies.precisions digits --samples 8 --seed 0 --threads 1`" in text
    capsys.readouterr()
    study.main(arguments)
    assert "local:int8:" not in capsys.readouterr().err
    assert json.loads((tmp_path / "precision-digits.json").read_text()) == content


def test_too_few_samples_for_an_interval_are_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        run_command("A study.", ["digits"], lambda options: None, ["digits", "--samples", "1"])
    assert ended.value.code == 2 and "--samples must be at least 2" in capsys.readouterr().err
