"""What each addition to the means is worth on a real model, untrained for plans.

One row per addition, on 2 and 4 equal partitions, in one process and in float32. Every row is kept
as soon as it is measured; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from studies.additions_groups import Additions
from studies.additions_measures import Classes, Embeddings, Measure, Perplexity
from studies.additions_pass import trying
from studies.method_data import write_data
from studies.method_measures import batches
from studies.method_results import Results
from studies.real_models import obtain, say
from studies.single_run import command_of, page_of, run_command

from prism.fidelity.samples import Samples, open_samples
from prism.models.inputs import prepare
from prism.models.load import LoadedModel, load
from prism.models.source import DIGITS
from prism.plan import Plan

NODES = (2, 4)
_STAGE = "before"  # any training


@dataclass(frozen=True)
class Trial:
    """One model of the study.

    Attributes:
        title: of the page.
        text: what is measured, a paragraph.
        means: per partition.
        samples: to measure.
        batch: samples per forward call.
        measure: of the answers.
        length: tokens of a window; None = images.
        rotary: the family keeps positions in its keys.
        class_token: the first row is one.
    """

    title: str
    text: str
    means: int
    samples: int
    batch: int
    measure: Measure
    length: int | None = None
    rotary: bool = False
    class_token: bool = False

    @property
    def rows(self) -> dict[str, Additions]:
        """What is measured, by the name of its row."""
        by_input, by_keys = Additions(judged_by="input"), Additions(judged_by="keys")
        base = by_keys if self.rotary else by_input
        rows = {
            "L": Additions(grouping="segments"),
            "C, judged by the input": by_input,
            "C, judged by keys": by_keys,
        }
        if self.rotary:
            rows["C, judged by the input, sink alone"] = replace(by_input, sink_alone=True)
        rows |= {
            "+ sink alone": replace(base, sink_alone=True),
            "+ a quarter of the means for the last tokens": replace(
                base, last_alone=self.means // 4
            ),
            "+ end weight 0.5": replace(base, end_weight=0.5),
            "+ one Lloyd step": replace(base, refined=True),
            "+ variance of keys": replace(base, key_variance=True),
            "+ groups kept for two blocks": replace(base, kept_blocks=2),
        }
        if not self.rotary:
            rows["+ lag 1"] = replace(base, lag=1)
            rows["+ lag 1, last block fresh"] = replace(base, lag=1, fresh_last_block=True)
        if self.class_token:
            rows["+ a class token per partition"] = replace(base, class_copies=True)
        return rows


TRIALS: Mapping[str, Trial] = {
    "minilm": Trial(
        title="Additions to the means on MiniLM",
        text=(
            "all-MiniLM-L6-v2 (BERT, 6 blocks) on windows of 256 tokens of held-out Brown text, "
            "10 means per partition. `cosine`: mean cosine of the mean-pooled embedding with that "
            "of the whole model; `error`: relative error of the last hidden state. Additions (+) "
            "are on top of C judged by the input, which is what the package does for this family."
        ),
        means=10,
        samples=32,
        batch=8,
        measure=Embeddings(),
        length=256,
        class_token=True,
    ),
    "smollm2": Trial(
        title="Additions to the means on SmolLM2",
        text=(
            "SmolLM2-135M-Instruct (Llama, 30 blocks) on windows of 512 tokens of held-out Brown "
            "text, 32 means per partition. `ratio`: perplexity over that of the whole model, over "
            "all rows and over those after the first partition, which alone can change; `worst "
            "window`: the largest ratio of one window. Additions (+) are on top of C judged by "
            "keys, which is what the package does for rotary families."
        ),
        means=32,
        samples=6,
        batch=1,
        measure=Perplexity(),
        length=512,
        rotary=True,
    ),
    "digits": Trial(
        title="Additions to the means on the digits model",
        text=(
            "The model in the package (ViT, 6 blocks, 257 tokens) on images it was never trained "
            "on, 10 means per partition. `agreement`: share of images whose class is that of the "
            "whole model; `error`: relative error of the logits. Additions (+) are on top of C "
            "judged by the input, which is what the package does for this family."
        ),
        means=10,
        samples=400,
        batch=20,
        measure=Classes(),
        class_token=True,
    ),
}


def samples_of(
    name: str, loaded: LoadedModel, cache: Path, samples: int | None, seed: int
) -> Samples:
    """Open what a trial measures on."""
    trial = TRIALS[name]
    source = DIGITS
    if trial.length is not None:
        brown = obtain("brown", cache, say) / "brown.jsonl"
        source = str(write_data(cache / f"{name}-additions", brown, None, 0, 0, seed).held_out)
    return open_samples(source, loaded, length=trial.length, limit=samples, seed=seed)


def answers(
    loaded: LoadedModel, samples: Samples, trial: Trial, nodes: int, additions: Additions | None
) -> torch.Tensor:
    """Return what the measure reads of all answers; `additions` None = the whole model."""
    found = []
    for _, inputs in batches(samples, trial.batch, Plan()):
        prepared = prepare(loaded.info, inputs, loaded.model)
        with torch.inference_mode():
            if additions is None:
                output = loaded.model(**prepared)
            else:
                mask = prepared.get("attention_mask")
                with trying(loaded.model, additions, nodes, trial.means, mask):
                    output = loaded.model(**prepared)
            found.append(trial.measure.read(output, inputs))
    return torch.cat(found)


def measure(loaded: LoadedModel, samples: Samples, trial: Trial, results: Results) -> None:
    """Measure every row that `results` lacks, and keep each at once."""
    todo = {
        f"P={nodes} {row}": (nodes, additions)
        for row, additions in trial.rows.items()
        for nodes in NODES
    }
    todo = {key: what for key, what in todo.items() if key not in results.plans(_STAGE)}
    if not todo:
        return
    exact = answers(loaded, samples, trial, 1, None)
    for number, (key, (nodes, additions)) in enumerate(todo.items(), 1):
        started_s = time.monotonic()
        seen = answers(loaded, samples, trial, nodes, additions)
        metrics = trial.measure.compare(exact, seen, nodes)
        results.add(_STAGE, key, {name: round(value, 5) for name, value in metrics.items()})
        figures = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        say(f"[{number}/{len(todo)}] {key}: {figures} ({time.monotonic() - started_s:.0f} s)")


def page(content: Mapping[str, Any], trial: Trial) -> str:
    """Return the Markdown page of a trial from the content of its JSON file."""
    found = content[_STAGE]
    columns = trial.measure.columns
    heads = [f"{head}, P={nodes}" for nodes in NODES for head, _, _ in columns]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    for row in trial.rows:
        measured = [found["plans"].get(f"P={nodes} {row}") for nodes in NODES]
        cells = [
            "" if metrics is None else format(metrics[key], form)
            for metrics in measured
            for _, key, form in columns
        ]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return page_of(trial.title, trial.text, "\n".join(lines), content, _STAGE)


def run(options: argparse.Namespace) -> None:
    """Measure one model and write its page."""
    name: str = options.model
    trial = TRIALS[name]
    wanted = options.samples or trial.samples
    source = DIGITS if name == DIGITS else str(obtain(name, options.cache, say))
    loaded = load(source)
    samples = samples_of(name, loaded, options.cache, wanted, options.seed)
    setting = {"samples": len(samples), "means": trial.means, "seed": options.seed}
    results = Results(options.out / f"additions-{name}.json", name, setting, options.force)
    results.begin(_STAGE, loaded.fingerprint, command_of("additions", options, wanted))
    measure(loaded, samples, trial, results)
    path = results.path.with_suffix(".md")
    path.write_text(page(results.content, trial))
    print(path)


def main(arguments: Sequence[str] | None = None) -> None:
    run_command(
        "What additions to Segment and Cluster Means are worth on an untrained model.",
        TRIALS,
        run,
        arguments,
    )


if __name__ == "__main__":
    main()
