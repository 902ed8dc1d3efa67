"""`prism run`: answers and costs on real nodes; bad input found before any node starts."""

import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from PIL import Image
from tests.cli.commands import call, spawn
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, PreTrainedTokenizerFast, T5Config, ViTConfig

WORDS = ("[UNK]", "the", "cat", "sat", "down")
VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
    "id2label": {0: "ape", 1: "bee", 2: "cow"},
    "architectures": ["ViTForImageClassification"],
}
LLAMA = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": len(WORDS),
    "max_position_embeddings": 8,
    "architectures": ["LlamaForCausalLM"],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return configurations without weights: vit, llama and encoder (with a tokenizer), t5."""
    root = tmp_path_factory.mktemp("models")
    ViTConfig(**VIT).save_pretrained(root / "vit")
    LlamaConfig(**LLAMA).save_pretrained(root / "llama")
    without_head = {**LLAMA, "architectures": ["LlamaModel"]}
    LlamaConfig(**without_head).save_pretrained(root / "encoder")
    T5Config(architectures=["T5ForConditionalGeneration"]).save_pretrained(root / "t5")
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    tokenizer.save_pretrained(root / "llama")
    tokenizer.save_pretrained(root / "encoder")
    (root / "empty").mkdir()
    return root


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a directory with two pictures, and a text that names itself a picture."""
    root = tmp_path_factory.mktemp("files")
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "a.png")
    Image.fromarray(pixels[..., 0]).save(root / "b.jpg")
    (root / "words.png").write_text("the cat")
    return root


@pytest.fixture
def no_nodes(monkeypatch):
    """Fail a test that starts nodes."""

    def refuse(*arguments, **options):
        raise AssertionError("nodes were started for a request that cannot run")

    monkeypatch.setattr("prism.api.open.local_cluster", refuse)
    monkeypatch.setattr("prism.api.open.connect", refuse)


def test_several_nodes_answer_with_one_json_document_on_stdout(models, files):
    process = spawn(
        *("run", f"random:{models / 'vit'}", "--input", files / "a.png", files / "b.jpg"),
        *("--plan", "seq:2:L4", "--threads", 1, "--link", "1gbit,1ms"),
        *("--repeat", 3, "--top", 2, "--json"),
    )
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    document = json.loads(out)
    assert [each["input"] for each in document["results"]] == [
        str(files / "a.png"),
        str(files / "b.jpg"),
    ]
    for result in document["results"]:
        first, second = result["predictions"]
        assert {first["label"], second["label"]} < {"ape", "bee", "cow"}
        assert first["probability"] >= second["probability"]
    assert document["link"]["shape"] == "1gbit,1ms" and "emulated" in document["link"]["kind"]
    record = document["record"]
    assert record["batch"] == 2 and record["length"] == 17 and record["outcome"] == "ok"
    assert record["bytes_sent"] > 0 and set(record["per_node"]) == {"node1"}
    assert len(document["total_s_of_each_run"]) == 3
    assert record["total_s"] == sorted(document["total_s_of_each_run"])[1]
    assert document["output_shapes"] == {"logits": [2, 3]}


def test_texts_get_their_next_tokens_and_a_cost_per_node(models, monkeypatch, capsys):
    result = call(
        *(monkeypatch, capsys, "run", f"random:{models / 'llama'}", "--plan", "seq:2:full"),
        *("--text", "the cat", "--text", "the cat sat down", "--top", 3, "--threads", 1),
    )
    assert result.code == 0, result.err
    answers, cost = result.out.split("\n\n")
    lines = answers.splitlines()
    assert len(lines) == 2 * (1 + 3)
    assert (lines[0], lines[4]) == ("the cat", "the cat sat down")
    assert re.fullmatch(r" +\d+\.\d\d%  '.*'", lines[1])
    assert re.search(r"^seq:2:full: \d+\.\d ms for 2 inputs of 4 tokens, ok$", cost, re.M)
    for node in ("node0", "node1"):
        assert re.search(rf"^  {node}  compute .* ms, comm .* bytes sent", cost, re.M)
    assert "emulated" not in result.out


def test_embeddings_are_printed_in_short_and_written_in_full(models, monkeypatch, capsys):
    arguments = (
        *("run", f"random:{models / 'encoder'}", "--text", "the cat", "--text", "the cat sat down"),
        *("--plan", "seq:2:full", "--threads", 1, "--output", "pooled:mean:normalise"),
    )
    result = call(monkeypatch, capsys, *arguments)
    assert result.code == 0, result.err
    lines = result.out.split("\n\n")[0].splitlines()
    assert (lines[0], lines[2]) == ("the cat", "the cat sat down")
    assert re.fullmatch(r"  32 values, norm 1: ([+-]\d\.\d{4} ){6}\.\.\.", lines[1])
    document = json.loads(call(monkeypatch, capsys, *arguments, "--json").out)
    assert document["output"] == "pooled:mean:normalise"
    vectors = [result["embedding"] for result in document["results"]]
    assert [len(vector) for vector in vectors] == [32, 32]
    assert f"{vectors[0][0]:+.4f}" == lines[1].split(": ")[1].split()[0]


@pytest.mark.parametrize("form", ["logits", "top_k:2"])
def test_predictions_need_no_more_than_their_logits(models, files, monkeypatch, capsys, form):
    shown = [
        call(
            *(monkeypatch, capsys, "run", f"random:{models / 'vit'}", "--input", files / "a.png"),
            *("--top", 2, "--threads", 1, "--output", each),
        ).out.split("\n\n")[0]
        for each in ("full", form)
    ]
    assert shown[0] == shown[1] and len(shown[0].splitlines()) == 3


def test_ctrl_c_ends_with_130_and_leaves_no_process(models, files):
    process = spawn(
        *("run", f"random:{models / 'vit'}", "--input", files / "a.png"),
        *("--plan", "batch:2", "--repeat", 1_000_000),
    )
    try:
        nodes = []
        deadline_s = time.monotonic() + 60
        while len(nodes) < 2 and time.monotonic() < deadline_s and process.poll() is None:
            nodes = psutil.Process(process.pid).children(recursive=True)
            time.sleep(0.1)
        assert len(nodes) == 2
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert "Traceback" not in process.stderr.read()
        assert psutil.wait_procs(nodes, timeout=10)[1] == []
    finally:
        process.kill()
        process.communicate()


BAD = {
    "no input": (["{vit}"], "no input; give files"),
    "empty text": (["{llama}", "--text", " "], "--text ' ' is empty"),
    "missing file": (["{vit}", "--input", "{files}/absent.png"], "absent.png does not exist"),
    "not an image": (["{vit}", "--input", "{files}/words.png"], "words.png is not an image"),
    "text to a vision model": (["{vit}", "--text", "the cat"], "reads images, not --text"),
    "image to a text model": (["{llama}", "--input", "{files}/a.png"], "a.png is not UTF-8 text"),
    "no plan": (["{vit}", "--input", "{image}", "--plan", "sq:2"], "'sq:2' is not a plan"),
    "plan without segments": (
        ["{vit}", "--input", "{image}", "--plan", "seq:2"],
        "full, L<n> or C<n>",
    ),
    "too few nodes": (
        ["{vit}", "--input", "{image}", "--plan", "batch:3", "--nodes", "2"],
        "needs 3 nodes, the cluster has 2",
    ),
    "unknown node": (["{vit}", "--input", "{image}", "--plan", "local@pi"], "names pi"),
    "no answers": (["{vit}", "--input", "{image}", "--top", "0"], "--top must be at least 1"),
    "unknown output": (
        ["{vit}", "--input", "{image}", "--output", "embedding"],
        "unknown output 'embedding'; use full, logits",
    ),
    "logits without a head": (
        ["random:{models}/encoder", "--text", "the cat", "--output", "top_k"],
        "LlamaModel gives last_hidden_state, past_key_values, hidden_states, attentions and no",
    ),
    "bad link": (["{vit}", "--input", "{image}", "--link", "5quux"], "'5quux' in link"),
    "bad dtype": (["{vit}", "--input", "{image}", "--dtype", "int4"], "unknown dtype 'int4'"),
    "missing directory": (["/absent/model", "--input", "{image}"], "/absent/model does not exist"),
    "empty directory": (["{models}/empty", "--input", "{image}"], "has no config.json"),
    "no weights": (["{models}/vit", "--input", "{image}"], "holds no weights; copy"),
    "relative positions": (["random:{models}/t5", "--text", "the cat"], "t5 cannot be partitioned"),
    "no tokenizer": (["random:gpt2", "--text", "the cat"], "random:gpt2 has no tokenizer"),
    "lag with rotary positions": (
        ["{llama}", "--text", "the cat sat", "--plan", "seq:2:L1:lag1"],
        "lag=1 is not supported",
    ),
    "fewer tokens than nodes": (
        ["{llama}", "--text", "the cat", "--plan", "seq:3:full"],
        "needs at least 3 tokens, the request has 2",
    ),
    "too long": (["{llama}", "--text", "the cat " * 5], "10 tokens, the model takes 8"),
    "auto without a map": (
        ["{vit}", "--input", "{image}", "--plan", "auto"],
        "--plan auto needs --map; make one with prism profile",
    ),
    "a map without auto": (
        ["{vit}", "--input", "{image}", "--plan", "batch:2", "--map", "map.json"],
        "--map map.json is for --plan auto, not batch:2",
    ),
    "an objective without auto": (
        ["{vit}", "--input", "{image}", "--objective", "energy"],
        "--objective energy and --max-accuracy-drop 0 are for --plan auto, not local",
    ),
    "a point estimate without auto": (
        ["{vit}", "--input", "{image}", "--plan", "batch:2", "--point-estimate"],
        "--point-estimate is for --plan auto, not batch:2",
    ),
    "unknown objective": (
        ["{vit}", "--input", "{image}", "--plan", "auto", "--map", "m", "--objective", "speed"],
        "unknown objective 'speed'; use latency, energy or edp",
    ),
    "impossible budget": (
        ["{vit}", "--input", "{image}", "--plan", "auto", "--map", "m", "--max-accuracy-drop", "2"],
        "max_accuracy_drop must lie in 0..1 (0.02 = 2 points), not 2.0",
    ),
    "no map": (
        ["{vit}", "--input", "{image}", "--plan", "auto", "--map", "{files}/absent.json"],
        "absent.json does not exist; make a map with `prism profile`",
    ),
    "not a map": (
        ["{vit}", "--input", "{image}", "--plan", "auto", "--map", "{files}/words.png"],
        "words.png is corrupt or truncated",
    ),
    "local options for real devices": (
        ["{vit}", "--input", "{image}", "--cluster", "{files}/cluster.yaml", "--nodes", "2"],
        "--nodes 2 is for local nodes",
    ),
    "no cluster file": (
        ["{vit}", "--input", "{image}", "--cluster", "{files}/absent.yaml"],
        "no cluster file at",
    ),
}


@pytest.mark.parametrize("arguments, sentence", BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence_and_exit_code_2_without_a_node(
    models, files, monkeypatch, capsys, no_nodes, arguments, sentence
):
    places = {
        "models": models,
        "files": files,
        "image": files / "a.png",
        "vit": f"random:{models / 'vit'}",
        "llama": f"random:{models / 'llama'}",
    }
    filled = [argument.format(**places) for argument in arguments]
    result = call(monkeypatch, capsys, "run", *filled, "--json")
    assert (result.code, result.out) == (2, "")
    assert sentence in result.err
    assert result.err.startswith("prism: ") and result.err.count("\n") == 1


def test_a_cluster_file_says_how_many_nodes_there_are(
    models, files, tmp_path, monkeypatch, capsys, no_nodes
):
    (tmp_path / "cluster.yaml").write_text("nodes: [handler, pi]\nhost: 127.0.0.1\n")
    result = call(
        *(monkeypatch, capsys, "run", f"random:{models / 'vit'}", "--input", files / "a.png"),
        *("--cluster", tmp_path / "cluster.yaml", "--plan", "seq:3:full"),
    )
    assert result.code == 2
    assert "needs 3 nodes, the cluster has 2 (handler, pi)" in result.err


def test_a_plan_that_names_a_node_gets_as_many_nodes_as_that_needs(
    models, files, monkeypatch, capsys
):
    started = []

    def note(nodes, **options):
        started.append(nodes)
        raise KeyboardInterrupt

    monkeypatch.setattr("prism.api.open.local_cluster", note)
    model = f"random:{models / 'vit'}"
    for plan in ("local", "local@node2", "batch:4"):
        call(monkeypatch, capsys, "run", model, "--input", files / "a.png", "--plan", plan)
    assert started == [1, 3, 4]


def test_a_mistake_costs_no_import_of_torch_and_help_neither():
    probe = (
        "import sys; from prism.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code or 0, sorted({'torch', 'transformers'} "
        "& set(sys.modules)))"
    )
    for arguments, code in (["--help"], 0), (["run", "x", "--text", "a", "--plan", "sq:2"], 2):
        done = subprocess.run(
            [sys.executable, "-c", probe, *arguments], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == f"{code} []"
