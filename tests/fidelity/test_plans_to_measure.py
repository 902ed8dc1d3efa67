"""Which plans are measured where nobody names them; the command's tests cover those of a map."""

import numpy as np
from tests.fidelity.models import text

from prism.fidelity.plans_to_measure import usual_compressions
from prism.fidelity.samples import open_samples
from prism.models.load import load


def names(loaded, source, **options):
    samples = open_samples(str(source), loaded, **options)
    return [str(plan) for plan in usual_compressions(loaded, samples)]


def test_about_ten_and_five_positions_share_a_mean_on_two_nodes():
    assert names(load("digits"), "digits") == [  # 257 tokens
        "seq:2:C13:f16",
        "seq:2:C26:f16",
        "seq:2:L13:f16",
        "seq:2:L26:f16",
    ]


def test_means_follow_from_the_longest_text(model, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(f"w5\n{text(98)}\n")
    assert "seq:2:C5:f16" in names(model("BertModel"), path)


def test_a_model_for_which_means_are_not_defined_is_measured_with_all_rows(model, tmp_path):
    path = tmp_path / "ids.npz"
    np.savez(path, input_ids=np.full((2, 17), 5))
    assert names(model("Qwen2ForCausalLM-window"), path) == ["seq:2:full:f16"]
