"""`prism evaluate`: measure what plans lose on a user's data, write the accuracy table."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prism.cli import output
from prism.cli.arguments import MODEL_HELP, NO_LABELS_HELP, check_at_least, check_file_place
from prism.cli.counting import counted
from prism.cli.evaluate_plans import asked_plans, chosen_plans
from prism.cli.evaluate_view import difference_lines, evaluation_document, print_evaluation
from prism.errors import ConfigError, ModelError
from prism.plan import WIRE_BYTES, Plan

if TYPE_CHECKING:
    from prism.fidelity.copies import Copies
    from prism.fidelity.distributed import Difference
    from prism.fidelity.samples import Samples
    from prism.fidelity.summary import Evaluated
    from prism.models.load import LoadedModel, ModelInfo

_SHORT = 8  # digits of a digest in a file's name
DATA_HELP = (
    "A folder of images (sub-folders are labels), .csv, .tsv or .jsonl with a text column, .txt "
    "or a folder of them, .npz with arrays named like the model's inputs, or digits."
)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: prism evaluate path/to/model photos --plans seq:2:C10,seq:2:L10")(
        evaluate
    )


def evaluate(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    data: Annotated[str, typer.Argument(help=DATA_HELP)],
    plans: Annotated[
        str | None, typer.Option(help="Plans to measure, separated by commas: seq:2:C10,seq:2:L10.")
    ] = None,
    perf: Annotated[
        Path | None, typer.Option("--map", help="Measure the lossy plans of this map.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The table to write; default accuracy.json of the model.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="So many samples, drawn at random.")] = None,
    length: Annotated[int | None, typer.Option(help="Tokens of a text.")] = None,
    no_labels: Annotated[bool, typer.Option("--no-labels", help=NO_LABELS_HELP)] = False,
    batch: Annotated[int, typer.Option(help="Samples per forward pass, at most.")] = 8,
    threads: Annotated[int | None, typer.Option(help="Compute threads.")] = None,
    dtype: Annotated[str, typer.Option(help="Dtype of the weights.")] = "float32",
    seed: Annotated[int, typer.Option(help="Of the draw of --limit.")] = 0,
    check_distributed: Annotated[
        int | None, typer.Option(help="Compare so many samples with node processes.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw drop against bytes: .svg, .png or .pdf.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a table of other weights.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure what plans lose on DATA against exact answers; write it beside MODEL, and into MAP.

    Everything runs in this process, without a cluster. Ctrl-C loses nothing: the same command goes
    on from there.
    """
    numbers = {"--limit": limit, "--length": length, "--batch": batch, "--threads": threads}
    check_at_least(1, {**numbers, "--check-distributed": check_distributed})
    named, measured_map = asked_plans(plans, perf)
    if plot:
        from prism.bench.plots import check_target

        check_target(plot)
    info = _describe(model, dtype, named or ())
    place = _place(info, out)
    from prism.fidelity.accuracy import Subject, check_replaceable, tell_map, write_table
    from prism.fidelity.copies import Copies
    from prism.fidelity.samples import open_samples

    loaded = _load(info, dtype, threads)
    check_replaceable(place, loaded.fingerprint, force)
    with output.progress(f"reading {data}"):
        samples = open_samples(
            data, loaded, length=length, limit=limit, seed=seed, labels=not no_labels
        )
    copies = Copies(loaded)
    chosen, left_out = chosen_plans(copies, samples, named, measured_map)
    work = _Work(copies, samples, chosen, left_out, place)
    entries = _measure(work, batch)
    differences = _check_on_nodes(work, dtype, check_distributed) if check_distributed else ()
    if not all(each.agrees for each in differences):
        _refuse(differences, work)
    subject = Subject.of(loaded.fingerprint, samples, length)
    write_table(place, subject, entries, shlex.join(["prism", *sys.argv[1:]]), force=force)
    if perf:
        tell_map(perf, loaded.fingerprint, entries)
    _show(work, entries, differences, plot, as_json)
    work.partial.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Work:
    """What is measured, what is not and why, and where the table goes."""

    copies: Copies
    samples: Samples
    plans: tuple[Plan, ...]
    left_out: Mapping[str, str]
    place: Path

    @property
    def loaded(self) -> LoadedModel:
        """The model, as it was loaded."""
        return self.copies.loaded

    @property
    def partial(self) -> Path:
        """Where what was measured is kept until the table is written.

        Each model and each data set has its own: starting with another loses nothing.
        """
        from prism.fidelity.evaluate import identity_of

        identity = identity_of(self.loaded, self.samples)[:_SHORT]
        return self.place.with_name(f"{self.place.name}.{identity}.partial")


def _describe(model: str, dtype: str, plans: Sequence[Plan]) -> ModelInfo:
    """Read the model's configuration; check all that needs no weights."""
    from prism.models.inputs import check_plan_of_family
    from prism.models.load import describe

    if dtype not in WIRE_BYTES:
        raise ModelError(f"unknown dtype {dtype!r}; use {', '.join(WIRE_BYTES)}")
    output.quiet_libraries(loading=True)
    info = describe(model)
    for plan in plans:
        check_plan_of_family(info.family, info.config, plan)
    return info


def _place(info: ModelInfo, out: Path | None) -> Path:
    """Return where the table goes, after a look whether it can be written there."""
    from prism.fidelity.accuracy import FILE_NAME
    from prism.models.source import DIGITS, split_source

    if out is None:
        random, name = split_source(info.source)
        if random or name == DIGITS or not Path(info.files).is_dir():
            raise ConfigError(
                f"{info.source} has no directory of yours to keep its accuracy table in; say "
                f"where it goes with --out FILE"
            )
        out = Path(info.files) / FILE_NAME
    check_file_place("--out", out, "say where the table goes with --out FILE")
    return out


def _load(info: ModelInfo, dtype: str, threads: int | None) -> LoadedModel:
    import torch

    from prism.models.load import load

    if threads:
        torch.set_num_threads(threads)
    with output.progress(f"loading {info.source}"):
        return load(info.source, dtype)


def _measure(work: _Work, batch: int) -> tuple[Evaluated, ...]:
    from prism.fidelity.evaluate import evaluate

    text = f"{len(work.samples)} samples under {len(work.plans)} plans"
    try:
        with counted(text, len(work.samples)) as advance:
            return evaluate(
                work.loaded,
                work.samples,
                work.plans,
                batch=batch,
                resume=work.partial,
                advance=advance,
                copies=work.copies,
            )
    except KeyboardInterrupt:
        print(
            f"prism: interrupted; what was measured is in {work.partial}, and the same command "
            f"goes on from there",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None


def _check_on_nodes(work: _Work, dtype: str, count: int) -> tuple[Difference, ...]:
    from prism.cli.target import read_target
    from prism.fidelity.distributed import compare_distributed

    target = read_target(None, needed=max(plan.size for plan in work.plans), threads=1)
    plans = [plan for plan in work.plans if plan != Plan()]
    with output.progress(f"opening {target}"):
        opened = target.open()
    with opened as live, output.progress(f"comparing with {target}"):
        precisions = tuple(dict.fromkeys(plan.precision for plan in work.plans))
        model = live.load(work.loaded.info.source, dtype, precisions=precisions)
        return compare_distributed(
            *(work.copies, work.samples, plans, count),
            lambda plan, inputs: model(plan=str(plan), **inputs),
        )


def _refuse(differences: Sequence[Difference], work: _Work) -> None:
    """End the command: the table would say something that the nodes do not do."""
    for line in difference_lines(differences):
        print(line, file=sys.stderr)
    wrong = ", ".join(each.plan for each in differences if not each.agrees)
    print(
        f"prism: node processes answer otherwise than this process under {wrong}; no table was "
        f"written, what was measured is in {work.partial}",
        file=sys.stderr,
    )
    raise typer.Exit(1)


def _show(
    work: _Work,
    entries: Sequence[Evaluated],
    differences: Sequence[Difference],
    plot: Path | None,
    as_json: bool,
) -> None:
    from prism.bench.accuracy_plot import draw_drops, drop_points
    from prism.planner.traffic import bytes_per_block

    shape, length = work.loaded.info.shape, work.samples.longest(work.loaded.info)
    exchanged = {plan.shape: bytes_per_block(plan, shape, length) for plan in work.plans}
    if plot:
        title = f"{work.loaded.info.source} on {len(work.samples)} samples of {work.samples.name}"
        draw_drops(plot, drop_points(entries, shape, length), entries[0].metric, title)
    if as_json:
        output.print_json(
            {
                "model": work.loaded.info.source,
                "table": str(work.place),
                **evaluation_document(entries, exchanged, work.samples),
                "length": length,
                "distributed": [asdict(each) for each in differences],
                "left_out": work.left_out,
            }
        )
        return
    print_evaluation(entries, exchanged, work.samples, work.place)
    for line in difference_lines(differences):
        print(line)
