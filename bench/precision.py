"""What one core makes of a model at each precision and backend, beside the libraries themselves.

    python bench/precision.py [--model random:vit-base] [--batch 1 8] [--rounds 9]

Everything runs in this process, one thread on one core, contenders taking turns. `prism` rows are
its engine under a `local` plan; the others are the library alone, as its own documents use it:
bfloat16 weights, torch.compile with frozen weights, torch's dynamic int8 modules, OpenVINO and ONNX
Runtime on a traced model. What is not installed is said and left out. Prints a table per batch
size, then one JSON line; memory is of the weights that a precision or backend needs besides the
float32 model, load time what a node takes to make them.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from prism.bench.console import wide_console
from prism.engine.engine import Engine
from prism.errors import PrismError
from prism.models.backends import BACKENDS, EAGER
from prism.models.inputs import prepare
from prism.models.load import LoadedModel, load
from prism.models.synthetic import synthetic_inputs
from prism.node.hardware import hardware_name
from prism.node.memory import keep_freed_memory
from prism.plan import PRECISIONS, Plan, Precision
from prism.profiler.turns import take_turns

PLAIN = "plain transformers"
Inputs = dict[str, Any]
Call = Callable[[Inputs], Any]


def main() -> None:
    options = parse()
    keep_freed_memory()  # as nodes do
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    console = Console(stderr=True)
    loaded = load(options.model)
    contenders, made = {PLAIN: plain(loaded)}, {}
    for name, build in {**libraries(loaded, options.compile), **ours(loaded, made)}.items():
        with console.status(f"making {name}"):
            try:
                contenders[name] = build()
            except (ImportError, PrismError) as error:
                console.print(f"{name} is left out: {error}")
    rows = [
        row
        for batch in options.batch
        for row in measure(contenders, loaded, batch, options.rounds, console)
    ]
    show(rows, made, options.model)
    print(json.dumps(report(rows, made, options)))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="random:vit-base")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="torch.compile too; takes minutes")
    return parser.parse_args()


def plain(loaded: LoadedModel, model: Any = None, dtype: torch.dtype = torch.float32) -> Call:
    """Return a call of a model, or of what a library made of it, with inputs of one dtype."""
    model = loaded.model if model is None else model

    def call(inputs: Inputs) -> Any:
        prepared = prepare(loaded.info, inputs, loaded.model)
        cast = {
            key: value.to(dtype)
            if isinstance(value, torch.Tensor) and value.is_floating_point()
            else value
            for key, value in prepared.items()
        }
        with torch.inference_mode():
            return model(**cast)

    return call


def libraries(loaded: LoadedModel, compiled: bool) -> dict[str, Callable[[], Call]]:
    """Return what makes the contenders that are not prism's."""
    fresh = lambda: copy.deepcopy(loaded.model)  # noqa: E731

    def int8() -> Call:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantise: Any = torch.ao.quantization.quantize_dynamic
            return plain(loaded, quantise(fresh(), {torch.nn.Linear}, dtype=torch.qint8))

    def torchao_int8() -> Call:
        import torchao.quantization as quantization
        from torch._inductor import config

        config.freezing = True
        model = fresh()
        quantization.quantize_(model, quantization.Int8DynamicActivationInt8WeightConfig())
        return plain(loaded, torch.compile(model))

    def frozen(dtype: torch.dtype) -> Call:
        from torch._inductor import config

        config.freezing = True
        return plain(loaded, torch.compile(fresh().to(dtype)), dtype)

    half = torch.bfloat16
    found = {
        "torch bfloat16": lambda: plain(loaded, fresh().to(half), half),
        "torch int8 dynamic": int8,
    }
    if compiled:
        found |= {
            "torch.compile float32": lambda: frozen(torch.float32),
            "torch.compile bfloat16": lambda: frozen(half),
            "torchao int8, compiled": torchao_int8,
        }
    return found


def ours(loaded: LoadedModel, made: dict[str, dict[str, float]]) -> dict[str, Callable[[], Call]]:
    """Return what makes prism's contenders; notes in `made` what each takes."""
    engines: dict[str, Engine] = {}

    def build(backend: str, precision: Precision) -> Call:
        started_s = time.perf_counter()
        if backend not in engines:
            engines[backend] = Engine(loaded, backend, backend)
        engine = engines[backend]
        engine.add(precision)
        plan = Plan(precision=precision)
        made[f"prism {backend} {precision}"] = {
            "seconds": time.perf_counter() - started_s,
            "megabytes": engine.precisions[precision] / 2**20,
        }
        length = loaded.info.shape.max_length
        return lambda inputs: engine.run(inputs, plan, length=length).output

    pairs = [
        (backend, precision)
        for precision in PRECISIONS
        for backend in BACKENDS
        if backend != "compile" and (backend == EAGER.name or precision == "float32")
    ]
    pairs.append(("openvino", "half"))
    return {
        f"prism {backend} {precision}": lambda pair=(backend, precision): build(*pair)
        for backend, precision in pairs
    }


def measure(
    contenders: dict[str, Call], loaded: LoadedModel, batch: int, rounds: int, console: Console
) -> list[dict[str, Any]]:
    """Return a row per contender: seconds, speed-up over plain transformers, its output's error."""
    inputs = synthetic_inputs(loaded.info, batch, loaded.info.shape.max_length)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    expected = contenders[PLAIN](inputs)[0]
    errors = {
        name: float((call(inputs)[0].float() - expected).norm() / expected.norm())
        for name, call in contenders.items()
    }
    with console.status(f"batch {batch}"):
        for number, order in enumerate(take_turns(list(contenders), 1 + rounds)):
            for name in order:
                started_s = time.perf_counter()
                contenders[name](inputs)
                if number:
                    seconds[name].append(time.perf_counter() - started_s)
    return [
        {
            "batch": batch,
            "contender": name,
            "median_s": statistics.median(taken),
            "quartiles_s": statistics.quantiles(taken, n=4)[::2],
            "on_plain": statistics.median(
                base / own for base, own in zip(seconds[PLAIN], taken, strict=True)
            ),
            "error": errors[name],
        }
        for name, taken in seconds.items()
    ]


def show(rows: list[dict[str, Any]], made: dict[str, dict[str, float]], model: str) -> None:
    table = Table(title=f"{model} on one core, medians")
    for column in ("B", "contender", "ms", "quartiles", "on plain", "error", "MB", "made in s"):
        table.add_column(column, justify="left" if column == "contender" else "right")
    for row in rows:
        facts = made.get(row["contender"], {})
        low, high = row["quartiles_s"]
        table.add_row(
            str(row["batch"]),
            row["contender"],
            f"{1e3 * row['median_s']:.1f}",
            f"{1e3 * low:.1f}-{1e3 * high:.1f}",
            f"{row['on_plain']:.2f}x",
            f"{row['error']:.1e}",
            f"{facts['megabytes']:.0f}" if facts else "",
            f"{facts['seconds']:.1f}" if facts else "",
        )
    wide_console().print(table)


def report(
    rows: list[dict[str, Any]], made: dict[str, dict[str, float]], options: argparse.Namespace
) -> dict[str, Any]:
    return {
        "bench": "precision",
        "command": f"python bench/precision.py --model {options.model} --rounds {options.rounds}",
        "hardware": hardware_name("cpu"),
        "torch": torch.__version__,
        "rows": rows,
        "made": made,
    }


if __name__ == "__main__":
    main()
