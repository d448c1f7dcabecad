"""Every word gets the vector of its own sub-words, whatever the tokenizer does around them, or is reported."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import KINDS, SENTENCES, _byte_level, build_encoder, represented
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    CLIPConfig,
    PreTrainedTokenizerFast,
)

from lib import encoders, sources
from lib.encoders import checkpoints
from lib.encoders.alignment import Alignment, align
from lib.encoders.checkpoints import EncoderError

TRICKY = [s.split() for s in SENTENCES] + [["unbelievable", "x-ray", "don't", "...", "bread", ",", "bird"], ["the"]]


@pytest.fixture(scope="module")
def toks(encoder_folder):
    """Kind → its tokenizer, loaded as the library does."""
    made = {}

    def tok(kind: str):
        if kind not in made:
            made[kind] = checkpoints._load(AutoTokenizer, str(encoder_folder(kind)), add_prefix_space=True)
        return made[kind]

    return tok


def surface(tok, ids: list[int]) -> str:
    """What sub-words spell, without the marks of word beginnings."""
    tokens = [t.removeprefix("##") for t in tok.convert_ids_to_tokens(ids)]
    return tok.convert_tokens_to_string(tokens).replace("▁", "").replace(" ", "")


def check_spans(tok, words: list[str], alignment: Alignment, longest: int) -> None:
    """Every word once, in one window that fits, its span on no special token and not overlapping its neighbours."""
    assert sorted([*represented(alignment), *alignment.dropped]) == list(range(len(words)))
    special = set(tok.all_special_ids) - {tok.unk_token_id}
    for window in alignment.windows:
        assert len(window.ids) <= longest
        assert len(window.words) == len(window.spans) > 0
        assert (np.diff(window.words) > 0).all()
        assert (window.spans[:, 0] <= window.spans[:, 1]).all()
        assert (window.spans[1:, 0] > window.spans[:-1, 1]).all()
        assert 0 <= window.spans.min() <= window.spans.max() < len(window.ids)
        for first, last in window.spans:
            assert not special & set(window.ids[first : last + 1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_span_of_a_word_spells_the_word(toks, kind: str) -> None:
    tok = toks(kind)
    assert {k: tok.num_special_tokens_to_add() for k in [kind]} == {kind: 0 if kind == "plain" else 2}
    for words, alignment in zip(TRICKY, align(tok, TRICKY, 64), strict=True):
        check_spans(tok, words, alignment, 64)
        assert alignment.dropped == {}
        (window,) = alignment.windows
        if tok.unk_token_id not in window.ids:
            spelt = [surface(tok, window.ids[a : b + 1]) for a, b in window.spans]
            letters = set("".join(SENTENCES)) if kind == "plain" else None  # it knows no others, and no unknown token
            assert spelt == ["".join(c for c in w if letters is None or c in letters) for w in words]


@pytest.mark.parametrize("kind", KINDS)
def test_spans_agree_with_each_word_tokenized_alone(toks, kind: str) -> None:
    tok = toks(kind)
    words = TRICKY[3]
    (window,) = align(tok, [words], 64)[0].windows
    for word, (first, last) in zip(words, window.spans, strict=True):
        alone = tok([[word]], is_split_into_words=True, add_special_tokens=False)["input_ids"][0]
        assert window.ids[first : last + 1].tolist() == alone, word
    assert max(len(window.ids[a : b + 1]) for a, b in window.spans) > 1, "some word has several sub-words"


@pytest.mark.parametrize(
    ("kind", "front", "back"),
    [
        ("bert", ["[CLS]"], ["[SEP]"]),
        ("roberta", ["<s>"], ["</s>"]),
        ("xlnet", [], ["<sep>", "<cls>"]),
        ("plain", [], []),
    ],
)
def test_special_tokens_stand_where_the_tokenizer_puts_them(toks, kind, front, back) -> None:
    tok = toks(kind)
    (window,) = align(tok, [["dog", "tree"]], 64)[0].windows
    tokens = tok.convert_ids_to_tokens(window.ids)
    assert tokens[: len(front)] == front
    assert tokens[len(tokens) - len(back) :] == back
    assert window.spans[0, 0] == len(front)
    assert window.spans[-1, 1] == len(window.ids) - len(back) - 1


def test_every_word_of_a_byte_level_tokenizer_begins_with_a_space(encoder_folder, tmp_path, make_study) -> None:
    folder = shutil.copytree(encoder_folder("roberta"), tmp_path / "encoder")
    _byte_level(prefix=False).save_pretrained(folder)
    tok = encoders.tokenizer(make_study(encoder={"checkpoint": str(folder)}))
    words = ["the", "dog", "the"]
    (window,) = align(tok, [words], 64)[0].windows
    firsts = tok.convert_ids_to_tokens([window.ids[a] for a, _ in window.spans])
    assert all(t.startswith("Ġ") for t in firsts), firsts


ZERO = "\u200b"


@pytest.mark.parametrize("kind", ["bert", "plain"])
def test_a_word_of_nothing_is_dropped_with_a_reason_and_shifts_no_neighbour(toks, kind: str) -> None:
    tok = toks(kind)
    nothing = ["\u0000", ""] if kind == "bert" else [ZERO, "日本", ""]
    plain = align(tok, [["the", "dog", "sings"]], 64)[0].windows[0]
    for word in nothing:
        alignment = align(tok, [["the", word, "dog", word, "sings"]], 64)[0]
        assert alignment.dropped == {1: "no sub-word", 3: "no sub-word"}, repr(word)
        (window,) = alignment.windows
        assert window.words.tolist() == [0, 2, 4]
        assert window.ids.tolist() == plain.ids.tolist()
        assert window.spans.tolist() == plain.spans.tolist()


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlnet"])
def test_a_word_of_unknown_script_keeps_its_place(toks, kind: str) -> None:
    (alignment,) = align(toks(kind), [["the", "日本語", "dog"]], 64)
    assert alignment.dropped == {}
    (window,) = alignment.windows
    assert window.words.tolist() == [0, 1, 2]
    assert surface(toks(kind), window.ids[slice(*(window.spans[2] + [0, 1]))]) == "dog"


def test_a_sentence_of_nothing_but_dropped_words_has_no_window(toks) -> None:
    (alignment,) = align(toks("plain"), [[ZERO, "日本"]], 64)
    assert alignment.windows == []
    assert [*alignment.dropped] == [0, 1]


@pytest.mark.parametrize(("kind", "special"), [("bert", "[SEP]"), ("roberta", "</s>"), ("xlnet", "<cls>")])
def test_a_word_that_looks_like_a_special_token_shifts_no_neighbour(toks, kind: str, special: str) -> None:
    tok = toks(kind)
    (alignment,) = align(tok, [["the", special, "dog"]], 64)
    assert sorted([*represented(alignment), *alignment.dropped]) == [0, 1, 2]
    (window,) = alignment.windows
    where = dict(zip(window.words.tolist(), window.spans.tolist(), strict=True))
    for number, word in ((0, "the"), (2, "dog")):
        first, last = where[number]
        assert surface(tok, window.ids[first : last + 1]) == word


# Windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("longest", [8, 13, 24])
def test_a_long_sentence_is_read_in_windows_without_losing_a_word(toks, kind: str, longest: int) -> None:
    tok = toks(kind)
    words = ("the old dog sleeps under the tree and a bird sings , do we eat bread " * 4).split()
    room = longest - tok.num_special_tokens_to_add()
    (alignment,) = align(tok, [words], longest)
    check_spans(tok, words, alignment, longest)
    assert len(alignment.windows) > 2
    for word, reason in alignment.dropped.items():
        pieces = len(tok([[words[word]]], is_split_into_words=True, add_special_tokens=False)["input_ids"][0])
        assert reason == f"{pieces} sub-words, more than the {room} that fit"
        assert pieces > room
    for window in alignment.windows:
        for number, (first, last) in zip(window.words, window.spans, strict=True):
            alone = tok([[words[number]]], is_split_into_words=True, add_special_tokens=False)["input_ids"][0]
            assert window.ids[first : last + 1].tolist() == alone


def test_a_word_of_a_long_sentence_has_context_on_both_sides(toks) -> None:
    tok, words = toks("bert"), ["the"] * 200
    (alignment,) = align(tok, [words], 22)
    ends = [(w, len(w.ids)) for w in alignment.windows]
    for window, length in ends:
        inner = window.spans[(window.words > 20) & (window.words < 179)]
        assert (inner[:, 0] >= 1 + 4).all(), "special token and a quarter of the window before"
        assert (inner[:, 1] <= length - 2 - 4).all()


def test_a_word_longer_than_the_window_is_reported_and_the_others_stay(toks) -> None:
    tok = toks("roberta")
    words = ["the", "complications" * 5, "dog"]
    (alignment,) = align(tok, [words], 12)
    assert [*alignment.dropped] == [1]
    assert "sub-words, more than the 10 that fit" in alignment.dropped[1]
    assert represented(alignment) == [0, 2]


def test_a_sentence_that_just_fits_is_one_window(toks) -> None:
    tok = toks("bert")
    words = ["the"] * 20
    assert len(align(tok, [words], 22)[0].windows) == 1
    assert len(align(tok, [words], 21)[0].windows) > 1


def test_windows_too_short_for_a_word_are_refused(toks) -> None:
    with pytest.raises(EncoderError, match="max_subwords = 2 leaves no room"):
        align(toks("bert"), [["dog"]], 2)


WORD = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(["the", "dog", "unbelievable", "日", ZERO])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(WORD, min_size=1, max_size=14), longest=st.integers(6, 20))
@pytest.mark.parametrize("kind", KINDS)
def test_any_word_is_represented_once_or_dropped_with_a_reason(toks, kind: str, words, longest) -> None:
    (alignment,) = align(toks(kind), [words], longest)
    check_spans(toks(kind), words, alignment, longest)
    assert all(alignment.dropped.values())


def test_sentences_are_aligned_in_their_order_across_blocks(toks) -> None:
    sentences = [["dog"] * (1 + i % 5) for i in range(1203)]
    assert [len(a.windows[0].words) for a in align(toks("plain"), sentences, 64)] == [len(s) for s in sentences]


def test_the_shown_pieces_are_those_of_the_alignment(toks) -> None:
    tok, words = toks("bert"), ["the", "\u0000", "unbelievable"]
    table = encoders.show_subwords(tok, words)
    (window,) = align(tok, [words], 64)[0].windows
    assert table["word"].tolist() == words
    assert table.loc[[0, 2], ["first", "last"]].to_numpy().tolist() == window.spans.tolist()
    assert table["sub-words"].map(len).tolist()[1] == 0


# Loading ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(encoder_folder, tmp_path: Path) -> Path:
    return Path(shutil.copytree(encoder_folder("bert"), tmp_path / "encoder"))


def weights(model) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_the_released_encoder_is_loaded_as_saved_and_without_dropout(make_study, encoder_folder) -> None:
    model = encoders.pretrained(make_study())
    assert not model.training
    assert same(weights(model), weights(AutoModel.from_pretrained(encoder_folder("bert"))))


def test_the_random_encoder_is_drawn_by_the_seed(make_study) -> None:
    first, again = weights(encoders.randomised(make_study())), weights(encoders.randomised(make_study()))
    other, released = weights(encoders.randomised(make_study(seed=5))), weights(encoders.pretrained(make_study()))
    assert same(first, again)
    assert first.keys() == released.keys()
    matrices = [k for k, v in first.items() if v.dim() > 1 and "norm" not in k.lower()]
    assert matrices
    for name in matrices:
        assert not torch.equal(first[name], other[name]), name
        assert not torch.equal(first[name], released[name]), name


def pickled(folder: Path) -> Path:
    """The checkpoint with its weights as a pickle."""
    state = AutoModel.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


def test_pickled_weights_are_refused(copied: Path, study_of) -> None:
    pickled(copied)
    with pytest.raises(EncoderError, match="not safetensors"):
        encoders.pretrained(study_of(copied))


def test_pickled_weights_with_another_digest_than_pinned_are_refused(copied: Path, study_of) -> None:
    file = pickled(copied)
    with pytest.raises((EncoderError, sources.SourceError), match=r"pytorch_model\.bin.* SHA-256"):
        encoders.pretrained(study_of(copied, weights_sha256="0" * 64))
    assert file.exists()


def test_pickled_weights_with_the_pinned_digest_are_loaded(copied: Path, study_of, encoder_folder) -> None:
    pinned = hashlib.sha256(pickled(copied).read_bytes()).hexdigest()
    model = encoders.pretrained(study_of(copied, weights_sha256=pinned))
    assert same(weights(model), weights(AutoModel.from_pretrained(encoder_folder("bert"))))


def test_a_folder_without_weights_is_refused(copied: Path, study_of) -> None:
    (copied / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match="holds no weights"):
        encoders.pretrained(study_of(copied))


def test_truncated_weights_are_refused(copied: Path, study_of) -> None:
    file = copied / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(EncoderError, match="cannot be loaded"):
        encoders.pretrained(study_of(copied))


def test_a_missing_folder_is_refused_without_asking_the_hub(study_of, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="there is no folder"):
        encoders.pretrained(study_of(tmp_path / "none"))


def test_a_hub_id_that_cannot_be_reached_is_one_clear_error(study_of) -> None:
    with pytest.raises(
        sources.SourceError, match="'no-such-organisation/none' is no folder here, and from the model hub"
    ):
        encoders.pretrained(study_of("no-such-organisation/none"))


@pytest.mark.parametrize("content", ["", "{}", "not json"])
def test_a_damaged_configuration_is_refused(copied: Path, study_of, content: str) -> None:
    (copied / "config.json").write_text(content)
    with pytest.raises(EncoderError, match="cannot be loaded"):
        encoders.pretrained(study_of(copied))


def test_a_folder_without_a_tokenizer_is_refused(copied: Path, study_of) -> None:
    (copied / "tokenizer.json").unlink()
    (copied / "tokenizer_config.json").unlink()
    with pytest.raises(EncoderError):
        encoders.tokenizer(study_of(copied))


@pytest.mark.parametrize("content", ["", "{}", "not json"])
def test_a_damaged_tokenizer_is_refused(copied: Path, study_of, content: str) -> None:
    (copied / "tokenizer.json").write_text(content)
    with pytest.raises(EncoderError):
        encoders.tokenizer(study_of(copied))


def test_a_slow_tokenizer_is_refused(copied: Path, study_of) -> None:
    (copied / "tokenizer.json").unlink()
    (copied / "vocab.json").write_text(json.dumps({"<pad>": 0, "<unk>": 1, "a": 2}))
    (copied / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CanineTokenizer"}))
    with pytest.raises(EncoderError, match="is not a fast one"):
        encoders.tokenizer(study_of(copied))


@pytest.mark.parametrize("kind", KINDS)
def test_the_longest_input_is_what_the_encoder_was_built_for(make_study, kind: str) -> None:
    study = make_study(kind)
    tok, model = encoders.tokenizer(study), encoders.pretrained(study)
    longest = encoders.max_length(study, tok, model)
    assert longest == 64
    with torch.inference_mode():
        assert torch.isfinite(model(torch.full((1, longest), 9)).last_hidden_state).all()
    tok.model_max_length = 10**30
    assert encoders.max_length(study, tok, model) == (512 if kind == "xlnet" else 64)


def test_a_study_may_ask_for_shorter_inputs(make_study) -> None:
    study = make_study(encoder__max_subwords=20)
    assert encoders.max_length(study, encoders.tokenizer(study), encoders.pretrained(study)) == 20


def test_a_device_that_is_not_here_is_refused(make_study) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(EncoderError, match="sees no CUDA device; use device: auto"):
        encoders.device(make_study(device="cuda"))


# Whether weights, configuration and tokenizer belong together ---------------------------------------------------


def rewrite(folder: Path, rename=None, **config: object) -> Path:
    """The checkpoint with its weights renamed (None: left out) and values of its config.json replaced."""
    file, settings = folder / "model.safetensors", folder / "config.json"
    if rename:
        named = {rename(name): weight for name, weight in load_file(file).items()}
        save_file({k: v for k, v in named.items() if k}, file, metadata={"format": "pt"})
    settings.write_text(json.dumps(json.loads(settings.read_text()) | config))
    return folder


NOT_OF_ITS_ARCHITECTURE = {
    "a prefix of every name": (lambda name: f"module.{name}", {}),
    "a layer is not in the file": (lambda name: None if ".layer.1." in name else name, {}),
    "one weight is not in the file": (lambda name: None if name.endswith("layer.0.output.dense.bias") else name, {}),
    "a layer more than the file has": (None, {"num_hidden_layers": 3}),
    "a layer fewer than the file has": (None, {"num_hidden_layers": 1}),
    "another vocabulary": (None, {"vocab_size": 77}),
    "weights beside those of the encoder": (lambda name: name.replace("dense.bias", "dense.lora_A.bias"), {}),
}


@pytest.mark.parametrize("kind", NOT_OF_ITS_ARCHITECTURE)
def test_weights_that_are_not_those_of_the_architecture_are_refused_by_name(copied: Path, study_of, kind: str) -> None:
    rename, config = NOT_OF_ITS_ARCHITECTURE[kind]
    rewrite(copied, rename, **config)
    for load in (encoders.pretrained, encoders.check, lambda study: encoders.classifier(study, ("a", "b"))):
        with pytest.raises(EncoderError, match=r"(random|no place|shape there) \((encoder|embeddings)\."):
            load(study_of(copied))


def test_a_checkpoint_without_a_pooler_or_with_the_head_of_its_training_is_loaded(copied: Path, study_of) -> None:
    released = weights(encoders.pretrained(study_of(copied)))
    rewrite(copied, lambda name: None if "pooler" in name else f"bert.{name}")
    file = copied / "model.safetensors"
    more = {"cls.predictions.bias": torch.zeros(3), "bert.encoder.layer.0.attention.masked_bias": torch.tensor(-1e4)}
    save_file(load_file(file) | more, file, metadata={"format": "pt"})
    found = weights(encoders.pretrained(study_of(copied)))
    assert all(torch.equal(found[name], weight) for name, weight in released.items() if "pooler" not in name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_checkpoint_is_computed_with_in_float32(copied: Path, study_of, dtype: torch.dtype) -> None:
    AutoModel.from_pretrained(copied).to(dtype).save_pretrained(copied)
    study = study_of(copied)
    for model in (encoders.pretrained(study), encoders.randomised(study), encoders.classifier(study, ("a", "b"))):
        assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_head_in_the_checkpoint_is_not_taken_over(copied: Path, study_of) -> None:
    def head(checkpoint: Path, *labels: str) -> torch.Tensor:
        torch.manual_seed(4)
        return encoders.classifier(study_of(checkpoint), labels).classifier.weight

    fresh = [head(copied, "a", "b").clone(), head(copied).clone()]
    for classes in (2, 3):
        config = AutoModel.from_pretrained(copied).config
        config.num_labels = classes
        BertForSequenceClassification(config).save_pretrained(copied)
        rewrite(copied, problem_type="multi_label_classification")
        assert torch.equal(head(copied, "a", "b"), fresh[0])
        assert torch.equal(head(copied), fresh[1])


LEFT_IN_CONFIG = {"output_hidden_states": True, "output_attentions": True, "use_cache": True, "return_dict": False,
                  "chunk_size_feed_forward": 5, "attn_implementation": "flash_attention_2",
                  "problem_type": "regression"}  # fmt: skip


@pytest.mark.parametrize("name", LEFT_IN_CONFIG)
def test_what_an_earlier_use_left_in_the_configuration_changes_nothing(copied: Path, study_of, name: str) -> None:
    ids = torch.tensor([[2, 9, 14, 3]])
    plain = encoders.pretrained(study_of(copied))(ids).last_hidden_state
    rewrite(copied, **{name: LEFT_IN_CONFIG[name]})
    encoders.check(study_of(copied))
    assert torch.equal(encoders.pretrained(study_of(copied))(ids).last_hidden_state, plain)
    assert encoders.classifier(study_of(copied), ("a", "b"))(ids).logits.shape == (1, 2)


def test_a_quantised_checkpoint_is_refused(copied: Path, study_of) -> None:
    rewrite(copied, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    with pytest.raises(EncoderError, match="quantised"):
        encoders.check(study_of(copied))


def test_an_adapter_that_would_not_be_applied_is_refused(copied: Path, study_of) -> None:
    (copied / "adapter_config.json").write_text("{}")
    with pytest.raises(EncoderError, match="merge it into the weights"):
        encoders.check(study_of(copied))


def test_what_is_no_encoder_of_text_is_refused(copied: Path, study_of) -> None:
    CLIPConfig().save_pretrained(copied)
    with pytest.raises(EncoderError, match="clip has no layers of one width"):
        encoders.check(study_of(copied))


def test_weights_that_are_not_numbers_are_refused(copied: Path, study_of) -> None:
    file = copied / "model.safetensors"
    damaged = {
        k: v.fill_(torch.nan) if k.endswith("layer.1.output.dense.bias") else v for k, v in load_file(file).items()
    }
    save_file(damaged, file, metadata={"format": "pt"})
    with pytest.raises(EncoderError, match=r"not all are finite numbers in encoder\.layer\.1\.output\.dense\.bias"):
        encoders.check(study_of(copied))


def test_a_token_without_an_embedding_is_refused_and_spare_embeddings_are_not(copied: Path, study_of) -> None:
    tok = AutoTokenizer.from_pretrained(copied)
    rewrite(copied, vocab_size=len(tok) + 8)
    AutoModel.from_config(AutoConfig.from_pretrained(copied)).save_pretrained(copied)
    encoders.check(study_of(copied))
    tok.add_tokens([f"covid{i}" for i in range(9)])
    tok.save_pretrained(copied)
    with pytest.raises(EncoderError, match="'covid8'"):
        encoders.check(study_of(copied))


def test_a_tokenizer_without_padding_pads_with_another_special_token(
    tmp_path, encoder_folder, study_of, capsys
) -> None:
    folder = Path(shutil.copytree(encoder_folder("bert"), tmp_path / "encoder"))
    tok = AutoTokenizer.from_pretrained(folder)
    tok.pad_token = None
    tok.save_pretrained(folder)
    encoders.check(study_of(folder))
    assert encoders.tokenizer(study_of(folder)).pad_token == "[SEP]"
    assert "[SEP] stands for it" in capsys.readouterr().out


def test_positions_that_are_counted_from_another_padding_are_refused(tmp_path, encoder_folder, study_of) -> None:
    folder = Path(shutil.copytree(encoder_folder("roberta"), tmp_path / "encoder"))
    rewrite(folder, pad_token_id=3)
    with pytest.raises(EncoderError, match="counts positions from its padding token 3"):
        encoders.check(study_of(folder))


def inside_a_sequence() -> pre_tokenizers.PreTokenizer:
    """GPT-2's byte-level step in the layout of later tokenizers: the pattern first, then the bytes."""
    pattern = Regex(r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+")
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pattern, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def space_by_a_normaliser() -> PreTrainedTokenizerFast:
    """A tokenizer whose normaliser turns spaces into marks, without a step that cuts at them."""
    fresh = Tokenizer(models.BPE())
    fresh.normalizer, fresh.decoder = normalizers.Replace(" ", "▁"), decoders.Metaspace()
    fresh.pre_tokenizer = pre_tokenizers.Split(Regex("▁?[^▁]+"), "isolated")
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>", "<pad>"])
    fresh.train_from_iterator([f" {s}" for s in SENTENCES], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=fresh, pad_token="<pad>", unk_token="<unk>")


@pytest.mark.parametrize("kind", ["sequence", "normaliser"])
def test_words_are_cut_as_in_running_text_wherever_the_space_is_made(copied: Path, study_of, kind: str) -> None:
    tok = _byte_level(prefix=False)
    if kind == "sequence":
        tok.backend_tokenizer.pre_tokenizer = inside_a_sequence()
    else:
        tok = space_by_a_normaliser()
    tok.save_pretrained(copied)
    found, plain = encoders.tokenizer(study_of(copied)), AutoTokenizer.from_pretrained(copied)
    for words in TRICKY:
        assert encoders.unlike_running_text(found, plain, words) is None


def test_a_normaliser_that_strips_blanks_leaves_words_their_space(copied: Path, study_of) -> None:
    tok = _byte_level(prefix=False)
    tok.backend_tokenizer.pre_tokenizer = inside_a_sequence()
    tok.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Strip()])
    tok.save_pretrained(copied)
    found, plain = encoders.tokenizer(study_of(copied)), AutoTokenizer.from_pretrained(copied)
    assert encoders.unlike_running_text(found, plain, ["The", "old", "Dog", "sleeps"]) is None


def test_added_words_are_cut_as_in_running_text(copied: Path, study_of) -> None:
    tok = _byte_level(prefix=False)
    tok.add_tokens(["tree", "covid"])
    tok.save_pretrained(copied)
    found, plain = encoders.tokenizer(study_of(copied)), AutoTokenizer.from_pretrained(copied)
    assert encoders.unlike_running_text(found, plain, ["the", "covid", "tree", "sleeps"]) is None
    (window,) = align(found, [["the", "covid", "tree"]], 64)[0].windows
    assert window.ids[window.spans[1, 1]] == plain.convert_tokens_to_ids("covid")


def test_a_tokenizer_without_its_unknown_token_is_one_clear_error(copied: Path, study_of) -> None:
    fresh = Tokenizer(models.WordPiece({"the": 0, "dog": 1}, unk_token="[UNK]"))
    fresh.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=fresh).save_pretrained(copied)
    with pytest.raises(EncoderError, match="tokenizer"):
        encoders.check(study_of(copied))


def test_a_tokenizer_that_cuts_words_otherwise_than_text_is_refused(copied: Path, study_of) -> None:
    tok = _byte_level(prefix=False)
    tok.backend_tokenizer.normalizer = normalizers.Replace("n t", "n_t")  # across the space between two words
    tok.save_pretrained(copied)
    with pytest.raises(EncoderError, match="otherwise as a word of a sentence than in running text"):
        encoders.tokenizer(study_of(copied))


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_pointer_of_git_lfs_is_refused_as_one(copied: Path, study_of, file: str) -> None:
    (copied / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(EncoderError, match=rf"{file} is a Git LFS pointer"):
        encoders.check(study_of(copied))


@pytest.mark.parametrize("model", ["spiece.model", "sentencepiece.bpe.model"])
def test_a_tokenizer_that_has_to_be_converted_is_refused_with_the_way_to_do_it(copied, study_of, model: str) -> None:
    (copied / "tokenizer.json").unlink()
    (copied / "tokenizer_config.json").unlink()
    (copied / model).write_bytes(b"\x0a\x0e")
    with pytest.raises(EncoderError, match=rf"no tokenizer.json, only {model}.*save_pretrained"):
        encoders.check(study_of(copied))


def test_a_home_folder_is_not_taken_for_a_hub_id(study_of) -> None:
    with pytest.raises(EncoderError, match="write the path in full"):
        encoders.locate(study_of("~/bert"))


# Fewer layers ----------------------------------------------------------------------------------------------------

IDS = torch.tensor([[9, 14, 30, 21, 11, 17]])


@pytest.fixture
def deep(tmp_path: Path, study_of):
    """``deep(kind)``: an encoder of four layers under a head, and the list of its layers."""

    def make(kind: str):
        model = encoders.classifier(study_of(build_encoder(tmp_path / kind, kind, layers=4)), ("a", "b")).eval()
        return model, model.base_model.layer if kind == "xlnet" else model.base_model.encoder.layer

    return make


def hidden(encoder, ids: torch.Tensor = IDS) -> list[torch.Tensor]:
    with torch.inference_mode():
        return list(encoder(ids, output_hidden_states=True).hidden_states)


def alike(states: list[torch.Tensor], others: list[torch.Tensor]) -> None:
    """Equal but for rounding, which depends on where in memory the weights begin."""
    for state, other in zip(states, others, strict=True):
        torch.testing.assert_close(state, other, rtol=1e-5, atol=1e-5)


def by_hand(encoder, layers: torch.nn.ModuleList, kept: list[int]) -> list[torch.Tensor]:
    """The embedding output, and what each of the kept layers makes of the one before it."""
    calls = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, *given, i=i: calls.update({i: given}), with_kwargs=True)
        for i, layer in enumerate(layers)
    ]
    encoder(IDS)
    for hook in hooks:
        hook.remove()
    states = [calls[0][0][0]]
    with torch.inference_mode():
        for i in kept:
            (_, *others), named = calls[i]
            found = layers[i](states[-1], *others, **named)
            states.append(found[0] if isinstance(found, tuple) else found)
    return states


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlnet"])
@pytest.mark.parametrize(
    ("end", "count", "kept"),
    [("top", 1, [0, 1, 2]), ("top", 3, [0]), ("bottom", 1, [1, 2, 3]), ("bottom", 2, [2, 3])],
)
def test_an_encoder_without_layers_computes_what_the_kept_ones_do(deep, tmp_path, kind, end, count, kept) -> None:
    whole, layers = deep(kind)
    logits, before = whole(IDS).logits, weights(whole)
    less = encoders.without_layers(whole, end, count).eval()
    expected = by_hand(whole.base_model, layers, kept)
    found = hidden(less.base_model)
    assert less.config.num_hidden_layers == len(kept) == len(found) - 1
    alike([state.transpose(0, 1) if kind == "xlnet" else state for state in expected], found)
    assert not torch.allclose(less(IDS).logits, logits, atol=1e-3)
    assert torch.equal(whole(IDS).logits, logits) and same(weights(whole), before), "the whole one is as it was"
    heads = [
        {k: w for k, w in weights(m).items() if not k.startswith(f"{m.base_model_prefix}.")} for m in (whole, less)
    ]
    assert heads[0] and same(*heads)

    less.save_pretrained(tmp_path / "less")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "less").eval()
    assert same(weights(again), weights(less))
    alike(hidden(encoders.finetuned(tmp_path / "less")), found)


@pytest.mark.parametrize("kind", ["bert", "xlnet"])
@pytest.mark.parametrize("count", [4, 5, 99])
def test_no_more_layers_are_dropped_than_leave_one(deep, kind: str, count: int) -> None:
    with pytest.raises(EncoderError, match=f"{kind} has 4 layers: {count} of them cannot be dropped, at most 3"):
        encoders.without_layers(deep(kind)[0], "top", count)


def test_layers_that_depend_on_their_place_are_not_dropped(deep) -> None:
    whole, layers = deep("bert")
    for i, layer in enumerate(layers):
        layer.place = i
    real = type(layers[0]).forward

    def forward(self, state, *given, **named):
        return real(self, state * (1 + getattr(self, "place", 0)), *given, **named)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(EncoderError, match="depends on its place"):
        patch.setattr(type(layers[0]), "forward", forward)
        encoders.without_layers(whole, "bottom", 2)


@pytest.mark.parametrize("begin", range(0, 64, 8))
def test_layers_are_dropped_wherever_in_its_file_a_weight_begins(tmp_path: Path, study_of, begin: int) -> None:
    """Weights that are mapped from a file are rounded otherwise than those in fresh memory."""
    folder = build_encoder(tmp_path / "encoder", "bert", width=40, layers=3)
    file = folder / "model.safetensors"
    save_file(load_file(file), file, metadata={"format": "pt", "filler": "x" * begin})
    whole = encoders.classifier(study_of(folder), ("a", "b"))
    for end in ("top", "bottom"):
        assert encoders.without_layers(whole, end, 1).config.num_hidden_layers == 2
