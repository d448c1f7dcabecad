"""The pre-training at a size that takes seconds: text, tokenizers, objectives, resuming, export."""

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from lib import results
from lib.pretraining import minis, objectives
from lib.pretraining import text as prose
from lib.pretraining import training as pretrain
from lib.results.summary import pick
from lib.study import loading, params

NOUNS = ["cat", "dog", "bird", "fish", "horse", "cow", "sheep", "fox"]
VERBS = ["sees", "likes", "hears", "follows", "finds", "wants"]
TINY = pretrain.Settings(
    depth=2, width=32, heads=2, vocabulary=300, length=16, positions=32, batch=4, steps=40, warmup=4, decay=0.5,
    stages=((8, 2, 3e-3),), lr=3e-3, checkpoint_every=10,
)  # fmt: skip


@pytest.fixture(scope="module")
def text() -> prose.Prose:
    rng = np.random.default_rng(0)

    def sentences():
        for n in range(12_000):
            a, b = rng.choice(NOUNS, 2)
            yield f"The {rng.choice(['old', 'young', 'big'])} {a} number {n} {rng.choice(VERBS)} (we know) the {b}."

    return prose.prepare({"made up": sentences()})


@pytest.fixture(scope="module", params=prose.FAMILIES)
def made(request, text):
    settings = dataclasses.replace(TINY, family=request.param)
    tokenizer = prose.train_tokenizer(request.param, text.train, settings.vocabulary)
    train, held_out = (prose.encode(tokenizer, s, settings.length, settings.positions)
                       for s in (text.train, text.held_out))  # fmt: skip
    return settings, tokenizer, train, held_out


def fresh(settings, tokenizer, train):
    model = pretrain.build(settings, tokenizer)
    pretrain.initialise(model, settings, train.ids)
    return model


def draw(train, tokenizer, settings, windows):
    rng = torch.Generator().manual_seed(0)
    starts = train.starts[:windows]
    family, masking, length = settings.family, settings.masking, settings.length
    return objectives.draw(train, tokenizer, family, masking, starts, length, rng, noise=False)


def test_prose_is_filtered_deduplicated_and_split():
    found = prose.prepare({"a": ["One two three four.", "one two three four!", "12 34 56 78", "short",
                                 "He said to them (so we heard) — “yes, indeed”, and left the house."]})  # fmt: skip
    assert found.counts["a"] == dict(read=5, refused=2, repeated=1, studied=0, kept=2, words=25)
    spaced = 'He said to them ( so we heard ) - " yes , indeed " , and left the house .'
    assert found.train == ["One two three four.", spaced]


def test_sentences_to_be_studied_are_left_out():
    found = prose.prepare(
        {"a": ["The cat sat on the mat.", "The dog sat there."]}, {prose.form("the cat sat on the mat")}
    )
    assert found.train == ["The dog sat there."] and found.counts["a"]["studied"] == 1


def test_held_out_sentences_are_not_trained_on(text):
    assert len(text.held_out) == pytest.approx(0.01 * len(text.train), rel=0.2)
    assert not set(text.held_out) & set(text.train)


def test_tokenizer_puts_special_tokens_where_the_family_does(made):
    settings, tok, *_ = made
    tokens = tok.convert_ids_to_tokens(tok(["the", "cat"], is_split_into_words=True)["input_ids"])
    first, last = {"bert": ("[CLS]", "[SEP]"), "roberta": ("<s>", "</s>"), "xlnet": (None, "<cls>")}[settings.family]
    assert tokens[-1] == last and (first is None or tokens[0] == first)
    assert len(tok) <= settings.vocabulary
    masked = tok.convert_ids_to_tokens(tok(f"the {tok.mask_token} cat", add_special_tokens=False)["input_ids"])
    assert masked.index(tok.mask_token) == len(tok.tokenize("the"))
    padded = tok(["cat", "the old cat"], padding=True)["input_ids"]
    assert (padded[0][0] == tok.pad_token_id) == (settings.family == "xlnet")


def test_batches_show_the_text_and_hide_the_targets(made):
    settings, tok, train, _ = made
    batch = draw(train, tok, settings, 6)
    assert batch.ids.shape == (6, 16) and batch.targets.shape == batch.labels.shape == (6, 3)
    seen = batch.ids.gather(1, batch.targets)
    assert torch.equal(seen, batch.labels) if settings.family == "xlnet" else (seen == tok.mask_token_id).all()
    assert not (batch.labels == tok.cls_token_id).any()
    long = pretrain.draw_step(train, tok, settings, 3)
    assert long.ids.shape == (2, settings.positions)


def test_two_streams_are_those_of_the_library(text):
    settings = dataclasses.replace(TINY, family="xlnet")
    tok = prose.train_tokenizer("xlnet", text.train, settings.vocabulary)
    model = pretrain.build(settings, tok).eval()
    for p in model.parameters():
        p.data.normal_(0, 0.3)
    ids = torch.randint(7, settings.vocabulary, (3, 12))
    targets = torch.rand(3, 12).argsort(1)[:, :4]
    order = torch.full((3, 12), -1).scatter(1, targets, torch.arange(4).expand(3, 4))
    hidden = (order[:, :, None].clamp_min(0) <= order[:, None]) & (order[:, None] >= 0)
    mapping = torch.zeros(3, 4, 12).scatter_(2, targets[..., None], 1)
    with torch.no_grad():
        ours = model.lm_loss(objectives.two_streams(model, ids, targets))
        theirs = model(ids, perm_mask=hidden.float(), target_mapping=mapping, use_mems=False).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_prediction_never_depends_on_what_it_predicts(made):
    settings, tok, train, _ = made
    model = fresh(settings, tok, train).eval()
    batch = draw(train, tok, settings, 2)
    last = batch.targets[:, -1:]
    other = dataclasses.replace(batch, ids=batch.ids.scatter(1, last, 9)) if settings.family == "xlnet" else batch
    for reach in (None, 1):
        with torch.no_grad():
            a, b = objectives.logits(model, batch, reach), objectives.logits(model, other, reach)
        assert a.isfinite().all()
        torch.testing.assert_close(a, b)


def test_a_killed_run_resumes_to_the_same_loss(made, tmp_path):
    settings, tok, train, held_out = made
    torch.set_num_threads(1)
    whole = pretrain.train(fresh(settings, tok, train), tok, train, held_out, settings, tmp_path / "a")
    pretrain.train(fresh(settings, tok, train), tok, train, held_out, settings, tmp_path / "b", stop_at=20)
    (tmp_path / "b" / ".last.pt.part").write_bytes(b"half a checkpoint")
    model = fresh(settings, tok, train)
    resumed = pretrain.train(model, tok, train, held_out, settings, tmp_path / "b")
    assert [(r["loss"], r["held_out"]) for r in resumed] == [(r["loss"], r["held_out"]) for r in whole]
    assert whole[-1]["held_out"] < whole[0]["held_out"]
    assert len(json.loads((tmp_path / "a" / "log.jsonl").read_text().splitlines()[0])) == 6


def test_export_loads_as_a_standard_model(made, tmp_path):
    settings, tok, train, _ = made
    model = fresh(settings, tok, train).eval()
    assert len(pretrain.export(model, tok, tmp_path)) == 64
    loaded, tokenizer = AutoModel.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.dtype == torch.float32 and loaded.config.num_hidden_layers == settings.depth
    assert tokenizer("The old cat")["input_ids"] == tok("The old cat")["input_ids"]
    ours, theirs = model.get_input_embeddings().weight, loaded.get_input_embeddings().weight
    torch.testing.assert_close(theirs, ours.half().float())
    if settings.family != "xlnet":
        head = AutoModelForMaskedLM.from_pretrained(tmp_path)
        assert head.get_output_embeddings().weight is head.get_input_embeddings().weight


def test_the_whole_way_from_text_to_encoder(text, tmp_path):
    settings = dataclasses.replace(TINY, family="xlnet", steps=20)
    digest = minis.pretrain_one(text, settings, tmp_path)
    assert digest == minis.pretrain_one(text, settings, tmp_path)
    assert AutoModel.from_pretrained(tmp_path / "xlnet-mini").config.n_layer == settings.depth


def test_a_card_says_what_was_measured(text, tmp_path):
    settings = dataclasses.replace(TINY, family="bert", steps=10)
    digest = minis.pretrain_one(text, settings, tmp_path)
    accuracy = pick(results.from_csv(params.ROOT / "models" / "quality.csv"), study="bert-mini")
    source = {"counts": {"wordnet": text.counts["made up"]}, "sha256": text.sha256}
    minis.describe(tmp_path, settings, source, loading.load("bert-mini").corpus, accuracy)
    card = (tmp_path / "bert-mini" / "README.md").read_text(encoding="utf-8")
    reached = minis.marks(accuracy)["context"]
    log = pd.read_csv(tmp_path / "bert-mini" / "log.csv").iloc[-1]
    assert f"ambiguous words (points) | {reached:+.1f} | +8 |" in card
    assert f"{log['held_out']:.2f} nats; the unigram entropy of those pieces is {log['entropy']:.2f}" in card
    assert digest in card and text.sha256 in card
    assert not re.search(r"\{\w+\}", card)
