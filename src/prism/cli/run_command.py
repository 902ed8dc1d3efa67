"""`prism run`: one request on files or text, its answer and what it cost.

Whatever can be wrong with the arguments is found before a node starts, and the cheap checks come
before the slow imports.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from prism.cli import output
from prism.cli.arguments import check_at_least, check_local_only, model_source
from prism.errors import ConfigError, ModelError, RequestError
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
    app.command()(run)


def run(
    model: Annotated[
        str,
        typer.Argument(
            help="A directory, a Hugging Face id, random:NAME_OR_DIR, or digits, the model in "
            "the package."
        ),
    ],
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
    nodes: Annotated[
        int | None, typer.Option(help="Local nodes; default: as many as the plan names.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads per local node.")] = None,
    link: Annotated[str | None, typer.Option(help="Emulated link: 100mbit,3ms.")] = None,
    cluster: Annotated[Path | None, typer.Option(help="Real devices: cluster.yaml.")] = None,
    top: Annotated[int, typer.Option(help="Answers per input.")] = 5,
    repeat: Annotated[int, typer.Option(help="Run so often; the median is shown.")] = 1,
    dtype: Annotated[str, typer.Option(help="Dtype of the weights.")] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run MODEL once on all inputs as one batch; print its answers and what they cost."""
    check_at_least(1, {"--nodes": nodes, "--threads": threads, "--top": top, "--repeat": repeat})
    wanted = _wanted(plan, perf, objective, max_accuracy_drop)
    place = _place(wanted, nodes, threads, link, cluster)
    paths = [*(inputs or ()), *(files or ())]
    _check_cheaply(paths, text or (), dtype)
    with output.progress(f"reading {model}"):
        request = _prepare(model, paths, text or (), wanted.plan.on(place.names))
    with output.progress(f"starting {len(place.names)} nodes"):
        opened = place.open()
    with opened as live:
        outcome = _repeated(live, request, wanted, dtype, repeat)
    report = _report(request, outcome, place, top, dtype)
    if as_json:
        output.print_json(report)
    else:
        _print_report(request, report, outcome)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """How a request is to run: a named plan, or whatever a map makes of an objective."""

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


def _wanted(plan: str, perf: Path | None, objective: str, max_accuracy_drop: float) -> _Wanted:
    wanted = Objective(cast(Metric, objective), max_accuracy_drop)
    if plan != "auto":
        if perf is not None:
            raise ConfigError(f"--map {perf} is for --plan auto, not {plan}; leave one out")
        if wanted != Objective():
            raise ConfigError(
                f"--objective {objective} and --max-accuracy-drop {max_accuracy_drop:g} are for "
                f"--plan auto, not {plan}; leave them out"
            )
        return _Wanted(Plan.parse(plan))
    if perf is None:
        raise ConfigError("--plan auto needs --map; make one with prism profile")
    from prism.perfmap import PerformanceMap

    return _Wanted(Plan(), PerformanceMap.load(perf), wanted)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a request runs: local nodes, or the devices of a cluster file."""

    names: tuple[str, ...]
    threads: int | None
    link: str
    config: Path | None

    def open(self) -> AbstractContextManager[Cluster]:
        from prism.api.open import connect, local_cluster

        if self.config is not None:
            return connect(self.config)
        return local_cluster(len(self.names), threads=self.threads, link=self.link)


def _place(
    wanted: _Wanted, nodes: int | None, threads: int | None, link: str | None, config: Path | None
) -> _Place:
    from prism.emulation.link import LinkShape
    from prism.plan import default_node_name

    if config is None:
        shape = LinkShape.parse(link or "none")
        count = nodes or wanted.nodes
        names = tuple(default_node_name(index) for index in range(count))
        place = _Place(names, threads, str(shape), None)
    else:
        from prism.launch.cluster_file import read_config

        check_local_only(config, {"--nodes": nodes, "--threads": threads, "--link": link})
        place = _Place(read_config(config).nodes, None, "none", config)
    wanted.plan.on(place.names)
    return place


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
    inputs: dict[str, Any]
    tokenizer: Any = None


def _prepare(model: str, paths: Sequence[Path], texts: Sequence[str], plan: Plan) -> _Request:
    """Read the model's configuration and the inputs; check all that needs no node."""
    from prism.engine.strategies import STRATEGIES
    from prism.models import processing
    from prism.models.inputs import check_inputs
    from prism.models.load import describe

    output.quiet_libraries()
    source = model_source(model)
    info = describe(source)
    _check_weights(source)
    if processing.reads_images(info):
        if texts:
            raise RequestError(f"{model} reads images, not --text {texts[0]!r}; use --input")
        images = [processing.read_image(path) for path in paths]
        request = _Request(info, tuple(map(str, paths)), processing.image_inputs(info, images))
    else:
        tokenizer = processing.tokenizer_of(info)
        contents = [*(processing.read_text(path) for path in paths), *texts]
        names = (*map(str, paths), *texts)
        made: dict[str, Any] = {**processing.text_inputs(info, tokenizer, contents)}
        if info.family.tail_rows and bool(made["attention_mask"].all()):
            made["logits_to_keep"] = 1  # only the last token's answer is shown
        request = _Request(info, names, made, tokenizer)
    _, length = check_inputs(info, request.inputs)
    STRATEGIES[plan.strategy].check(info, plan, request.inputs, length)
    return request


def _check_weights(source: str) -> None:
    directory = Path(source)
    if directory.is_dir() and not any(any(directory.glob(each)) for each in _WEIGHTS):
        raise ModelError(
            f"{source} holds no weights; copy model.safetensors into it, or use random:{source} "
            f"for timing"
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


def _repeated(
    live: Cluster, request: _Request, wanted: _Wanted, dtype: str, repeat: int
) -> _Outcome:
    with output.progress(f"loading the model on {len(live.nodes)} nodes"):
        model = live.load(request.info.source, dtype)
    records = []
    if wanted.perf:
        model.use_map(wanted.perf, objective=wanted.objective)
    with output.progress(f"running {wanted}"):
        for _ in range(repeat):
            answer = model(plan="auto" if wanted.perf else wanted.plan, **request.inputs)
            assert model.last_record is not None
            records.append(model.last_record)
    return _Outcome(answer, tuple(records), model.last_decision)


def _report(
    request: _Request, outcome: _Outcome, place: _Place, top: int, dtype: str
) -> dict[str, Any]:
    from dataclasses import asdict

    from prism.models.processing import output_shapes, predictions

    best = predictions(request.info, outcome.answer, request.inputs, top, request.tokenizer)
    results: list[dict[str, Any]] = [{"input": name} for name in request.names]
    for result, row in zip(results, best or (), strict=False):
        result["predictions"] = [asdict(prediction) for prediction in row]
    return {
        "model": request.info.source,
        "architecture": request.info.architecture.__name__,
        "dtype": dtype,
        "nodes": list(place.names),
        "link": None if place.link == "none" else {"shape": place.link, "kind": output.EMULATED},
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
    if "predictions" not in report["results"][0]:
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
