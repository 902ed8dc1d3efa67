"""The study of the method on real models: what means lose, before and after training.

`before` measures the model as it is, `finetune` trains it for all plans of the study by
distillation on text that is never measured, `after` measures the result, `report` writes the page.
Each keeps what it did; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from studies.method_data import StudyData, write_data
from studies.method_measures import Metrics
from studies.method_models import STUDIES
from studies.method_report import draw, page
from studies.method_results import Results, Stage, today, versions
from studies.packages import StudyError
from studies.real_models import add_cache, obtain, say

from prism.bench.plots import check_target
from prism.cli.finetune_view import shown_progress
from prism.errors import PrismError
from prism.fidelity.finetune import finetune
from prism.fidelity.samples import open_samples
from prism.fidelity.training import Settings
from prism.models.load import LoadedModel, load
from prism.planner.traffic import bytes_per_block

_FINETUNE_ROWS = 4  # what finetune itself measures before and after; `after` measures in full


class Run:
    """One call of the command: where things lie, and the stages."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.name: str = options.study
        self.study = STUDIES[self.name]
        self.samples: int = options.samples or self.study.samples
        self.mails: int = options.mails or self.study.mails
        self.training_batch: int = options.training_batch or self.study.training_batch
        setting = {
            "length": self.study.length,
            "samples": self.samples,
            **({"mails": self.mails} if self.mails else {}),
            "seed": options.seed,
        }
        path = options.out / f"method-{self.name}.json"
        shown = None if options.stage == "report" else setting
        self.results = Results(path, self.name, shown, options.force)
        self.trained: Path = options.cache / f"{self.name}-finetuned"

    def measure(self, stage: Stage) -> None:
        """Measure every plan of the original, or of the trained model."""
        if stage == "after" and not (self.trained / "config.json").is_file():
            raise StudyError(f"{self.trained} holds no model yet; run finetune first")
        original = self._original()
        loaded = original if stage == "before" else load(str(self.trained))
        self.results.begin(stage, loaded.fingerprint, self._command(stage))
        plans = [plan for plan in self.study.plans if str(plan) not in self.results.plans(stage)]
        if not plans:
            return
        measure = self.study.measure(
            original,
            self._data(),
            self.samples,
            self.study.length,
            self.study.batch,
            self.options.seed,
        )
        for number, plan in enumerate(plans, 1):
            started_s = time.monotonic()
            metrics: Metrics = measure(loaded, plan)
            sent = bytes_per_block(plan, loaded.info.shape, self.study.length)
            row = {"bytes_per_block": sent, **metrics}
            self.results.add(stage, str(plan), {key: round(row[key], 5) for key in row})
            figures = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items())
            took_s = time.monotonic() - started_s
            say(f"{stage} [{number}/{len(plans)}] {plan}: {figures} ({took_s:.0f} s)")

    def finetune(self) -> None:
        """Train the original for all plans of the study; goes on where it was stopped."""
        study, options, data = self.study, self.options, self._data()
        original = self._original()
        samples = open_samples(str(data.train), original, length=study.length)
        held_out = open_samples(
            str(data.held_out),
            original,
            length=study.length,
            limit=_FINETUNE_ROWS,
            seed=options.seed,
        )
        settings = Settings(
            plans=tuple(study.plans[1:]),
            budget_s=options.budget * 60.0,
            batch=self.training_batch,
            learning_rate=options.learning_rate,
            length=study.length,
            seed=options.seed,
        )
        command = self._command("finetune")
        with shown_progress() as tell:
            outcome = finetune(
                original,
                samples,
                held_out,
                self.trained,
                settings,
                force=options.force,
                command=command,
                tell=tell,
            )
        note = {
            "command": command,
            "date": today(),
            "versions": versions(),
            "fingerprint": outcome.fingerprint,
            "steps": outcome.steps,
            "seconds": round(outcome.seconds, 1),
            "batch": self.training_batch,
            "threads": options.threads,
            "learning_rate": settings.rate_for(original.model),
        }
        self.results.note("finetune", note)

    def report(self) -> None:
        """Write the page and the plot beside the JSON file."""
        if "before" not in self.results.content:
            raise StudyError(f"{self.results.path} holds no figures yet; run before first")
        plot = self.results.path.with_suffix(".svg")
        check_target(plot)
        draw(plot, self.results.content, self.study.layout)
        text = page(self.results.content, self.study.layout, plot.name)
        self.results.path.with_suffix(".md").write_text(text)
        print(self.results.path.with_suffix(".md"))

    def _original(self) -> LoadedModel:
        return load(str(obtain(self.study.model, self.options.cache, say)))

    def _data(self) -> StudyData:
        cache = self.options.cache
        brown = obtain("brown", cache, say) / "brown.jsonl"
        spam = obtain("spam", cache, say) / "spam.jsonl" if self.mails else None
        folder = cache / f"{self.name}-data"
        return write_data(folder, brown, spam, 4 * self.mails, self.mails, self.options.seed)

    def _command(self, stage: str) -> str:
        given = [f"--samples {self.samples}"]
        if self.mails:
            given.append(f"--mails {self.mails}")
        given += [f"--seed {self.options.seed}", f"--threads {self.options.threads}"]
        if stage == "finetune":
            given.append(f"--budget {self.options.budget:g}")
            given.append(f"--training-batch {self.training_batch}")
            if self.options.learning_rate is not None:
                given.append(f"--learning-rate {self.options.learning_rate:g}")
        return " ".join(["python -m studies.method", self.name, stage, *given])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="What Segment and Cluster Means lose on real models, untrained and trained."
    )
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("stage", choices=("before", "finetune", "after", "report"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"), metavar="DIR")
    add_cache(parser)
    parser.add_argument("--samples", type=_positive, help="windows of held-out text to measure")
    parser.add_argument("--mails", type=_positive, help="mails to measure (minilm)")
    parser.add_argument(
        "--budget", type=float, default=20.0, metavar="MINUTES", help="of training (default 20)"
    )
    parser.add_argument("--training-batch", type=_positive, help="samples per training step")
    parser.add_argument("--learning-rate", type=float, help="peak (default by the model's size)")
    parser.add_argument("--threads", type=_positive, default=2, help="torch threads (default 2)")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default 0)")
    parser.add_argument("--force", action="store_true", help="throw away what does not fit")
    options = parser.parse_args(arguments)
    if options.mails and not STUDIES[options.study].mails:
        parser.error(f"{options.study} measures no mails; leave --mails out")
    torch.set_num_threads(options.threads)
    try:
        run = Run(options)
        if options.stage == "finetune":
            run.finetune()
        elif options.stage != "report":
            run.measure(options.stage)
        if options.stage == "report" or "before" in run.results.content:
            run.report()
    except (StudyError, PrismError) as error:
        parser.exit(2, f"{error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "stopped; the same command goes on from here\n")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


if __name__ == "__main__":
    main()
