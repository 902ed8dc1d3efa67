"""Nothing of a pass stays on the model, however the pass ends; hooks alone change nothing."""

import copy

import pytest
import torch
from tests.families import BY_NAME, CASES

import prism
from prism.errors import Cancelled, UnsupportedModel
from prism.models.families import FAMILIES, family_of
from prism.models.instrument import Instrumented


def fingerprints(model):
    """Return all that an instrumentation could leave behind."""
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}
    return (
        [copy.copy(config.__dict__) for config in configs.values()],
        [config._attn_implementation for config in configs.values()],
        [sorted(module.__dict__) for module in model.modules()],
        [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._forward_hooks_with_kwargs))
            for m in model.modules()
        ],
        [type(module).forward for module in model.modules()],
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_pass_leaves_nothing_behind(case):
    model, inputs = case.model(), case.inputs()
    before = fingerprints(model)
    with torch.no_grad():
        plain = model(**inputs)[0]
        with prism.virtual(model, prism.Plan.parse("seq:2:full"), inputs.get("attention_mask")):
            assert fingerprints(model) != before
            model(**inputs)
        assert fingerprints(model) == before
        assert torch.equal(model(**inputs)[0], plain)


@pytest.mark.parametrize("name", ["ViTModel", "BertModel", "GPT2LMHeadModel", "LlamaForCausalLM"])
def test_an_exception_inside_a_block_leaves_nothing_behind(name):
    case = BY_NAME[name]
    model, inputs = case.model(), case.inputs()
    block = model.get_submodule(case.layout.blocks)[1]

    def fail(*args):
        raise RuntimeError("a block fails")

    with torch.no_grad():
        plain = model(**inputs)[0]
        before = fingerprints(model)
        hook = block.register_forward_pre_hook(fail)
        with (
            pytest.raises(RuntimeError, match="a block fails"),
            prism.virtual(model, prism.Plan.parse("seq:2:L2")),
        ):
            model(**inputs)
        hook.remove()
        assert fingerprints(model) == before
        assert torch.equal(model(**inputs)[0], plain)


def test_eager_attention_stays_eager():
    model = BY_NAME["BertModel"].model()
    model.set_attn_implementation("eager")
    inputs = BY_NAME["BertModel"].inputs(padding=4)
    with torch.no_grad():
        plain = model(**inputs)[0]
        with prism.virtual(model, prism.Plan.parse("seq:2:full"), inputs["attention_mask"]):
            split = model(**inputs)[0]
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(split[real], plain[real], atol=1e-5, rtol=1e-5)
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hooked_model_is_plain_until_a_pass_runs_and_after_it_is_removed(case):
    model, inputs = case.model(), case.inputs()
    before = fingerprints(model)
    with torch.no_grad():
        plain = model(**inputs)[0]
        instrumented = Instrumented(model, family_of(model.config))
        hooked = fingerprints(model)
        assert torch.equal(model(**inputs)[0], plain)
        with instrumented.running(None):
            assert torch.equal(model(**inputs)[0], plain)
        with prism.virtual(model, prism.Plan.parse("seq:2:full"), inputs.get("attention_mask")):
            model(**inputs)
        assert fingerprints(model) == hooked
        assert torch.equal(model(**inputs)[0], plain)
        instrumented.remove()
        instrumented.remove()
    assert fingerprints(model) == before


def test_a_copy_of_a_hooked_model_has_a_life_of_its_own():
    case = BY_NAME["GPT2LMHeadModel"]
    model, inputs = case.model(), case.inputs()
    instrumented = Instrumented(model, family_of(model.config))
    twin = copy.deepcopy(model)
    plan = prism.Plan.parse("seq:2:L1")
    with torch.no_grad():
        plain = model(**inputs).logits
        with prism.virtual(model, plan):
            split = model(**inputs).logits
            assert torch.equal(twin(**inputs).logits, plain)
        with prism.virtual(twin, plan), instrumented.running(None, lambda: True):
            assert torch.equal(twin(**inputs).logits, split)
    assert not torch.equal(plain, split)


@pytest.mark.parametrize("name", ["ViTModel", "LlamaForCausalLM", "WhisperEncoder"])
def test_a_given_up_call_ends_before_the_next_block(name):
    case = BY_NAME[name]
    model, inputs = case.model(), case.inputs()
    before = fingerprints(model)
    instrumented = Instrumented(model, family_of(model.config))
    blocks = list(model.get_submodule(case.layout.blocks))
    for given_up_at in range(len(blocks)):
        ran, asked = [], iter(index >= given_up_at for index in range(len(blocks)))
        hooks = [block.register_forward_hook(lambda *_, ran=ran: ran.append(1)) for block in blocks]
        with (
            torch.no_grad(),
            pytest.raises(Cancelled, match=f"before block {given_up_at}"),
            instrumented.running(None, lambda asked=asked: next(asked)),
        ):
            model(**inputs)
        assert len(ran) == given_up_at
        for hook in hooks:
            hook.remove()
    instrumented.remove()
    assert fingerprints(model) == before


def test_a_model_laid_out_otherwise_is_refused():
    model = BY_NAME["ViTModel"].model()
    bert = next(family for family in FAMILIES if family.name == "bert")
    before = fingerprints(model)
    with pytest.raises(UnsupportedModel, match="keeps no blocks at"):
        Instrumented(model, bert)
    assert fingerprints(model) == before
