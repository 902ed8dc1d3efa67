"""The examples of docs/serve-clients.md run as they stand, against a server of their own."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tests.server.process import ServerProcess
from tests.server.task_server import sentence_model

from prism.models.held_out import grey, packed_images

PAGE = Path(__file__).parents[2] / "docs" / "serve-clients.md"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ADDRESS = "127.0.0.1:8000"
BLOCKS = BLOCK.findall(PAGE.read_text())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = sentence_model(tmp_path_factory.mktemp("sentence"))
    log = tmp_path_factory.mktemp("server") / "log"
    models = ["digits", f"sentences={directory}"]
    with ServerProcess(log, *models, "--local-nodes", 2, "--threads", 1) as process:
        yield process


@pytest.fixture
def folder(tmp_path):
    ink, _ = packed_images()
    Image.fromarray(grey(ink[:1])[0]).save(tmp_path / "digit.png")
    return tmp_path


def ran(command, folder):
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    return done.stdout


@pytest.mark.parametrize("code", [code for kind, code in BLOCKS if kind == "python"])
def test_a_python_example_runs(server, folder, code):
    (folder / "block.py").write_text(code.replace(ADDRESS, server.address))
    ran([sys.executable, "block.py"], folder)


@pytest.mark.parametrize("code", [code for kind, code in BLOCKS if kind == "sh"])
def test_curl_gets_an_answer_to_every_question(server, folder, code):
    said = ran(["sh", "-e", "-c", code.replace(ADDRESS, server.address)], folder)
    answers, rest = [], said.strip()
    while rest:  # one document behind the other
        document, end = json.JSONDecoder().raw_decode(rest)
        answers.append(document)
        rest = rest[end:].strip()
    models, form, base64, vectors = answers
    assert [each["id"] for each in models["data"]] == ["digits", "sentences"]
    assert form["labels"] == base64["labels"][:3]
    assert len(vectors["data"][0]["embedding"]) == 32
