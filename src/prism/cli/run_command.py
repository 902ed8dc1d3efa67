"""`prism run`: one request on files or text, its answer and what it cost.

Whatever can be wrong with the arguments is found before a node starts, and the cheap checks come
before the slow imports.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from prism.cli import output
from prism.cli.arguments import MODEL_HELP, POINT_ESTIMATE_HELP, check_at_least
from prism.cli.target import Target, read_target
from prism.cli.ticker import waiting
from prism.errors import ConfigError, ModelError, RequestError
from prism.output_form import OutputForm
from prism.plan import WIRE_BYTES, Metric, Objective, Plan
from prism.record import RunRecord

if TYPE_CHECKING:
    from prism.api.cluster import Cluster
    from prism.models.load import ModelInfo
    from prism.perfmap import PerformanceMap
    from prism.planner import Decision

_WEIGHTS = ("*.safetensors", "*.bin", "*.safetensors.index.json")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog="Example: prism run digits photo.png --plan seq:2:full")(run)


def run(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    files: Annotated[list[Path] | None, typer.Argument(help="More input files.")] = None,
    inputs: Annotated[
        list[Path] | None, typer.Option("--input", help="An image or text file; repeatable.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text; repeatable.")] = None,
    plan: Annotated[str, typer.Option(help="How: auto, local, batch:2, seq:2:L10, ...")] = "local",
    perf: Annotated[
        Path | None, typer.Option("--map", help="Performance map, for --plan auto.")
    ] = None,
    objective: Annotated[
        str, typer.Option(help="For --plan auto: latency, energy or edp.")
    ] = "latency",
    max_accuracy_drop: Annotated[
        float, typer.Option(help="For --plan auto: 0.02 = 2 points; 0 = exact plans only.")
    ] = 0.0,
    point_estimate: Annotated[
        bool, typer.Option("--point-estimate", help=POINT_ESTIMATE_HELP)
    ] = False,
    nodes: Annotated[
        int | None, typer.Option(help="Local nodes; default: as many as the plan names.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads per local node.")] = None,
    link: Annotated[str | None, typer.Option(help="Emulated link: 100mbit,3ms.")] = None,
    cluster: Annotated[Path | None, typer.Option(help="Real devices: cluster.yaml.")] = None,
    wanted: Annotated[
        str,
        typer.Option("--output", help="What nodes send: full, logits, top_k:10, pooled, ..."),
    ] = "full",
    top: Annotated[int, typer.Option(help="Answers per input.")] = 5,
    repeat: Annotated[int, typer.Option(help="Run so often; the median is shown.")] = 1,
    dtype: Annotated[str, typer.Option(help="Dtype of the weights.")] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run MODEL once on all inputs as one batch; print its answers and what they cost."""
    check_at_least(1, {"--top": top, "--repeat": repeat})
    option = _read_plan(plan, perf, objective, max_accuracy_drop, point_estimate)
    form = OutputForm.parse(wanted)
    target = read_target(cluster, needed=option.nodes, nodes=nodes, threads=threads, link=link)
    if option.perf:  # whoever is there will do
        target = replace(target, needed=1)
    placed = option.plan.on(target.names)
    paths = [*(inputs or ()), *(files or ())]
    _check_cheaply(paths, text or (), dtype)
    with waiting(f"reading {model}"):
        request = _prepare(model, paths, text or (), placed, form)
    with waiting(f"opening {target}"):
        opened = target.open()
    with opened as live:
        outcome = _run_repeatedly(live, request, option, dtype, repeat)
    report = _report(request, outcome, target, top, dtype)
    if as_json:
        output.print_json(report)
    else:
        _print_report(request, report, outcome)


@dataclass(frozen=True, slots=True)
class _PlanOption:
    """What --plan says: a plan, or `auto`, which leaves it to a map and an objective."""

    plan: Plan
    perf: PerformanceMap | None = None
    objective: Objective | None = None

    def __str__(self) -> str:
        return "auto" if self.perf else str(self.plan)

    @property
    def nodes(self) -> int:
        """Local nodes it needs: node2 is the third."""
        if self.perf:
            return len(self.perf.nodes)
        numbers = [name.removeprefix("node") for name in self.plan.nodes]
        known = [int(each) + 1 for each in numbers if each.isdecimal()]
        return max([self.plan.size, *known])


def _read_plan(
    plan: str, perf: Path | None, objective: str, drop: float, point_estimate: bool
) -> _PlanOption:
    goal = Objective(cast(Metric, objective), drop, point_estimate)
    if plan != "auto":
        if perf is not None:
            raise ConfigError(f"--map {perf} is for --plan auto, not {plan}; leave one out")
        if point_estimate:
            raise ConfigError(f"--point-estimate is for --plan auto, not {plan}; leave it out")
        if goal != Objective():
            raise ConfigError(
                f"--objective {objective} and --max-accuracy-drop {drop:g} are for "
                f"--plan auto, not {plan}; leave them out"
            )
        return _PlanOption(Plan.parse(plan))
    if perf is None:
        raise ConfigError("--plan auto needs --map; make one with prism profile")
    from prism.perfmap import PerformanceMap

    return _PlanOption(Plan(), PerformanceMap.load(perf), goal)


def _check_cheaply(paths: Sequence[Path], texts: Sequence[str], dtype: str) -> None:
    if dtype not in WIRE_BYTES:
        raise ModelError(f"unknown dtype {dtype!r}; use {', '.join(WIRE_BYTES)}")
    if not paths and not texts:
        raise RequestError("there is no input; give files with --input or words with --text")
    for path in paths:
        if not path.exists():
            raise RequestError(f"input file {path} does not exist; check the path")
    for text in texts:
        if not text.strip():
            raise RequestError(f"--text {text!r} is empty; give some words")


@dataclass(frozen=True, slots=True)
class _Request:
    """One batch, checked against the model."""

    info: ModelInfo
    names: tuple[str, ...]
    form: OutputForm
    inputs: dict[str, Any]
    tokenizer: Any = None


def _prepare(
    model: str, paths: Sequence[Path], texts: Sequence[str], plan: Plan, form: OutputForm
) -> _Request:
    """Read the model's configuration and the inputs; check all that needs no node."""
    from prism.engine.strategies import STRATEGIES
    from prism.models import processing
    from prism.models.inputs import check_inputs
    from prism.models.load import describe
    from prism.models.outputs import settle_form

    output.quiet_libraries()
    info = describe(model)
    _check_weights(info)
    form = settle_form(info, form)
    if processing.reads_images(info):
        if texts:
            raise RequestError(f"{model} reads images, not --text {texts[0]!r}; use --input")
        images = [processing.read_image(path) for path in paths]
        names = tuple(map(str, paths))
        request = _Request(info, names, form, processing.image_inputs(info, images))
    else:
        tokenizer = processing.tokenizer_of(info)
        contents = [*(processing.read_text(path) for path in paths), *texts]
        names = (*map(str, paths), *texts)
        made: dict[str, Any] = {**processing.text_inputs(info, tokenizer, contents)}
        keeps = "logits_to_keep" in inspect.signature(info.architecture.forward).parameters
        if keeps and info.family.tail_rows and bool(made["attention_mask"].all()):
            made["logits_to_keep"] = 1  # only the last token's answer is shown
        request = _Request(info, names, form, made, tokenizer)
    _, length = check_inputs(info, request.inputs)
    STRATEGIES[plan.strategy].check(info, plan, request.inputs, length)
    return request


def _check_weights(info: ModelInfo) -> None:
    from prism.models.source import split_source

    random, _ = split_source(info.source)
    directory = Path(info.files)
    if random or not directory.is_dir():
        return
    if not any(any(directory.glob(each)) for each in _WEIGHTS):
        raise ModelError(
            f"{info.source} holds no weights; copy model.safetensors into it, or use "
            f"random:{info.source} for timing"
        )


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The last answer, and what every run cost."""

    answer: Any
    records: tuple[RunRecord, ...]
    decision: Decision | None

    @property
    def median(self) -> RunRecord:
        """The run in the middle, so that its parts add up."""
        return sorted(self.records, key=lambda each: each.total_s)[len(self.records) // 2]


def _run_repeatedly(
    live: Cluster, request: _Request, option: _PlanOption, dtype: str, repeat: int
) -> _Outcome:
    with waiting(f"loading the model on {len(live.nodes)} nodes"):
        model = live.load(request.info.source, dtype)
    if option.perf:
        model.use_map(option.perf, objective=option.objective)
    records = []
    with waiting(f"running {option}"):
        for _ in range(repeat):
            answer = model(plan=str(option), output=request.form, **request.inputs)
            assert model.last_record is not None
            records.append(model.last_record)
    return _Outcome(answer, tuple(records), model.last_decision)


def _report(
    request: _Request, outcome: _Outcome, target: Target, top: int, dtype: str
) -> dict[str, Any]:
    from dataclasses import asdict

    from prism.models.processing import output_shapes, predictions

    best = predictions(request.info, outcome.answer, request.inputs, top, request.tokenizer)
    results: list[dict[str, Any]] = [{"input": name} for name in request.names]
    for result, row in zip(results, best or (), strict=False):
        result["predictions"] = [asdict(prediction) for prediction in row]
    if request.form.kind == "pooled":
        for result, vector in zip(results, outcome.answer.tolist(), strict=True):
            result["embedding"] = vector
    return {
        "model": request.info.source,
        "architecture": request.info.architecture.__name__,
        "dtype": dtype,
        "output": str(request.form),
        "nodes": list(target.names),
        "link": {"shape": target.link, "kind": output.EMULATED} if target.emulated else None,
        "results": results,
        "output_shapes": output_shapes(outcome.answer),
        "record": outcome.median.to_dict(),
        "decision": outcome.decision.to_dict() if outcome.decision else None,
        "total_s_of_each_run": [record.total_s for record in outcome.records],
    }


def _print_report(request: _Request, report: dict[str, Any], outcome: _Outcome) -> None:
    for result in report["results"]:
        print(result["input"])
        for each in result.get("predictions", ()):
            chance = each["probability"]
            shown = f"score {each['score']:.4g}" if chance is None else f"{chance:7.2%}"
            label = repr(each["label"]) if request.tokenizer else each["label"]
            print(f"  {shown}  {label}")
        if "embedding" in result:
            print(f"  {output.vector_line(result['embedding'])}")
    if not {"predictions", "embedding"} & report["results"][0].keys():
        for name, shape in report["output_shapes"].items():
            print(f"  {name}: {' x '.join(map(str, shape))}")
    print()
    if outcome.decision:
        predicted = output.milliseconds(outcome.decision.predicted_s)
        print(f"chosen: {outcome.decision.choice}, predicted {predicted}")
    for line in output.cost_lines(outcome.median):
        print(line)
    if report["link"]:
        print(f"link: {report['link']['shape']}, {report['link']['kind']}")
    runs = len(outcome.records)
    if runs == 1:
        print("a first run also connects the nodes and warms up; --repeat 10 shows the median")
    else:
        first = output.milliseconds(outcome.records[0].total_s)
        print(f"median of {runs} runs; the first, which connects and warms up, took {first}")
