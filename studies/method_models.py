"""Which models are studied, with what, and how their results are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from studies.method_data import StudyData
from studies.method_measures import EmbeddingMeasure, LanguageMeasure, Measure, study_plans
from studies.method_report import Layout

from prism.models.load import LoadedModel
from prism.plan import Plan

_RATES = (10, 5)


@dataclass(frozen=True)
class Study:
    """One model of the study.

    Attributes:
        model: its name in `studies.real_models`.
        length: tokens of a sample.
        samples: windows of held-out text.
        mails: e-mails to measure, and as many again, four times, to fit the probe on; 0 = none.
        batch, training_batch: samples per forward call and per training step.
        fixed: numbers of means beside those that follow from the compression rates.
        lags: which the family defines.
        measure: of the original, the data, samples, length, batch and seed.
        layout: of the report.
    """

    model: str
    length: int
    samples: int
    mails: int
    batch: int
    training_batch: int
    fixed: tuple[int, ...]
    lags: tuple[int, ...]
    measure: Callable[[LoadedModel, StudyData, int, int, int, int], Measure]
    layout: Layout

    @property
    def plans(self) -> list[Plan]:
        """What is measured; the first one is the whole model."""
        return study_plans(self.length, _RATES, self.fixed, self.lags)


STUDIES: Mapping[str, Study] = {
    "minilm": Study(
        model="minilm",
        length=256,
        samples=64,
        mails=96,
        batch=8,
        training_batch=8,
        fixed=(10,),
        lags=(0, 1),
        measure=EmbeddingMeasure,
        layout=Layout(
            title="Segment and Cluster Means on MiniLM",
            text=(
                "all-MiniLM-L6-v2 (BERT, 6 blocks, 22.7 M parameters) on 256 tokens of held-out "
                "Brown text. `cosine` is the mean cosine of the pooled embedding with that of the "
                "original model, whole; `retrieval` the share of texts whose nearest other text "
                "is the same one; `spam` the accuracy on SpamAssassin mails (half of them spam) "
                "of a logistic regression that was fitted to the original's embeddings of other "
                "mails. `local` is the whole model: after training it is held against the "
                "original too. Trained by distillation on other files of the Brown corpus, "
                "without labels; no mail was trained on."
            ),
            columns=(
                ("cosine", "cosine", ".4f"),
                ("retrieval", "retrieval", ".3f"),
                ("spam", "spam", ".3f"),
            ),
            drop=lambda row: 1.0 - row["cosine"],
            drop_name="1 - mean cosine with the whole original",
        ),
    ),
    "smollm2": Study(
        model="smollm2",
        length=512,
        samples=12,
        mails=0,
        batch=2,
        training_batch=2,
        fixed=(10, 32),
        lags=(0,),
        measure=LanguageMeasure,
        layout=Layout(
            title="Segment and Cluster Means on SmolLM2",
            text=(
                "SmolLM2-135M-Instruct (Llama, 30 blocks; Q4_1 dequantised to float32) on windows "
                "of 512 tokens of held-out Brown text. `perplexity` of the true next tokens; "
                "`ratio` to that of the original model, whole; `agreement` the share of positions "
                "with the original's likeliest next token. `local` is the whole model: after "
                "training it is held against the original too, and training on Brown text teaches "
                "some of its style, though the target is only what the original says. Rotary "
                "families have no lag."
            ),
            columns=(
                ("perplexity", "perplexity", ".2f"),
                ("ratio", "ratio", ".3f"),
                ("agreement", "agreement", ".3f"),
            ),
            drop=lambda row: row["ratio"] - 1.0,
            drop_name="perplexity / perplexity of the whole original - 1",
        ),
    ),
}
