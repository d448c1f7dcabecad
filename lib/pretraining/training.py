"""Pre-train the mini encoders: three families, one text, one budget, one schedule."""

import copy
import json
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import (
    BertConfig,
    BertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    XLNetConfig,
    XLNetLMHeadModel,
)

from lib import disk
from lib.encoders.checkpoints import multiplies_bfloat16
from lib.pretraining.objectives import Batch, draw, logits
from lib.pretraining.text import FAMILIES, READERS, Pieces, cooccurrence_embeddings
from lib.study.params import Count, Fraction, ParameterError, Penalty, Positive, nearest


@dataclass(frozen=True, config={"extra": "forbid"})
class Settings:
    """What is trained, and how. Everything but ``family`` is alike for the three encoders.

    ``text`` : sources of the text (``text.READERS``); at most ``sentences`` of each are read. ``tokenizers`` : trained
    on the text, or those of ``models/``. The trainers of WordPiece and Unigram break ties by a random order of hashing,
    so two runs from nothing are equal bit for bit only with the shipped tokenizers.

    ``length`` : pieces per window. ``batch`` : windows of that length per step. ``positions`` : longest input; every
    fourth step reads half as many windows of this length, so that all positions are trained. ``masking`` : part of the
    pieces that is predicted.

    ``stages`` : (step, reach, learning rate): until that step, how far attention reaches, and the peak learning rate of
    Adam. Attention starts with near neighbours: with the full window from step 0, nothing is learned for 8 M pieces.
    ``lr`` : the peak after the stages, when attention reaches everywhere. ``decay`` : part of the steps, at the end, in
    which the learning rate falls to zero; before, it is constant. ``weight_decay`` : of the weight matrices.
    ``embedding_std`` : of the initial word and position tables.

    ``precision`` : of forward and backward pass; auto takes bfloat16 where the hardware multiplies it, else float32.
    ``checkpoint_every`` : steps between checkpoints, and between evaluations on held-out text.
    """

    family: Literal["bert", "roberta", "xlnet"] = "bert"
    text: tuple[str, ...] = tuple(READERS)
    sentences: Count | None = None
    tokenizers: Literal["new", "shipped"] = "new"
    depth: Count = 8
    width: Count = 192
    heads: Count = 6
    vocabulary: Count = 8192
    length: Count = 64
    positions: Count = 128
    batch: Count = 16
    masking: Fraction = 0.2
    stages: tuple[tuple[Count, Count, Positive], ...] = ((2000, 2, 1e-3), (2750, 4, 5e-4), (3250, 8, 5e-4))
    steps: Count = 30_000
    warmup: Count = 300
    decay: Fraction = 0.2
    lr: Positive = 5e-4
    weight_decay: Penalty = 0.01
    embedding_std: Positive = 0.05
    seed: int = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoint_every: Count = 500

    def reach(self, step: int) -> int | None:
        """How far attention reaches at a step; None: everywhere."""
        return next((reach for until, reach, _ in self.stages if step < until), None)

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, constant within a stage, linear decay to zero at the end."""
        peak = next((lr for until, _, lr in self.stages if step < until), self.lr)
        falling = (self.steps - step) / max(1.0, self.decay * self.steps)
        return peak * min((step + 1) / self.warmup, 1.0, falling)


PRESETS = {
    "full": {},
    "lesson": {
        "text": ("wordnet",),
        "sentences": 60_000,
        "depth": 2,
        "width": 64,
        "heads": 2,
        "vocabulary": 2048,
        "length": 32,
        "positions": 64,
        "stages": ((200, 2, 3e-3),),
        "lr": 1e-3,
        "steps": 300,
        "warmup": 30,
        "checkpoint_every": 50,
    },
}
"""Overrides of the defaults of ``Settings``: none (the encoders of ``models/``), or a reduction for a lesson."""


def settings(preset: str = "full", overrides: dict[str, Any] | None = None) -> Settings:
    """The validated settings of a preset.

    Raises ParameterError for an unknown preset or setting, or a value of a wrong kind.
    """
    if preset not in PRESETS:
        raise ParameterError(f"there is no preset '{preset}'; there are {', '.join(PRESETS)}")
    try:
        return Settings(**{**PRESETS[preset], **(overrides or {})})
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        if problem["type"] == "unexpected_keyword_argument":
            names = Settings.__dataclass_fields__
            raise ParameterError(f"pre-training has no setting '{field}'{nearest(field, names)}") from error
        raise ParameterError(f"pre-training: {field} = {problem['input']!r}: {problem['msg']}") from error


def build(settings: Settings, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """The untrained model of a family, with the library's own initialisation and no dropout."""
    torch.manual_seed(settings.seed)
    ids = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "vocab_size": settings.vocabulary,
    }
    if settings.family == "xlnet":
        config = XLNetConfig(
            **ids,
            d_model=settings.width,
            n_layer=settings.depth,
            n_head=settings.heads,
            d_inner=4 * settings.width,
            dropout=0.0,
            use_mems_train=False,
            use_mems_eval=False,
        )
        return XLNetLMHeadModel(config)
    common = {
        **ids,
        "hidden_size": settings.width,
        "num_hidden_layers": settings.depth,
        "num_attention_heads": settings.heads,
        "intermediate_size": 4 * settings.width,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "attn_implementation": "eager",
    }
    if settings.family == "bert":
        return BertForMaskedLM(BertConfig(**common, max_position_embeddings=settings.positions))
    positions = settings.positions + tokenizer.pad_token_id + 1  # RoBERTa counts them from the padding id on
    return RobertaForMaskedLM(RobertaConfig(**common, max_position_embeddings=positions, type_vocab_size=1))


def initialise(model: PreTrainedModel, settings: Settings, ids: np.ndarray) -> None:
    """Start from what counting gives: neighbours, positions, frequencies; all else stays as ``build`` initialised it.

    The (tied) word table holds co-occurrence embeddings, the position table (BERT, RoBERTa) sinusoids, which XLNet
    has by design, and the output bias the logarithm of the frequencies.

    Parameters
    ----------
    ids : int [pieces], the training text.
    """
    words = cooccurrence_embeddings(ids, settings.vocabulary, settings.width, settings.embedding_std, settings.seed)
    counts = np.bincount(ids, minlength=settings.vocabulary) + 1.0
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(torch.from_numpy(words))
        model.get_output_embeddings().bias.copy_(torch.from_numpy(np.log(counts / counts.sum())))
        if settings.family != "xlnet":
            table = model.base_model.embeddings.position_embeddings.weight
            angles = torch.arange(len(table))[:, None] / 10_000 ** (torch.arange(0, settings.width, 2) / settings.width)
            waves = torch.cat([angles.sin(), angles.cos()], 1)
            table.copy_(waves * (settings.embedding_std / waves.std()))


def draw_step(text: Pieces, tokenizer: PreTrainedTokenizerFast, settings: Settings, step: int) -> Batch:
    """The batch of a step: it depends on the settings and the number of the step only, whatever came before."""
    rng = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
    length = settings.positions if step % 4 == 3 else settings.length
    rows = torch.randint(len(text.starts), (settings.batch * settings.length // length,), generator=rng)
    return draw(text, tokenizer, settings.family, settings.masking, text.starts[rows.numpy()], length, rng)


def wants_bfloat16(settings: Settings, device: torch.device) -> bool:
    """Whether forward and backward pass are in bfloat16; the weights that are updated are always float32."""
    return settings.precision == "bfloat16" or (settings.precision == "auto" and multiplies_bfloat16(device))


def loss_of(model: PreTrainedModel, batch: Batch, reach: int | None) -> Tensor:
    """Mean cross-entropy of the pieces to be predicted, in nats."""
    batch = Batch(*(tensor.to(model.device) for tensor in (batch.ids, batch.targets, batch.labels)))
    return F.cross_entropy(logits(model, batch, reach).flatten(0, 1).float(), batch.labels.flatten())


@torch.no_grad()
def held_out_loss(
    model: PreTrainedModel,
    text: Pieces,
    tokenizer: PreTrainedTokenizerFast,
    settings: Settings,
    reach: int | None,
) -> float:
    """Mean cross-entropy, in nats, of masked (XLNet: last) pieces in fixed windows of held-out text."""
    rng, losses = torch.Generator().manual_seed(settings.seed), []
    starts = text.starts[:512]
    parts = np.array_split(starts, max(1, len(starts) // 32))
    for part in parts:
        batch = draw(text, tokenizer, settings.family, settings.masking, part, settings.length, rng, noise=False)
        losses.append(loss_of(model, batch, reach).item())
    return float(np.average(losses, weights=[len(part) for part in parts]))


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    text: Pieces,
    held_out: Pieces,
    settings: Settings,
    folder: Path,
    device: str = "cpu",
    stop_at: int | None = None,
) -> list[dict[str, float]]:
    """Train, or go on training, and return the log.

    A resumed run equals an uninterrupted one, bit for bit on the same machine and thread count.

    Parameters
    ----------
    model : from ``build`` and ``initialise``; overwritten by the checkpoint if there is one.
    folder : where the checkpoint (``last.pt``) and the log (``log.jsonl``) are.
    stop_at : stop after this step, with a checkpoint.

    Returns
    -------
    One row per checkpoint: step, pieces read, seconds (by the clock and of the processor), training loss since the row
    before, held-out loss (both within the reach of that step).
    """
    model.to(device).train()
    low = wants_bfloat16(settings, model.device)
    work = copy.deepcopy(model).to(torch.bfloat16) if low else model
    masters, workers = list(model.parameters()), list(work.parameters())
    groups = [
        {"params": [p for p in masters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in masters if p.ndim == 1], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, settings.lr, (0.9, 0.98), fused=True)
    log: list[dict[str, float]] = []
    if (folder / "last.pt").exists():
        state = torch.load(folder / "last.pt", map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        adam.load_state_dict(state["adam"])
        log = state["log"]
    last = log[-1] if log else {"step": 0, "seconds": 0, "processor_seconds": 0}
    done, began = int(last["step"]), time.monotonic() - last["seconds"]
    busy = time.process_time() - last["processor_seconds"]
    losses, end = [], min(settings.steps, stop_at or settings.steps)
    bar = tqdm(
        total=settings.steps,
        initial=done,
        unit="step",
        desc=f"{settings.family}-mini",
        position=FAMILIES.index(settings.family),
        mininterval=5,
    )
    for step in range(done + 1, end + 1):
        if low:
            with torch.no_grad():
                torch._foreach_copy_(workers, masters)
        reach = settings.reach(step - 1)
        loss = loss_of(work, draw_step(text, tokenizer, settings, step - 1), reach)
        loss.backward()
        if low:
            for master, worker in zip(masters, workers, strict=True):
                master.grad = None if worker.grad is None else worker.grad.float()
                worker.grad = None
        for group in adam.param_groups:
            group["lr"] = settings.rate(step - 1)
        adam.step()
        adam.zero_grad()
        losses.append(loss.detach())
        bar.update()
        if step % settings.checkpoint_every == 0 or step == end:
            row = {
                "step": step,
                "pieces": step * settings.batch * settings.length,
                "seconds": round(time.monotonic() - began, 1),
                "processor_seconds": round(time.process_time() - busy, 1),
                "loss": float(torch.stack(losses).mean()),
                "held_out": held_out_loss(model.eval(), held_out, tokenizer, settings, reach),
            }
            model.train()
            log, losses = [*log, row], []
            bar.set_postfix(loss=f"{row['loss']:.3f}", held_out=f"{row['held_out']:.3f}")
            with disk.atomic_write(folder / "last.pt") as part:
                torch.save({"model": model.state_dict(), "adam": adam.state_dict(), "log": log}, part)
            (folder / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in log), encoding="utf-8")
    bar.close()
    return log


def export(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> str:
    """Save weights (float16 safetensors), configuration and tokenizer; return the SHA-256 of the weights.

    The configuration says float32, in which the weights are to be used.
    """
    halves = {t.data_ptr(): t.half() for t in model.state_dict().values()}  # the tied table once
    model.save_pretrained(folder, state_dict={name: halves[t.data_ptr()] for name, t in model.state_dict().items()})
    tokenizer.save_pretrained(folder)
    return disk.file_digest(folder / "model.safetensors")
