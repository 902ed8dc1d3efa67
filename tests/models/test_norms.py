"""Every family's first normalisation is split in two steps that make up the whole."""

import pytest
import torch
from tests.families import CASES
from torch import nn

from prism.errors import UnsupportedModel
from prism.models.families import family_of
from prism.models.norms import SplitNorm
from prism.models.sites import sites_of


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_steps_make_up_the_whole_in_every_block(case):
    model = case.model()
    for index, site in enumerate(sites_of(family_of(model.config), model)):
        x = torch.randn(2, 5, 32) * 3 + 1
        y = site.norm.standardise(x)
        torch.testing.assert_close(site.norm.affine(y), site.norm.whole(x), atol=1e-6, rtol=1e-5)
        if case.layout.norm:
            block = model.get_submodule(case.layout.blocks)[index]
            assert torch.equal(site.norm.whole(x), block.get_submodule(case.layout.norm)(x))
            torch.testing.assert_close(y.square().mean(-1), torch.ones(2, 5), atol=1e-3, rtol=0)
        elif not case.layout.rotary:
            assert site.norm.whole(x) is x and y is x


def test_a_mean_taken_between_the_steps_makes_the_average_of_the_keys():
    norm, keys = SplitNorm(nn.LayerNorm(6)), nn.Linear(6, 4)
    nn.init.normal_(norm.module.weight), nn.init.normal_(norm.module.bias)
    x = torch.randn(5, 6)
    mean = norm.standardise(x).mean(0)
    torch.testing.assert_close(keys(norm.affine(mean)), keys(norm.whole(x)).mean(0))


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm(4, elementwise_affine=False), nn.LayerNorm(4, bias=False)]
)
def test_norms_without_weights_or_bias(norm):
    x = torch.randn(3, 4)
    split = SplitNorm(norm)
    torch.testing.assert_close(split.affine(split.standardise(x)), norm(x))


def test_another_normalisation_is_refused():
    with pytest.raises(UnsupportedModel, match="BatchNorm1d.*no LayerNorm"):
        SplitNorm(nn.BatchNorm1d(4))
