"""From nothing to the three mini encoders: text, tokenizers, models, how good they are, and their model cards."""

import dataclasses
import json
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import AutoModel, PreTrainedTokenizerFast

from lib import disk, results
from lib.pretraining import training
from lib.pretraining.text import FAMILIES, Pieces, Prose, encode, registry_prose, train_tokenizer, unigram_entropy
from lib.pretraining.training import Settings
from lib.sources import SOURCES
from lib.study import loading, params, runs
from lib.study.params import Corpus, Study
from lib.study.runs import Run
from lib.study.variants import Variant

MARKS = {"context": 8.0, "lookup": 8.0, "random": 10.0, "loss": 2.0}
"""What an encoder must reach to be worth a study of context: points of accuracy (``marks``), and nats of held-out loss
under the unigram entropy."""

CARDS = {
    "bert": (
        "BERT",
        "WordPiece",
        "masked language model",
        "Devlin et al. 2019, without next-sentence prediction",
        "There was no next-sentence prediction, so the pooler is not trained: it is drawn at random at loading.",
    ),
    "roberta": (
        "RoBERTa",
        "byte-level BPE",
        "masked language model, masked anew at every reading",
        "Liu et al. 2019",
        "Positions are counted from the padding id on, as in the original.",
    ),
    "xlnet": (
        "XLNet",
        "Unigram (as SentencePiece)",
        "permutation language model, two streams of attention; the content stream reads the text unmasked; no memory, "
        "no token types",
        "Yang et al. 2019",
        "Read without memory (`use_mems=False`); padding is on the left, `<cls>` at the end.",
    ),
}
"""Family → what its card says: name, kind of tokenizer, objective, its source, limits."""


# Pre-training ----------------------------------------------------------------------------------------------------


def pretrain(preset: str = "full", overrides: dict[str, Any] | None = None, device: str = "auto") -> Path:
    """Train the three encoders, measure how good they are, write their cards; resumes, and redoes nothing finished.

    Returns
    -------
    The folder, ``runs/pretrain`` (or ``runs/<preset>/pretrain`` for a reduction): ``<family>-mini`` (weights,
    tokenizer, card, ``log.csv``), ``quality.csv``, and the working files.

    Raises
    ------
    ParameterError : unknown settings, or a folder that holds a run of other settings or text.
    """
    common = training.settings(preset, overrides)
    folder = runs.home() / ("pretrain" if preset == "full" else f"{preset}/pretrain")
    if device in ("", "auto"):
        device = "cuda" if torch.cuda.is_available() else "cpu"
    prose = registry_prose(common.text, common.sentences)
    state = {"settings": dataclasses.asdict(common), "text": {"sha256": prose.sha256, "counts": prose.counts}}
    content = json.dumps(state, indent=1)
    with disk.lock(folder):
        if disk.read_json(folder / "state.json") not in (None, json.loads(content)):
            raise params.ParameterError(f"{folder} holds a pre-training of other settings or text: move or delete it")
        with disk.atomic_write(folder / "state.json") as part:
            part.write_text(content, encoding="utf-8")
        pretrain_all(prose, common, folder, device)
        tables = []
        for family in FAMILIES:
            study = study_of(folder, family, preset)
            accuracy = probe_accuracy(study)
            tables.append(accuracy.assign(study=f"{family}-mini"))
            describe(folder, dataclasses.replace(common, family=family), state["text"], study.corpus, accuracy)
        pd.concat(tables).round(4).to_csv(folder / "quality.csv", index=False)
    return folder


def make_and_compare(preset: str, settings: dict[str, Any], device: str) -> None:
    """For Make: ``pretrain`` the encoders, and print whether each is the shipped one."""
    folder = pretrain(preset, settings, device)
    for name in (f"{family}-mini" for family in FAMILIES):
        own, shipped = folder / name / "model.safetensors", params.ROOT / "models" / name / "model.safetensors"
        same = shipped.exists() and disk.file_digest(own) == disk.file_digest(shipped)
        print(f"{own.parent}: {'the same weights as' if same else 'other weights than'} models/{name}")


def pretrain_all(prose: Prose, common: Settings, folder: Path, device: str = "cpu") -> None:
    """Train the three encoders, as many at a time as there are cores, one process with one thread each."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, 3), context, initializer=_end_with_parent) as pool:
        longest_first = [dataclasses.replace(common, family=family) for family in ("xlnet", "bert", "roberta")]
        for result in [pool.submit(pretrain_one, prose, each, folder, device) for each in longest_first]:
            result.result()


def _end_with_parent() -> None:
    """End when the parent ends, however it ends: the run that resumes must be alone with the files."""

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def pretrain_one(prose: Prose, settings: Settings, folder: Path, device: str = "cpu") -> str:
    """Train one encoder into ``<folder>/<family>-mini``, or go on training; returns the SHA-256 of its weights."""
    torch.set_num_threads(1)
    work = folder / settings.family
    tokenizer, text, held_out = prepared(prose, settings, work)
    model = training.build(settings, tokenizer)
    if not (work / "last.pt").exists():
        training.initialise(model, settings, text.ids)
    training.train(model, tokenizer, text, held_out, settings, work, device)
    return training.export(model, tokenizer, folder / f"{settings.family}-mini")


def prepared(prose: Prose, settings: Settings, work: Path) -> tuple[PreTrainedTokenizerFast, Pieces, Pieces]:
    """The tokenizer of a family, and its pieces of the training and held-out text; computed once, kept in ``work``."""
    file = work / "pieces.npz"
    if not file.exists():
        if settings.tokenizers == "shipped":
            tokenizer = PreTrainedTokenizerFast.from_pretrained(params.ROOT / "models" / f"{settings.family}-mini")
        else:
            tokenizer = train_tokenizer(settings.family, prose.train, settings.vocabulary)
        tokenizer.save_pretrained(work)
        train = encode(tokenizer, prose.train, settings.length, settings.positions)
        held_out = encode(tokenizer, prose.held_out, settings.length, settings.positions)
        with disk.atomic_write(file) as part, part.open("wb") as stream:
            np.savez(
                stream,
                train_ids=train.ids,
                train_starts=train.starts,
                held_out_ids=held_out.ids,
                held_out_starts=held_out.starts,
            )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(work, model_max_length=settings.positions)
    data = np.load(file)
    text = Pieces(data["train_ids"], data["train_starts"])
    return tokenizer, text, Pieces(data["held_out_ids"], data["held_out_starts"])


# How good an encoder is ------------------------------------------------------------------------------------------


def study_of(folder: Path, family: str, preset: str) -> Study:
    """The study that measures an encoder in ``folder``: that of its shipped sister, under a name of its own.

    With the preset "full" it takes 40,000 training words; the studies take fewer, to be quick.
    """
    overrides: dict[str, Any] = {"encoder.checkpoint": str(folder / f"{family}-mini"), "properties": ["pos"]}
    if preset == "full":
        overrides["corpus.train_words"] = 40_000
    return loading.load(f"{family}-mini", preset, overrides).model_copy(update={"name": f"pretrain/{family}"})


def probe_accuracy(study: Study) -> pd.DataFrame:
    """Test accuracy of the probes on every layer of an encoder and of its random twin; deletes their activations.

    Returns
    -------
    As ``results.accuracies`` gives it, of the variants pretrained and random: target real, and lookup at layer -1.
    """
    twins = [Run(study, Variant(start)) for start in ("pretrained", "random")]
    accuracy = results.accuracies(results.layers(twins))
    for run in twins:
        disk.remove(run.result("extract"))
    return accuracy[accuracy["target"].isin(["real", "lookup"])]


def marks(accuracy: pd.DataFrame) -> dict[str, float]:
    """What decides whether an encoder is good enough, in points; ``accuracy`` as ``probe_accuracy`` gives it.

    ``context`` : best layer minus embedding layer, on ambiguous words. ``lookup`` : best layer minus look-up, on them.
    ``random`` : best layer minus the random encoder's best layer, on all words.
    """
    points = 100 * accuracy.pivot_table(index="layer", columns=["variant", "word_group"], values="accuracy")
    best, ambiguous = points.drop(-1).max(), points["pretrained", "ambiguous"]
    return {
        "context": best["pretrained", "ambiguous"] - ambiguous[0],
        "lookup": best["pretrained", "ambiguous"] - ambiguous[-1],
        "random": best["pretrained", "all"] - best["random", "all"],
    }


# The model card --------------------------------------------------------------------------------------------------


def describe(folder: Path, settings: Settings, text: dict[str, Any], corpus: Corpus, accuracy: pd.DataFrame) -> None:
    """Write card and loss curve beside the weights of an encoder.

    Parameters
    ----------
    text : ``counts`` per source and ``sha256`` of the text (``text.Prose``).
    corpus : what the probes were trained and tested on.
    accuracy : as ``probe_accuracy`` gives it.
    """
    encoder, work = folder / f"{settings.family}-mini", folder / settings.family
    log = torch.load(work / "last.pt", map_location="cpu", weights_only=True)["log"]
    pieces = np.load(work / "pieces.npz")
    entropy = unigram_entropy(pieces["held_out_ids"])
    computer = runs.provenance()
    chip = torch.cuda.get_device_name() if torch.cuda.is_available() else computer["processor"]
    pd.DataFrame(log).assign(entropy=entropy).to_csv(encoder / "log.csv", index=False)
    name, tokenizer, objective, source, limits = CARDS[settings.family]
    weights, end, length = encoder / "model.safetensors", log[-1], len(pieces["train_ids"])
    size = sum(p.numel() for p in AutoModel.from_pretrained(encoder).parameters())
    hours = f"; {end['processor_seconds'] / 3600:.1f} hours of one core" if end["processor_seconds"] else ""
    facts = {
        "architecture": f"{name}: {settings.depth} layers of width {settings.width}, {settings.heads} heads, "
        f"{settings.vocabulary:,} pieces, {size / 1e6:.1f} M parameters; cased",
        "tokenizer": f"{tokenizer}, trained on the same text",
        "objective": f"{objective} ({source})",
        "text": f"{sum(c['kept'] for c in text['counts'].values()):,} sentences of English, see below; "
        f"{length / 1e6:.2f} M pieces, each read {end['pieces'] / length:.1f} times",
        "pieces read": f"{end['pieces'] / 1e6:.1f} M in {end['step']:,.0f} steps of "
        f"{settings.batch * settings.length:,}",
        "held-out loss": f"{end['held_out']:.2f} nats; the unigram entropy of those pieces is {entropy:.2f}",
        "made on": f"{chip}, PyTorch {computer['torch']}{hours}",
        "made by": "`make pretrain` (settings: `lib/pretraining/training.py`). With the shipped tokenizers, "
        '`SETTINGS=\'{"tokenizers": "shipped"}\'`, it is equal bit for bit on the same machine',
        "weights": f"`model.safetensors`, float16, {weights.stat().st_size / 1e6:.2f} MB, SHA-256 "
        f"`{disk.file_digest(weights)}`",
    }
    card = (
        (Path(__file__).parent / "card.md")
        .read_text(encoding="utf-8")
        .format(
            family=settings.family,
            name=name,
            masked=f"{settings.masking:.0%}",
            train_words=f"{corpus.train_words:,}",
            test_words=f"{corpus.test_words:,}",
            pipeline="text-generation" if settings.family == "xlnet" else "fill-mask",
            facts="\n".join(f"| {key} | {value} |" for key, value in facts.items()),
            marks=_mark_rows({**marks(accuracy), "loss": entropy - end["held_out"]}),
            layers=_layer_rows(accuracy),
            sources=_source_rows(text["counts"]),
            text_sha=text["sha256"],
            recipe=_recipe(settings),
            positions=settings.positions,
            limits=limits,
        )
    )
    (encoder / "README.md").write_text(card, encoding="utf-8")


def _mark_rows(reached: dict[str, float]) -> str:
    meaning = {
        "context": "best layer above the embedding layer, ambiguous words (points)",
        "lookup": "best layer above a look-up of word types, ambiguous words (points)",
        "random": "best layer above the random encoder's best, all words (points)",
        "loss": "held-out loss under the unigram entropy (nats)",
    }
    return "\n".join(f"| {meaning[name]} | {reached[name]:+.1f} | {least:+.0f} |" for name, least in MARKS.items())


def _layer_rows(accuracy: pd.DataFrame) -> str:
    wide = accuracy.pivot_table(index="layer", columns=["variant", "word_group"], values="accuracy")
    columns = [("pretrained", "all"), ("pretrained", "ambiguous"), ("pretrained", "unseen"), ("random", "all")]
    names = {-1: "look-up", 0: "0 (embeddings)"}
    rows = []
    for layer, values in (100 * wide[columns]).iterrows():
        cells = [f"{v:.1f}" for v in values[: 3 if layer < 0 else 4]] + [""] * (layer < 0)
        rows.append(" | ".join(["", names.get(layer, str(layer)), *cells, ""]).strip())
    return "\n".join(rows)


def _source_rows(counts: dict[str, dict[str, int]]) -> str:
    return "\n".join(
        f"| {name} ({SOURCES[name].package} {SOURCES[name].version}) | {c['read']:,} | {c['refused']:,} | "
        f"{c['repeated']:,} | {c['studied']:,} | {c['kept']:,} | {c['words']:,} | {SOURCES[name].licence} |"
        for name, c in counts.items()
    )


def _recipe(settings: Settings) -> str:
    stages = "; ".join(
        f"up to step {until:,} attention reaches {reach} pieces, peak learning rate {lr:g}"
        for until, reach, lr in settings.stages
    )
    fewer = settings.batch * settings.length // settings.positions
    return (
        f"{settings.batch} windows of {settings.length} pieces a step, every fourth step {fewer} of "
        f"{settings.positions}; {stages}; then all of the window, {settings.lr:g}. AdamW, weight decay "
        f"{settings.weight_decay:g}, warm-up {settings.warmup} steps, constant, linear decay over the last "
        f"{settings.decay:.0%} of the steps. No dropout."
    )
