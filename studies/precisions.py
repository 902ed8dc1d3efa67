"""What precisions lose on real models, alone and together with means, in one process.

Every row is kept as soon as it is measured; the same command goes on from there. A precision that
this machine cannot compute is left out with the reason.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from studies.additions import samples_of
from studies.method_measures import batches
from studies.method_results import Results
from studies.precisions_measures import Classes, Embeddings, Measure, Metrics, Predictions
from studies.real_models import obtain, say
from studies.single_run import command_of, page_of, run_command

from prism.fidelity.copies import Copies, answer
from prism.fidelity.metrics import Loss
from prism.fidelity.samples import Samples
from prism.models.load import load
from prism.models.source import DIGITS
from prism.plan import PRECISIONS, Plan

_STAGE = "before"  # any training for plans by this study


@dataclass(frozen=True)
class Trial:
    """One model of the study.

    Attributes:
        title: of the page.
        text: what is measured, a paragraph.
        samples: to measure.
        batch: samples per forward call.
        measure: of the answers.
        exchanges: plans, each measured at every precision.
    """

    title: str
    text: str
    samples: int
    batch: int
    measure: Measure
    exchanges: tuple[str, ...]

    @property
    def rows(self) -> dict[str, Plan]:
        """What is measured, by the name of its row."""
        plans = (
            replace(Plan.parse(text), precision=precision)
            for text in ("local", *self.exchanges)
            for precision in PRECISIONS
        )
        return {str(plan): plan for plan in plans if plan == Plan() or not plan.exact}


_READING = (
    "The reference is the same model, whole, in float32; in brackets 95 % intervals. `half` is "
    "bfloat16; `int8` has 8-bit matrix products in the blocks."
)
TRIALS: Mapping[str, Trial] = {
    DIGITS: Trial(
        title="Precisions on the digits model",
        text=(
            "The model in the package (ViT, 6 blocks, 257 tokens), which was fine-tuned for means "
            f"in float32, on images that are held out. {_READING}"
        ),
        samples=400,
        batch=8,
        measure=Classes(),
        exchanges=(
            "seq:2:full",
            "seq:2:L10:f16",
            "seq:2:C10:f16",
            "seq:2:C10:lag1:f16",
            "seq:4:C10:f16",
        ),
    ),
    "minilm": Trial(
        title="Precisions on MiniLM",
        text=(
            "all-MiniLM-L6-v2 (BERT, 6 blocks), never trained for means, on windows of 256 tokens "
            f"of held-out Brown text. `cosine`: mean, of the mean-pooled embeddings. {_READING}"
        ),
        samples=128,
        batch=8,
        measure=Embeddings(),
        exchanges=("seq:2:full", "seq:2:C10:f16", "seq:2:C26:f16", "seq:2:C26:lag1:f16"),
    ),
    "smollm2": Trial(
        title="Precisions on SmolLM2",
        text=(
            "SmolLM2-135M-Instruct (Llama, 30 blocks; its Q4_1 weights dequantised to float32), "
            "never trained for means, on windows of 512 tokens of held-out Brown text. `ratio`: of "
            f"the perplexity to the reference's. {_READING}"
        ),
        samples=8,
        batch=1,
        measure=Predictions(),
        exchanges=("seq:2:full", "seq:2:C32:f16", "seq:4:C32:f16"),
    ),
}


def answers(copies: Copies, samples: Samples, trial: Trial, plan: Plan) -> torch.Tensor:
    """Return what the measure reads of all answers under a plan, in order.

    Args:
        copies: of the model.
        samples: of one length.
        trial: has the measure, and how many samples share a forward call.
        plan: what is computed.
    """
    return torch.cat(
        [
            trial.measure.read(answer(copies.of(plan), plan, inputs), inputs)
            for _, inputs in batches(samples, trial.batch, plan)
        ]
    )


def measure(copies: Copies, samples: Samples, trial: Trial, results: Results) -> None:
    """Measure every row that `results` lacks and this machine can compute; keep each at once."""
    known = results.plans(_STAGE)
    usable, refused = copies.possible(trial.rows.values())
    for shape, reason in refused.items():
        say(f"{shape} left out: {reason}")
    todo = {row: plan for row, plan in trial.rows.items() if plan in usable and row not in known}
    if not todo:
        return
    exact = answers(copies, samples, trial, Plan())
    for number, (row, plan) in enumerate(todo.items(), 1):
        started_s = time.monotonic()
        seen = answers(copies, samples, trial, plan)
        metrics = trial.measure.compare(exact, seen, samples.labels)
        results.add(_STAGE, row, _flat(metrics))
        figures = ", ".join(f"{name} {each.value:.5g}" for name, each in metrics.items())
        say(f"[{number}/{len(todo)}] {row}: {figures} ({time.monotonic() - started_s:.0f} s)")


def _flat(metrics: Metrics) -> dict[str, float]:
    """Return values and ends of intervals as they are kept."""
    return {
        f"{name}{end}": round(value, 6)
        for name, each in metrics.items()
        for end, value in (("", each.value), (" low", each.low), (" high", each.high))
    }


def page(content: Mapping[str, Any], trial: Trial) -> str:
    """Return the Markdown page of a trial from the content of its JSON file."""
    found = content[_STAGE]
    heads = [head for head, _, _ in trial.measure.columns]
    lines = ["| plan | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    for row in trial.rows:
        if (kept := found["plans"].get(row)) is not None:
            cells = [_cell(kept, key, form) for _, key, form in trial.measure.columns]
            lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return page_of(trial.title, trial.text, "\n".join(lines), content, _STAGE)


def _cell(kept: Mapping[str, float], key: str, form: str) -> str:
    each = Loss(kept[key], kept[f"{key} low"], kept[f"{key} high"])
    if each.low == each.high:
        return format(each.value, form)
    return f"{each.value:{form}} ({each.low:{form}} to {each.high:{form}})"


def run(options: argparse.Namespace) -> None:
    """Measure one model and write its page."""
    name: str = options.model
    trial = TRIALS[name]
    wanted = options.samples or trial.samples
    loaded = load(DIGITS if name == DIGITS else str(obtain(name, options.cache, say)))
    samples = samples_of(name, loaded, options.cache, wanted, options.seed)
    setting = {"samples": len(samples), "seed": options.seed}
    results = Results(options.out / f"precision-{name}.json", name, setting, options.force)
    results.begin(_STAGE, loaded.fingerprint, command_of("precisions", options, wanted))
    measure(Copies(loaded), samples, trial, results)
    path = results.path.with_suffix(".md")
    path.write_text(page(results.content, trial))
    print(path)


def main(arguments: Sequence[str] | None = None) -> None:
    run_command(
        "What half and int8 lose on real models, alone and together with means.",
        TRIALS,
        run,
        arguments,
    )


if __name__ == "__main__":
    main()
