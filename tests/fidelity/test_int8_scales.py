"""Rows that are rounded by themselves, as on the node that has them."""

import pytest
import torch
from tests.families import BY_NAME

from prism.fidelity.copies import Copies
from prism.fidelity.int8_scales import scaled_apart
from prism.models.int8 import Int8Linear
from prism.models.load import adopt
from prism.partition.spans import spans
from prism.plan import Plan


def rounded(name):
    return Copies(adopt(BY_NAME[name].model())).of(Plan.parse("local:int8"))


def products(loaded):
    return [each for each in loaded.model.modules() if isinstance(each, Int8Linear)]


@pytest.mark.parametrize(
    "text", ["local:int8", "batch:2:int8", "seq:2:L3:int8", "seq:3:L1:int8:shares=4/1/2"]
)
def test_the_rows_of_each_sample_and_node_have_a_scale_of_their_own(text):
    torch.manual_seed(0)
    plan = Plan.parse(text)
    bert, inputs = rounded("BertModel"), BY_NAME["BertModel"].inputs()
    batch, length = inputs["input_ids"].shape
    module = products(bert)[0]
    # Samples, and rows, of very different sizes: a common scale would round the small to nothing.
    sizes_BN1 = 10.0 ** torch.arange(batch)[:, None, None] * torch.linspace(1, 9, length)[:, None]
    rows_BND = torch.randn(batch, length, module.in_features) * sizes_BN1
    parts = spans(length, plan.size, plan.shares) if plan.exchanges else spans(length, 1)
    expected = torch.stack(
        [torch.cat([module(rows[part.start : part.stop]) for part in parts]) for rows in rows_BND]
    )
    together = module(rows_BND)
    # Of two nodes each rounds the means of the other one; of more, those of all others together.
    means_BCD = rows_BND[:, :6]
    sizes = (3, 3) if plan.exchanges and plan.size == 2 else (6,)
    alone = torch.stack(
        [torch.cat([module(part) for part in means.split(sizes)]) for means in means_BCD]
    )
    with scaled_apart(bert, plan, inputs):
        assert torch.equal(module(rows_BND), expected)
        assert torch.equal(module(rows_BND.flatten(0, 1)), expected.flatten(0, 1))
        assert torch.equal(module(means_BCD), alone)
    assert not torch.equal(together, expected)
    assert torch.equal(module(rows_BND), together)


def test_the_products_are_their_own_again_after_an_error():
    bert, inputs = rounded("BertModel"), BY_NAME["BertModel"].inputs()
    with pytest.raises(KeyError), scaled_apart(bert, Plan.parse("seq:2:L1:int8"), inputs):
        raise KeyError
    assert products(bert) and not any("forward" in vars(each) for each in products(bert))


def test_other_precisions_have_no_such_products():
    bert, inputs = adopt(BY_NAME["BertModel"].model()), BY_NAME["BertModel"].inputs()
    assert products(bert) == []
    with scaled_apart(bert, Plan(), inputs):
        assert not any("forward" in vars(each) for each in bert.model.modules())
