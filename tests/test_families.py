"""Families of encoders that ``transformers`` knows: a tiny random one of each passes the check before the start, and a
word's vectors are those that its sentence has alone, whatever else is in the batch."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from conftest import SENTENCES, TOKENIZERS, randomise
from transformers import AutoModel

from lib import encoders
from lib.encoders import activations
from lib.encoders.checkpoints import EncoderError

SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
POSITIONS = {"max_position_embeddings": 64}
BART = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}  # fmt: skip

FAMILIES = {
    "Albert": SHAPE | POSITIONS | {"embedding_size": 8},
    "BertGeneration": SHAPE | POSITIONS,
    "BigBird": SHAPE | POSITIONS | {"attention_type": "original_full"},
    "Data2VecText": SHAPE | POSITIONS,
    "Deberta": SHAPE | POSITIONS | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "DebertaV2": SHAPE | POSITIONS | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "DistilBert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32} | POSITIONS,
    "Electra": SHAPE | POSITIONS | {"embedding_size": 8},
    "Ernie": SHAPE | POSITIONS,
    "GPT2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "GPTNeoX": SHAPE | POSITIONS,
    "IBert": SHAPE | POSITIONS,
    "Llama": SHAPE | POSITIONS,
    "Longformer": SHAPE | POSITIONS | {"attention_window": 8},
    "Luke": SHAPE | POSITIONS | {"entity_vocab_size": 10, "entity_emb_size": 8},
    "MegatronBert": SHAPE | POSITIONS,
    "ModernBert": SHAPE | POSITIONS,
    "MPNet": SHAPE | POSITIONS,
    "OPT": {"ffn_dim": 32, "word_embed_proj_dim": 16} | SHAPE | POSITIONS,
    "RemBert": SHAPE | POSITIONS | {"input_embedding_size": 8, "output_embedding_size": 8},
    "Roberta": SHAPE | POSITIONS,
    "RobertaPreLayerNorm": SHAPE | POSITIONS,
    "RoFormer": SHAPE | POSITIONS,
    "SqueezeBert": SHAPE | POSITIONS | {"embedding_size": 16, "q_groups": 1, "k_groups": 1, "v_groups": 1,
                                        "post_attention_groups": 1, "intermediate_groups": 1, "output_groups": 1},
    "XLM": {"emb_dim": 16, "n_layers": 2, "n_heads": 2} | POSITIONS,
    "XLNet": {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32},
    "Xmod": SHAPE | POSITIONS | {"languages": ["en_XX"], "default_language": "en_XX"},
}  # fmt: skip
"""Masked padding has no effect on these."""

READS_PADDING = {
    "ConvBert": SHAPE | POSITIONS | {"embedding_size": 8, "conv_kernel_size": 3, "head_ratio": 1},
    "MobileBert": SHAPE | POSITIONS | {"embedding_size": 8, "intra_bottleneck_size": 16},
    "Nystromformer": SHAPE | POSITIONS | {"num_landmarks": 8, "segment_means_seq_len": 8, "conv_kernel_size": 3},
}  # fmt: skip
"""These convolve over the padding, or count it."""


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[[str, dict], Path]:
    def save(family: str, shape: dict) -> Path:
        tok = TOKENIZERS["xlnet" if family == "XLNet" else "roberta"]()
        config = getattr(transformers, f"{family}Config")(
            **{"pad_token_id": tok.pad_token_id, "pad_index": tok.pad_token_id, "bos_token_id": 0, "eos_token_id": 2}
            | {"vocab_size": len(tok)} | shape
        )  # fmt: skip
        torch.manual_seed(3)
        randomise(AutoModel.from_config(config)).save_pretrained(tmp_path / "encoder")
        tok.save_pretrained(tmp_path / "encoder")
        return tmp_path / "encoder"

    return save


@pytest.mark.parametrize("family", [*FAMILIES, *READS_PADDING])
def test_the_vectors_of_every_family_are_those_of_the_sentence_alone(family: str, tiny, study_of) -> None:
    study = study_of(tiny(family, (FAMILIES | READS_PADDING)[family]))
    encoders.check(study)
    tok, model = encoders.tokenizer(study), encoders.pretrained(study)
    sentences = [s.split() for s in SENTENCES] + [["birds"], SENTENCES[0].split()[:3], SENTENCES[1].split()[:3]]
    aligned = encoders.align(tok, sentences, encoders.max_length(study, tok, model))
    together = _vectors(model, aligned, tok)
    alone = np.concatenate([_vectors(model, [a], tok) for a in aligned], 1)
    length = np.linalg.norm(alone, axis=2).clip(1e-6)
    assert (np.linalg.norm(together - alone, axis=2) / length).max() < 1e-4
    windows = sorted((a.windows[0] for a in aligned), key=lambda w: -len(w.ids))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):  # whose rounding is not the padding's doing
        assert activations.reads_padding(model, windows, tok.pad_token_id) == (family in READS_PADDING)


@pytest.mark.parametrize("family", ["Roberta", "DistilBert", "DebertaV2", "GPT2", "MPNet", "XLNet", "Albert"])
def test_every_family_gets_a_new_head_over_its_own_weights(family: str, tiny, study_of) -> None:
    study = study_of(tiny(family, FAMILIES[family]))
    model, encoder = encoders.classifier(study, ("a", "b", "c")), encoders.pretrained(study).state_dict()
    inside = getattr(model, model.base_model_prefix).state_dict()
    assert inside and all(torch.equal(weight, encoder[name]) for name, weight in inside.items())
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}


@pytest.mark.parametrize("family", [f for f in (*FAMILIES, *READS_PADDING) if f != "BertGeneration"])
def test_every_family_loses_layers_or_is_refused_with_the_reason(family: str, tiny, study_of) -> None:
    shape = {
        k: 3 if k in ("num_hidden_layers", "n_layers", "n_layer") else v
        for k, v in (FAMILIES | READS_PADDING)[family].items()
    }
    whole = encoders.classifier(study_of(tiny(family, shape)), ("a", "b"))
    for end in ("top", "bottom"):
        try:
            less = encoders.without_layers(whole, end, 1)
        except EncoderError as error:
            assert "its layers cannot be dropped: " in str(error)
            assert family not in ("Roberta", "DistilBert", "DebertaV2", "Electra", "XLNet")
        else:
            assert family != "Albert", "its layers share their weights"
            assert encoders.layers_of(less.base_model, [5, 6, 7])[0] == 3


def test_an_encoder_decoder_is_refused(tiny, study_of) -> None:
    with pytest.raises(EncoderError, match=r"encoder-decoder \(bart\)"):
        encoders.check(study_of(tiny("Bart", BART | POSITIONS)))


def test_an_architecture_that_cannot_be_run_is_refused(tiny, study_of) -> None:
    shape = {"emb_dim": 16, "n_layers": 2, "n_heads": 2, "pre_norm": True} | POSITIONS
    with pytest.raises(EncoderError, match="flaubert fails"):
        encoders.check(study_of(tiny("Flaubert", shape)))


def test_layers_of_unlike_lengths_are_refused(tiny, study_of) -> None:
    shape = {"d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 32, "block_sizes": [1, 1], "num_decoder_layers": 1}
    folder = tiny("Funnel", shape | {"architectures": ["FunnelBaseModel"]})
    with pytest.raises(EncoderError, match="one vector per sub-word"):
        encoders.check(study_of(folder))


def test_the_number_of_layers_is_what_the_encoder_gives(tiny, study_of) -> None:
    study = study_of(tiny("Albert", FAMILIES["Albert"] | {"inner_group_num": 2}))
    encoders.check(study)
    assert encoders.layers_of(encoders.pretrained(study), [3, 4, 5]) == (5, 16)


def _vectors(model, aligned, tok) -> np.ndarray:
    found = list(activations.extract(model, aligned, tok.pad_token_id, 64))
    out = np.empty((found[0][1].shape[0], sum(len(r) for r, _ in found), found[0][1].shape[2]), np.float32)
    for rows, vectors in found:
        out[:, rows] = vectors
    return out
