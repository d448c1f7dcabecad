"""Objectives: what each family reads and predicts. Masked pieces (BERT, RoBERTa); pieces in any order (XLNet)."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import BertForMaskedLM, PreTrainedModel, PreTrainedTokenizerFast, XLNetLMHeadModel

from lib.pretraining.text import Pieces, encode


@dataclass(frozen=True)
class Batch:
    """One step's windows and what is to be predicted in them.

    ``ids`` : int64 [batch, length], the pieces that the model reads (XLNet: the text itself; BERT, RoBERTa: partly
    masked). ``targets`` : int64 [batch, predicted], positions to predict; for XLNet in the order of prediction.
    ``labels`` : int64 [batch, predicted], the pieces at those positions.
    """

    ids: Tensor
    targets: Tensor
    labels: Tensor


def draw(
    text: Pieces,
    tokenizer: PreTrainedTokenizerFast,
    family: str,
    masking: float,
    windows: np.ndarray,
    length: int,
    rng: torch.Generator,
    noise: bool = True,
) -> Batch:
    """Cut windows out of the text and choose what is to be predicted.

    A window starts with a sentence; BERT's and RoBERTa's get the classification token in front, XLNet's at the end.
    BERT and RoBERTa read, at the chosen positions, the mask (80 %), a random piece (10 %) or the piece itself (10 %).

    Parameters
    ----------
    masking : part of the pieces that is predicted.
    windows : int [batch], where they start in ``text.ids``.
    length : pieces per window, the classification token included.
    noise : False masks every chosen position (for evaluation).
    """
    pieces = torch.from_numpy(text.ids[windows[:, None] + np.arange(length - 1)].astype(np.int64))
    cls = torch.full((len(pieces), 1), tokenizer.cls_token_id)
    ids = torch.cat([pieces, cls] if family == "xlnet" else [cls, pieces], 1)
    chance = torch.rand(ids.shape, generator=rng).masked_fill(ids == tokenizer.cls_token_id, 2)
    targets = chance.argsort(1)[:, : round(masking * length)]
    labels = ids.gather(1, targets)
    if family != "xlnet":
        dice = torch.rand(targets.shape, generator=rng)
        other = torch.randint(len(tokenizer), targets.shape, generator=rng)
        shown = torch.full_like(labels, tokenizer.mask_token_id)
        if noise:
            shown = torch.where(dice < 0.8, shown, torch.where(dice < 0.9, other, labels))
        ids = ids.scatter(1, targets, shown)
    return Batch(ids, targets, labels)


def logits(model: PreTrainedModel, batch: Batch, reach: int | None = None) -> Tensor:
    """Predictions at the target positions only: float [batch, predicted, vocabulary]."""
    if isinstance(model, XLNetLMHeadModel):
        return model.lm_loss(two_streams(model, batch.ids, batch.targets, reach))
    body, head = (model.bert, model.cls) if isinstance(model, BertForMaskedLM) else (model.roberta, model.lm_head)
    mask = None
    if reach is not None:
        mask = torch.zeros(1, 1, n := batch.ids.shape[1], n, dtype=body.dtype, device=batch.ids.device)
        mask.masked_fill_(too_far(torch.arange(n, device=mask.device), n, reach), torch.finfo(mask.dtype).min)
    hidden = body(batch.ids, attention_mask=mask).last_hidden_state
    return head(hidden.gather(1, batch.targets[..., None].expand(-1, -1, hidden.shape[-1])))


def too_far(positions: Tensor, length: int, reach: int) -> Tensor:
    """Which of ``length`` pieces are more than ``reach`` from each position: bool [..., positions, length]."""
    return (positions[..., None] - torch.arange(length, device=positions.device)).abs() > reach


def two_streams(model: XLNetLMHeadModel, ids: Tensor, targets: Tensor, reach: int | None = None) -> Tensor:
    """XLNet's two-stream attention (Yang et al. 2019, §2.3), the parameters being the library's.

    The content stream reads the text itself. The query stream has one row per target: it starts from one learned
    vector, knows its position, and sees what precedes it in the order of prediction, never itself. Pieces that are not
    predicted come first and all see one another, as in the original code. The two streams share every weight, so the
    queries are simply further rows that may look but cannot be looked at. The library's own forward pass gives the same
    numbers (a test compares them), computing the query stream at all positions.

    Parameters
    ----------
    ids : int64 [batch, length]
    targets : int64 [batch, predicted], in the order of prediction.

    Returns
    -------
    float [batch, predicted, width], the query stream's last layer.
    """
    body = model.transformer
    size, n = ids.shape
    k, heads = targets.shape[1], body.config.n_head
    order = torch.full((size, n), -1, device=ids.device).scatter(
        1, targets, torch.arange(k, device=ids.device).expand(size, k)
    )
    content = (order[:, :, None] < order[:, None, :]) & (order[:, None, :] >= 0)
    query = torch.arange(k, device=ids.device)[:, None] <= order[:, None, :]
    blocked = torch.cat([content, query], 1)[:, None]
    if reach is not None:
        where = torch.cat([torch.arange(n, device=ids.device).expand(size, n), targets], 1)
        blocked = blocked | too_far(where, n, reach)[:, None]
        blocked[..., -1] = False  # the classification token: no row may be left with nothing to see
    distance = (n - targets[:, None, :, None] + torch.arange(n, device=ids.device)).expand(size, heads, k, n)
    position = body.relative_positional_encoding(n, n, device=ids.device)[:, 0].to(body.dtype)
    x = torch.cat([body.word_embedding(ids), body.mask_emb.expand(size, k, -1)], 1)

    def split(rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (heads, -1)).transpose(-3, -2)

    for layer in body.layer:
        a = layer.rel_attn
        q = split(x @ a.q.flatten(1))
        keys, values = split(x[:, :n] @ a.k.flatten(1)), split(x[:, :n] @ a.v.flatten(1))
        near = (q + a.r_r_bias[:, None]) @ split(position @ a.r.flatten(1)).transpose(-1, -2)
        shifted = near[:, :, :n].flatten(2)[:, :, n:].unflatten(2, (n, 2 * n - 1))[..., :n]
        near = torch.cat([shifted, near[:, :, n:].gather(3, distance)], 2)
        score = ((q + a.r_w_bias[:, None]) @ keys.transpose(-1, -2) + near).float() * a.scale
        weight = score.masked_fill(blocked, -torch.inf).softmax(-1).to(x.dtype)
        seen = (weight @ values).transpose(1, 2).flatten(2)
        x = layer.ff(a.layer_norm(x + seen @ a.o.flatten(1).T))
    return x[:, n:]


def window(tokenizer: PreTrainedTokenizerFast, sentence: str) -> Pieces:
    """One sentence as a text of its own, to ``draw`` from: its only window starts at 0."""
    return encode(tokenizer, [sentence], length=1, longest=0)


def window_table(batch: Batch, tokenizer: PreTrainedTokenizerFast) -> pd.DataFrame:
    """The first window of a batch as its model meets it, for display.

    Returns
    -------
    Rows ``reads`` (the model's input), ``predicts`` (its targets) and ``order`` (of the predictions); one column per
    position.
    """
    positions, labels = batch.targets[0].tolist(), tokenizer.convert_ids_to_tokens(batch.labels[0].tolist())
    table = pd.DataFrame("", index=["reads", "predicts", "order"], columns=range(batch.ids.shape[1]))
    table.loc["reads"] = tokenizer.convert_ids_to_tokens(batch.ids[0].tolist())
    table.loc["predicts", positions] = labels
    table.loc["order", positions] = [str(number) for number in range(1, len(positions) + 1)]
    return table


@torch.no_grad()
def guesses(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, sentence: str, count: int = 3) -> pd.DataFrame:
    """The ``count`` most probable pieces for the gap of a sentence: columns piece, probability.

    ``model`` : with its language head. ``sentence`` : with the tokenizer's mask token where one piece is missing.
    """
    ids = torch.tensor(tokenizer(sentence)["input_ids"])[None]
    (gap,) = (ids[0] == tokenizer.mask_token_id).nonzero()[:, 0]
    scores = logits(model.eval(), Batch(ids, gap[None, None], ids[:, :1]))[0, 0].float()
    best = scores.softmax(-1).topk(count)
    pieces = [tokenizer.decode([i]).strip() for i in best.indices.tolist()]
    return pd.DataFrame({"piece": pieces, "probability": best.values.tolist()})
