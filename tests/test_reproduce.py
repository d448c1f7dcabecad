"""What a stranger does: follow the README, in a copy of the repository, through Make."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import copy_repository
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from lib import surroundings

pytestmark = pytest.mark.slow

NOUNS = "dog cat bird child teacher film story house road song".split()
VERBS = "sees likes finds knows hears takes".split()
SENTENCE = [("the", "DET"), ("{n}", "NOUN"), ("{v}", "VERB"), ("a", "DET"), ("small", "ADJ"), ("{m}", "NOUN")]


def environment() -> dict[str, str]:
    """The environment of a shell, without what pytest, Make and the libraries that a test has imported put into it."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "PYTEST"))}
    surroundings.clean(clean, [*surroundings.REMOVED, *surroundings.REMOVED_AT_START])
    return clean | {"HF_HUB_OFFLINE": "1"}


def make(folder: Path, *words: str) -> subprocess.CompletedProcess:
    command = ["make", f"PYTHON={sys.executable}", *words]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)


def sentences(count: int, start: int) -> str:
    lines = []
    for i in range(start, start + count):
        fill = {"n": NOUNS[i % 10], "v": VERBS[i // 10 % 6], "m": NOUNS[(i // 60 + i) % 10]}
        lines += [f"{w.format(**fill)} {tag}" for w, tag in SENTENCE] + [""]
    return "\n".join(lines)


def save_encoder(folder: Path) -> None:
    texts = [" ".join(w for w, _ in SENTENCE).format(n=n, v=v, m=n) for n in NOUNS for v in VERBS]
    texts += ["a good film and a bad story with some fun and no plot"]
    tok = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tok.normalizer, tok.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tok.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special))
    tok.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", [("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tok, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=128,
    )  # fmt: skip
    fast.save_pretrained(folder)
    shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(fast), max_position_embeddings=128, **shape)).save_pretrained(folder)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("Ein Ordner für naïve Leser")
    return copy_repository(folder)


def test_the_readme_is_enough_to_study_another_encoder_and_another_corpus(copy: Path) -> None:
    readme = (copy / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(# params/mine\.yaml\n.*?)```", readme, re.S)
    (command,) = re.findall(r"^make (reproduce SCALE=mine.*)$", readme, re.M)
    (copy / "params" / "mine.yaml").write_text(block, encoding="utf-8")
    (copy / "my-corpus").mkdir()
    (copy / "my-corpus" / "train.txt").write_text(sentences(400, 0), encoding="utf-8")
    (copy / "my-corpus" / "test.txt").write_text(sentences(100, 400), encoding="utf-8")
    save_encoder(copy / "my-encoder")

    plan = make(copy, "plan", "SCALE=mine")
    assert "mine/sentiment-s1/01_finetune" in plan.stdout, plan.stdout + plan.stderr
    first = make(copy, *command.split())
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    assert "sentiment-s1" in first.stdout.split("in per cent")[1]
    for name in ("summary.csv", "claims.csv", "layers_pos.pdf", "layers_pos.png", "layers_pos.csv", "change_pos.png"):
        assert (copy / "runs" / "figures" / "mine" / name).stat().st_size > 0

    again = make(copy, *command.split())
    assert again.returncode == 0 and " done, " not in again.stdout, again.stdout
    assert "nothing to do" in make(copy, "plan", "SCALE=mine").stdout

    yaml = block + "ranking:\n  top: 0.1\n"
    (copy / "params" / "mine.yaml").write_text(yaml, encoding="utf-8")
    changed = make(copy, "plan", "SCALE=mine").stdout.split()
    assert {c.split("/")[-1] for c in changed} == {"02_extract", "04_rank_neurons", "05_figures"}


def test_a_recording_goes_on_where_it_stopped_and_is_drawn_without_its_runs(copy: Path) -> None:
    study = (copy / "params" / "mine.yaml").read_text(encoding="utf-8")
    study = study.replace("scale: mine", "scale: kept").replace("tasks: [sentiment]", "tasks: []")
    (copy / "params" / "kept.yaml").write_text(study, encoding="utf-8")
    command = ["record", "SCALE=kept", "PROPERTIES=pos", "JOBS=2"]
    first = make(copy, *command)
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    kept = copy / "results" / "kept" / "kept"
    assert sorted(p.relative_to(kept).as_posix() for p in kept.glob("*/*")) == [
        f"{variant}/{step}" for variant in ("pretrained", "random") for step in ("layers", "neurons")
    ]
    figures = copy / "figures" / "kept"
    drawn = {p.name: p.read_bytes() for p in figures.glob("*.csv")}
    assert {"summary.csv", "claims.csv", "layers_pos.csv"} <= set(drawn)

    shutil.rmtree(copy / "runs" / "kept")
    shutil.rmtree(figures)
    shutil.rmtree(kept / "random" / "neurons")
    assert make(copy, "figures", "SCALE=kept").returncode != 0
    again = make(copy, *command)
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]
    assert sorted(re.findall(r"^  (\S+ \S+) done,", again.stdout, re.M)) == [
        "kept/random 02_extract", "kept/random 04_rank_neurons", "recorded/kept 05_figures",
    ]  # fmt: skip
    assert {p.name: p.read_bytes() for p in figures.glob("*.csv")} == drawn


def test_a_parameter_that_does_not_exist_stops_make_before_any_work(copy: Path) -> None:
    good = (copy / "params" / "minilm.yaml").read_text(encoding="utf-8")
    (copy / "params" / "wrong.yaml").write_text(
        good.replace("minilm", "wrong") + "prob:\n  epochs: 3\n", encoding="utf-8"
    )
    found = make(copy, "reproduce", "SCALE=wrong")
    assert found.returncode != 0
    assert "unknown parameter; did you mean 'probe'?" in found.stderr
    assert not (copy / "runs" / "wrong").exists()


def test_help_lists_targets_and_selectors(copy: Path) -> None:
    found = make(copy)
    assert found.returncode == 0
    for word in (
        "reproduce",
        "test",
        "doctor",
        "lab",
        "clean",
        "SCALE",
        "STUDIES",
        "SEEDS",
        "DEVICE",
        "KEEP",
        "LAUNCH",
    ):
        assert word in found.stdout
