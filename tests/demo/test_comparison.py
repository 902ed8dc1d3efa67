"""The demo's arithmetic: what is counted, which request counts for what, and whom it is due to."""

import json
from types import SimpleNamespace

import pytest
import torch

from prism.demo.comparison import BATCH, compare, plans_for, requests_for
from prism.errors import ConfigError
from prism.plan import Plan
from prism.record import RunRecord

PLANS = tuple(map(Plan.parse, ("local", "batch:3:shares=2/1/1", "seq:3:L4")))


class Classifier:
    """Names an image by its first pixel; under the lossy plan, every seventh one wrongly.

    It stands in for a cluster because a real one fails when it likes, and is never wrong on time.
    """

    def __init__(self, failing: int = -1) -> None:
        self.calls: list[tuple[str, int]] = []
        self.last_record: RunRecord | None = None
        self._failing = failing

    def __call__(self, *, plan: Plan, pixel_values: torch.Tensor) -> SimpleNamespace:
        answers = pixel_values[:, 0, 0, 0].long()
        if not plan.exact:
            answers = torch.where(answers % 7 == 0, answers + 1, answers)
        batch, total_s = len(pixel_values), 1.0 + len(self.calls)
        outcome = "recovered" if len(self.calls) == self._failing else "ok"
        # What two helpers get: a quarter of the rows each, or all of them.
        rows, sent = {"local": (0, 0), "batch": (batch // 4, 0), "sequence": (batch, 15)}[
            plan.strategy
        ]
        helpers = {
            name: RunRecord(name, plan, rows, 5, total_s=0.1, bytes_sent=sent)
            for name in ("node1", "node2")
            if rows
        }
        record = RunRecord(
            "node0", plan, batch, 5, total_s, bytes_sent=20 * bool(sent), per_node=helpers,
            outcome=outcome,
        )  # fmt: skip
        self.calls.append((str(plan), len(pixel_values)))
        self.last_record = record
        return SimpleNamespace(logits=torch.nn.functional.one_hot(answers, 60).float())


def images(count):
    pixels = torch.zeros(count, 1, 4, 4, dtype=torch.uint8)
    pixels[:, 0, 0, 0] = torch.arange(count, dtype=torch.uint8)
    return pixels


def compared(count, model=None, wrong=()):
    labels = torch.arange(count)
    labels[list(wrong)] += 1
    steps = []
    results = compare(
        model or Classifier(), PLANS, images(count), labels, lambda: steps.append(None)
    )
    return results, len(steps)


def test_answers_are_counted_against_the_truth_and_against_one_node():
    (local, batch, lossy), _ = compared(40, wrong=[1, 2])
    assert [(each.images, each.correct, each.agreeing) for each in (local, batch)] == [
        (40, 38, 40)
    ] * 2
    # 0, 7, 14, ... 35 are six images that the lossy plan alone gets wrong.
    assert (lossy.correct, lossy.agreeing) == (32, 34)
    assert (lossy.accuracy, lossy.agreement) == (0.8, 0.85)
    assert [each.exact for each in (local, batch, lossy)] == [True, True, False]


def test_bytes_are_those_that_leave_a_device_per_image():
    (local, batch, lossy), _ = compared(2 * BATCH)
    assert (local.input_bytes, local.exchanged_bytes) == (0, 0)
    assert (batch.input_bytes, batch.exchanged_bytes) == (16 / 2, 0)  # half the images, 16 pixels
    assert (lossy.input_bytes, lossy.exchanged_bytes) == (2 * 16, 50 / BATCH)  # all, to two helpers


def test_warming_up_and_left_over_images_are_not_timed():
    results, _ = compared(2 * BATCH + 3)
    for result in results:
        singles = [] if result.plan.startswith("batch") else [(1, 20)]
        assert [(each.batch, each.runs) for each in result.timings] == [*singles, (BATCH, 2)]
    # Its requests are calls 3 and, as the last of the second round, 8; call 0 warms up.
    assert results[0].timing(BATCH).total_s == 9.0
    assert results[1].timing(1) is None


def test_a_recovered_request_is_counted_and_not_timed():
    # Call 5 is the sequence plan's first request after every plan's warm-up.
    (_, _, lossy), _ = compared(2 * BATCH, Classifier(failing=5))
    assert lossy.recovered == 1
    assert lossy.timing(BATCH).runs == 1


@pytest.mark.parametrize("count", [1, BATCH - 1, BATCH, BATCH + 1, 50])
def test_progress_knows_how_many_requests_there_are(count):
    model = Classifier()
    _, steps = compared(count, model)
    assert steps == len(model.calls) == requests_for(count, PLANS)


def test_a_result_is_plain_json():
    results, _ = compared(20)
    read = json.loads(json.dumps(results[2].to_dict()))
    assert read["plan"] == "seq:3:L4" and read["accuracy"] == results[2].accuracy
    assert read["timings"][0]["batch"] == 1


def test_plans_start_with_one_node_and_use_them_all():
    plans = plans_for(3)
    assert str(plans[0]) == "local"
    assert all(plan.size == 3 for plan in plans[1:] if plan != Plan(precision="int8"))
    assert {plan.exact for plan in plans[1:]} == {True, False}
    with pytest.raises(ConfigError, match="2 or more, not 1"):
        plans_for(1)


def test_cluster_means_stand_beside_group_means_of_the_same_number():
    texts = [str(plan) for plan in plans_for(2) if plan.means]
    clusters = [text for text in texts if ":C" in text]
    assert [text.replace(":C", ":L") for text in clusters] == [t for t in texts if ":L" in t]
    assert len(texts) <= 8 and {"seq:2:C10:f16", "seq:2:C10:lag1:f16"} <= set(clusters)
