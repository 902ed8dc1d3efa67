"""A part of an input, blank elsewhere, gives its own positions what the whole input gives them."""

import pytest
import torch
from tests.families import CASES, PARTS

from prism.errors import ClusterError
from prism.models.inputs import main_input
from prism.models.load import adopt
from prism.models.own_input import can_be_cut, cut, embedding_only, restore
from prism.models.sites import sites_of
from prism.partition.spans import spans

CUT = [case for case in CASES if can_be_cut(adopt(case.model()).info.architecture.main_input_name)]


def embedded(model, info, inputs):
    """Return the input of the first block."""
    seen = []

    def keep(module, args, kwargs):
        seen.append(args[0] if args else kwargs["hidden_states"])

    block = sites_of(info.family, model)[0].block
    with block.register_forward_pre_hook(keep, with_kwargs=True), torch.no_grad():
        model(**inputs)
    return seen[0]


@pytest.mark.parametrize("case", CUT, ids=lambda case: case.name)
def test_own_positions_are_embedded_as_in_the_whole_input(case):
    model, inputs = case.model(), case.inputs()
    info = adopt(model).info
    name = main_input(info)
    whole = inputs[name]
    expected = embedded(model, info, inputs)
    assert sum(PARTS[case.tokens]["3/1/2"]) == expected.shape[1]
    for own in spans(case.tokens, 3, (3, 1, 2)):
        part = cut(info, whole, own)
        assert part.numel() < whole.numel()
        again = restore(info, part, own, whole.shape)
        assert again.dtype == whole.dtype and again.shape == whole.shape
        seen = embedded(model, info, {**inputs, name: again})
        assert torch.equal(seen[:, own.start : own.stop], expected[:, own.start : own.stop])
        with embedding_only(info, model, own):
            seen = embedded(model, info, {**inputs, name: again})
        torch.testing.assert_close(
            seen[:, own.start : own.stop], expected[:, own.start : own.stop], atol=1e-5, rtol=0
        )
    assert torch.equal(embedded(model, info, inputs), expected)


def test_vision_and_speech_models_are_among_them():
    families = {adopt(case.model()).info.family.name for case in CUT}
    assert families == {"vit", "deit", "dinov2", "clip_vision", "siglip_vision", "whisper"}


def test_bytes_stay_bytes():
    case = next(case for case in CASES if case.name == "ViTModel")
    info = adopt(case.model()).info
    whole = torch.randint(0, 256, case.inputs()["pixel_values"].shape, dtype=torch.uint8)
    own = spans(case.tokens, 2)[1]
    part = cut(info, whole, own)
    assert part.dtype == torch.uint8
    assert torch.equal(cut(info, restore(info, part, own, whole.shape), own), part)


@pytest.mark.parametrize("name", ["ViTModel", "WhisperEncoder"])
def test_a_part_of_something_else_is_refused_before_memory_is_taken(name):
    case = next(case for case in CASES if case.name == name)
    info = adopt(case.model()).info
    whole = case.inputs(batch=1)[main_input(info)]
    own = spans(case.tokens, 2)[1]
    part = cut(info, whole, own)
    shape = tuple(whole.shape)
    # The first would be filled from the one row, the second needs more memory than there is.
    for wrong in ((10**4, *shape[1:]), (10**9, *shape[1:]), shape[:-1], (1,), (*shape[:-1], 1)):
        with pytest.raises(ClusterError, match=r"a part of shape .* is not that of the positions"):
            restore(info, part, own, wrong)
