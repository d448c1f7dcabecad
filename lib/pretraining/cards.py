"""Model cards of the mini encoders, written from what was measured."""

import hashlib
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import AutoModel

from lib.pretraining import quality
from lib.pretraining.training import Settings, cpu_info
from lib.results.summary import pick
from lib.sources import SOURCES
from lib.study.params import Corpus

FAMILY = {
    "bert": ("BERT", "WordPiece", "masked language model", "Devlin et al. 2019, without next-sentence prediction"),
    "roberta": ("RoBERTa", "byte-level BPE", "masked language model, masked anew at every reading", "Liu et al. 2019"),
    "xlnet": ("XLNet", "Unigram (as SentencePiece)", "permutation language model, two streams of attention; the "
              "content stream reads the text unmasked; no memory, no token types", "Yang et al. 2019"),
}  # fmt: skip


def card(
    mine: Settings, folder: Path, text: dict[str, Any], pieces: int, log: list[dict[str, float]], entropy: float,
    corpus: Corpus, accuracy: pd.DataFrame,
) -> str:  # fmt: skip
    """The card of one encoder, in Markdown.

    Parameters
    ----------
    folder : where its weights are.
    text : ``counts`` per source and ``sha256`` of the text (``prose.Prose``).
    pieces : length of the training text in pieces.
    log : rows of ``pretrain.train``.
    entropy : unigram entropy of the held-out pieces, in nats.
    corpus : what the probes were trained and tested on.
    accuracy : as ``quality.table`` gives it.
    """
    name, tokenizer, objective, source = FAMILY[mine.family]
    weights = (folder / "model.safetensors").read_bytes()
    size = sum(p.numel() for p in AutoModel.from_pretrained(folder).parameters())
    end, hours = log[-1], log[-1]["processor_seconds"] / 3600
    read, command = end["pieces"], "make pretrain"
    facts = {
        "architecture": f"{name}: {mine.depth} layers of width {mine.width}, {mine.heads} heads, "
                        f"{mine.vocabulary:,} pieces, {size / 1e6:.1f} M parameters; cased",
        "tokenizer": f"{tokenizer}, trained on the same text",
        "objective": f"{objective} ({source})",
        "text": f"{sum(c['kept'] for c in text['counts'].values()):,} sentences of English, see below; "
                f"{pieces / 1e6:.2f} M pieces, each read {read / pieces:.1f} times",
        "pieces read": f"{read / 1e6:.1f} M in {end['step']:,.0f} steps of {mine.batch * mine.length:,}",
        "held-out loss": f"{end['held_out']:.2f} nats; the unigram entropy of those pieces is {entropy:.2f}",
        "made on": f"{machine()}; {hours:.1f} hours of one core" if end["processor_seconds"] else machine(),
        "made by": f"`{command}` (settings: `lib/pretraining/training.py`). With the tokenizers given, "
                   "`SETTINGS='{\"tokenizers\": \"shipped\"}'`, it is equal bit for bit on the same machine",
        "weights": f"`model.safetensors`, float16, {len(weights) / 1e6:.2f} MB, SHA-256 "
                   f"`{hashlib.sha256(weights).hexdigest()}`",
    }  # fmt: skip
    return (Path(__file__).parent / "card.md").read_text(encoding="utf-8").format(
        family=mine.family, name=name, masked=f"{mine.masking:.0%}",
        train_words=f"{corpus.train_words:,}", test_words=f"{corpus.test_words:,}",
        pipeline="text-generation" if mine.family == "xlnet" else "fill-mask",
        facts="\n".join(f"| {k} | {v} |" for k, v in facts.items()), good=good(accuracy, entropy - end["held_out"]),
        layers=layers(accuracy), sources=sources(text["counts"]), text_sha=text["sha256"], recipe=recipe(mine),
        positions=mine.positions, limits=LIMITS[mine.family],
    )  # fmt: skip


def good(accuracy: pd.DataFrame, gain: float) -> str:
    """The marks of an encoder beside what is wanted, as rows of a table."""
    found = {**quality.marks(accuracy), "loss": gain}
    said = {
        "context": "best layer above the embedding layer, ambiguous words (points)",
        "lookup": "best layer above a look-up of word types, ambiguous words (points)",
        "random": "best layer above the random encoder's best, all words (points)",
        "loss": "held-out loss under the unigram entropy (nats)",
    }
    return "\n".join(f"| {said[k]} | {v:+.1f} | {quality.MARKS[k]:+.0f} |" for k, v in found.items())


def layers(accuracy: pd.DataFrame) -> str:
    """Accuracy per layer, as rows of a table."""
    wide = accuracy.pivot_table(index="layer", columns=["variant", "word_group"], values="accuracy")
    columns = [("pretrained", "all"), ("pretrained", "ambiguous"), ("pretrained", "unseen"), ("random", "all")]
    names = {-1: "look-up", 0: "0 (embeddings)"}
    rows = []
    for layer, values in (100 * wide[columns]).iterrows():
        cells = [f"{v:.1f}" for v in values[: 3 if layer < 0 else 4]] + [""] * (layer < 0)
        rows.append(" | ".join(["", names.get(layer, str(layer)), *cells, ""]).strip())
    return "\n".join(rows)


def sources(counts: dict[str, dict[str, int]]) -> str:
    """Where the text is from, as rows of a table."""
    return "\n".join(
        f"| {name} ({SOURCES[name].package} {SOURCES[name].version}) | {c['read']:,} | {c['refused']:,} | "
        f"{c['repeated']:,} | {c['studied']:,} | {c['kept']:,} | {c['words']:,} | {SOURCES[name].licence} |"
        for name, c in counts.items()
    )


def recipe(mine: Settings) -> str:
    """The schedule, as prose."""
    stages = "; ".join(
        f"up to step {until:,} attention reaches {reach} pieces, peak learning rate {lr:g}"
        for until, reach, lr in mine.stages
    )
    fewer, last = mine.batch * mine.length // mine.positions, f"{mine.decay:.0%}"
    return (
        f"{mine.batch} windows of {mine.length} pieces a step, every fourth step {fewer} of {mine.positions}; "
        f"{stages}; then all of the window, {mine.lr:g}. AdamW, weight decay {mine.weight_decay:g}, warm-up "
        f"{mine.warmup} steps, constant, linear decay over the last {last} of the steps. No dropout."
    )


def overview(root: Path) -> str:
    """How good the encoders in a folder are, side by side, in Markdown; from its ``quality.csv`` and their logs."""
    table = pd.read_csv(root / "quality.csv")
    rows = [
        "| encoder | ambiguous words: embeddings → best layer | above look-up | all words: best layer "
        "| above random weights | held-out loss under unigram entropy | pieces read |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for family in FAMILY:
        mine = pick(table, study=f"{family}-mini")
        probes, marks = pick(mine, variant="pretrained", target="real"), quality.marks(mine)
        unclear, every = (100 * pick(probes, word_group=w).set_index("layer")["accuracy"] for w in ("ambiguous", "all"))
        end = pd.read_csv(root / f"{family}-mini" / "log.csv").iloc[-1]
        rows.append(
            f"| [{family}-mini](models/{family}-mini/README.md) | {unclear[0]:.1f} → {unclear.max():.1f} % (layer "
            f"{unclear.idxmax()}) | {marks['lookup']:+.1f} | {every.max():.1f} % | {marks['random']:+.1f} | "
            f"{end['entropy'] - end['held_out']:.2f} nats | {end['pieces'] / 1e6:.1f} M |"
        )
    return "\n".join(rows)


def machine() -> str:
    """The processor or GPU and the version of PyTorch."""
    named = re.search(r"model name\s*:\s*(.+)", cpu_info())
    chip = torch.cuda.get_device_name() if torch.cuda.is_available() else named[1] if named else platform.machine()
    return f"{chip}, PyTorch {version('torch')}"


LIMITS = {
    "bert": "There was no next-sentence prediction, so the pooler is not trained: it is drawn at random at loading.",
    "roberta": "Positions are counted from the padding id on, as in the original.",
    "xlnet": "Read without memory (`use_mems=False`); padding is on the left, `<cls>` at the end.",
}
