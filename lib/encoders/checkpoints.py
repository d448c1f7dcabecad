"""Checkpoint: an encoder and its tokenizer, loaded and checked to fit each other."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from tokenizers import Encoding, normalizers, pre_tokenizers

from lib import hub, sources, surroundings
from lib.study import params

if TYPE_CHECKING:
    import transformers


class EncoderError(RuntimeError):
    """A checkpoint or tokenizer that cannot be used; the message says which and what to do."""


@cache
def library() -> ModuleType:
    """``transformers`` without its own logs and bars. It takes a second to import; steps that load no encoder do
    without."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()  # long work shows a bar of ours
    return transformers


def _refuse(faults: dict[str, object]) -> None:
    """Raise EncoderError with the first of the messages whose condition holds."""
    for message, holds in faults.items():
        if holds:
            raise EncoderError(message)


def device(study: params.Study) -> torch.device:
    """The study's device; ``auto`` takes CUDA, then Apple's, then the CPU.

    Raises EncoderError if it is not here, or does not multiply in the study's precision.
    """
    name = study.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise EncoderError(f"device '{name}' is asked for, but PyTorch sees no CUDA device; use device: auto")
    found = torch.device(name)
    _refuse({
        f"device '{name}' is asked for, but PyTorch sees {torch.cuda.device_count()} GPUs, counted from cuda:0":
            found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count(),
        f"precision: bfloat16 gains nothing on this {found.type.upper()}, which does not multiply it: use float32, or, "
        "on a processor with AVX512-BF16, ISA=native":
            study.precision == "bfloat16" and not multiplies_bfloat16(found),
    })  # fmt: skip
    return found


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16, and may (``ISA=avx2`` has the CPU do without)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpu = Path("/proc/cpuinfo")  # of Linux
    able = torch.backends.mkldnn.is_available() and cpu.exists() and "avx512_bf16" in cpu.read_text("utf-8")
    return device.type == "cpu" and able and surroundings.isa() == "native"


HUB_FILES = (
    "config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.*", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model",
)  # fmt: skip
"""What is fetched of a checkpoint on the hub; pickled weights only if their digest is pinned."""


def locate(study: params.Study) -> str:
    """The folder of the study's checkpoint; a named source, or a repository of the model hub, is fetched.

    Raises EncoderError for a folder that is not there, or that holds pointers of Git LFS in place of files; SourceError
    for what cannot be fetched or is not the pinned one.
    """
    name = study.encoder.checkpoint
    if name in sources.SOURCES:
        return str(sources.fetch(name))
    folder = params.ROOT / name
    if folder.is_dir():
        for file in sorted(p for p in folder.iterdir() if p.is_file() and p.stat().st_size < 1024):
            if file.read_bytes().startswith(b"version https://git-lfs"):
                raise EncoderError(
                    f"{file} is a Git LFS pointer, not the file itself: get it with 'git lfs pull' in that repository, "
                    "or download it"
                )
        return str(folder.resolve())
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        hint = "; write the path in full: ~ stands for nothing here" if name.startswith("~") else ""
        raise EncoderError(f"encoder.checkpoint: there is no folder {folder}{hint}")
    pickled = [PICKLED] if study.encoder.weights_sha256 else []
    files = {*HUB_FILES, *hub.pinned(name, study.encoder.revision), *pickled}
    return str(hub.folder(name, study.encoder.revision, "model", tuple(sorted(files)), ("*/*",)))


def tokenizer(study: params.Study) -> transformers.PreTrainedTokenizerBase:
    """The study's fast tokenizer, with which the words of a sentence are cut as they are in running text.

    A tokenizer for which only the space before a word marks its beginning (byte-level BPE) gets that space. One without
    a padding token takes another special token for it: padding is masked.

    Raises EncoderError if words cannot be aligned with it, or are cut otherwise than in running text.
    """
    checkpoint = locate(study)
    lacking = _without_tokenizer(Path(checkpoint))
    try:
        tok = _load(library().AutoTokenizer, checkpoint, add_prefix_space=True)
    except EncoderError as error:
        raise EncoderError(lacking or str(error)) from error
    _refuse({
        f"the tokenizer of {checkpoint} is not a fast one (tokenizer.json): words cannot be aligned": not tok.is_fast,
        lacking or f"{checkpoint} holds no tokenizer (tokenizer.json)": tok.vocab_size <= len(tok.all_special_tokens),
    })  # fmt: skip
    try:
        unlike = _mark_words(tok, _load(library().AutoTokenizer, checkpoint))
    except Exception as error:  # a vocabulary without its unknown token, and other defects
        raise EncoderError(f"the tokenizer of {checkpoint} fails: {_in_short(error)}") from error
    if unlike:
        raise EncoderError(
            f"the tokenizer of {checkpoint} cuts {unlike!r} otherwise as a word of a sentence than in running text: "
            "its words are not those that the encoder was trained on. Use a tokenizer that marks where words begin"
        )
    if tok.pad_token is None:
        tok.pad_token = tok.eos_token or tok.sep_token or tok.unk_token or tok.bos_token
    return tok


def _mark_words(
    tok: transformers.PreTrainedTokenizerBase, untouched: transformers.PreTrainedTokenizerBase
) -> str | None:
    """Give each word of a list the space that precedes it in running text, where that is needed, in the way that has
    the words cut as the ``untouched`` tokenizer cuts them there. Returns a word for which no way does."""
    backend, words = tok.backend_tokenizer, _words_of(untouched)
    if isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):  # a generic class ignores the option
        backend.pre_tokenizer.add_prefix_space = True
    unlike, space = unlike_running_text(tok, untouched, words), normalizers.Prepend(" ")
    own = [backend.normalizer] if backend.normalizer else []
    for steps, spaced in (([space, *own], False), ([*own, space], False), (own, True)):
        if unlike:
            backend.normalizer = normalizers.Sequence(steps)
            tok.words_begin_with_a_space = spaced
            unlike = unlike_running_text(tok, untouched, words)
    return unlike


def cut(
    tok: transformers.PreTrainedTokenizerBase, sentences: Sequence[Sequence[str]], **options: object
) -> list[Encoding]:
    """Each sentence, given as words, cut into sub-words; the words get the space that ``_mark_words`` asks for."""
    space = " " if getattr(tok, "words_begin_with_a_space", False) else ""
    words = [[space + word for word in sentence] for sentence in sentences]
    return tok(words, is_split_into_words=True, truncation=False, verbose=False, **options).encodings or []


def unlike_running_text(
    tok: transformers.PreTrainedTokenizerBase, untouched: transformers.PreTrainedTokenizerBase, words: Sequence[str]
) -> str | None:
    """The first of ``words``, after the first one, that is cut otherwise as one of a list than the ``untouched``
    tokenizer cuts it in running text."""
    encoded = cut(tok, [words], add_special_tokens=False)[0]
    running = untouched(" ".join(words), add_special_tokens=False, verbose=False, return_offsets_mapping=True)
    pieces = zip(running["input_ids"], running["offset_mapping"], strict=True)
    in_text = [i for i, (_, end) in pieces if end > len(words[0])]  # how a text begins may differ
    in_list = [(i, w) for i, w in zip(encoded.ids, encoded.word_ids, strict=True) if w]
    return next(
        (words[w] for (i, w), other in zip(in_list, in_text, strict=False) if i != other),
        None if len(in_list) == len(in_text) else words[-1],
    )


def _words_of(tok: transformers.PreTrainedTokenizerBase) -> list[str]:
    """Some words to try a tokenizer on: English ones, figures, marks, and words of its own vocabulary."""
    by_number = sorted(tok.get_vocab().items(), key=lambda item: item[1])
    vocabulary = (tok.convert_tokens_to_string([token]).strip() for token, _ in by_number)
    own = [w for w in vocabulary if len(w) > 2 and w.isalpha()]
    added = [str(t) for t in tok.added_tokens_decoder.values() if not t.special and str(t).split() == [str(t)]]
    return [
        *"the green tree sleeps under 24 birds ; is it so , at 3.50 % ? 12345".split(),
        *added[:40],
        *own[:: max(1, len(own) // 40)],
    ]


def _without_tokenizer(folder: Path) -> str | None:
    """Why there is no fast tokenizer in a folder, if the lack of a file is the reason."""
    files = {path.name for path in folder.glob("*")}
    models = [n for n in ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "vocab.json") if n in files]
    if not folder.is_dir() or "tokenizer.json" in files or (not models and "vocab.txt" in files):
        return None
    there = f"only {models[0]}" if models else "nor a vocabulary"
    return (
        f"{folder} holds no tokenizer.json, {there}: make it once where the tokenizer can be converted (packages "
        f"sentencepiece and protobuf): AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
    )


def configuration(study: params.Study) -> transformers.PretrainedConfig:
    """``config.json`` of the study's encoder, without what an earlier use left in it: kind of problem, outputs that
    are not asked for, caches of a generation, a way to compute attention that is not here.

    Raises EncoderError for what is no encoder.
    """
    checkpoint = locate(study)
    config = _load(library().AutoConfig, checkpoint)
    _refuse({
        f"{checkpoint} is an encoder-decoder ({config.model_type}): only encoders can be studied":
            getattr(config, "is_encoder_decoder", False),
        f"{checkpoint} is no encoder of text: {config.model_type} has no layers of one width":
            not (hasattr(config, "num_hidden_layers") and hasattr(config, "hidden_size")),
        f"{checkpoint} is quantised: its weights are not those that were trained. Use the full ones":
            getattr(config, "quantization_config", None),
        f"{checkpoint} holds an adapter, which would not be applied: merge it into the weights first":
            Path(checkpoint, "adapter_config.json").exists(),
    })  # fmt: skip
    plain = {
        "output_hidden_states": False, "output_attentions": False, "use_cache": False, "use_mems_eval": False,
        "problem_type": None, "chunk_size_feed_forward": 0, "return_dict": True,
    }  # fmt: skip
    config.update({name: value for name, value in plain.items() if hasattr(config, name)})
    if config._attn_implementation not in ("eager", "sdpa"):
        config._attn_implementation = None
    return config


def architecture(study: params.Study) -> str:
    """The ``model_type`` of the study's encoder: ``bert``, ``roberta``, ``xlnet``, …; of a named source whose entry
    says so, without fetching it."""
    source = sources.SOURCES.get(study.encoder.checkpoint)
    return (source and source.architecture) or configuration(study).model_type


def shape(study: params.Study) -> tuple[int, int]:
    """Layers (the embedding output counts as one) and width of the study's encoder, without loading its weights."""
    config = configuration(study)
    return config.num_hidden_layers + 1, config.hidden_size


def pretrained(study: params.Study) -> transformers.PreTrainedModel:
    """The encoder as it was released, without a head, in float32 (``bare``)."""
    return bare(study)[0]


def bare(study: params.Study) -> tuple[transformers.PreTrainedModel, set[str]]:
    """The encoder as it was released, in float32, and the names of its weights that the checkpoint lacks: those of a
    pooler, which only heads read, at most. Raises EncoderError as ``_weights`` does."""
    return _weights(locate(study), config=configuration(study), **safe_weights(study))


def randomised(study: params.Study) -> transformers.PreTrainedModel:
    """The same architecture with fresh weights, drawn by the study's seed: what probes read without any training."""
    torch.manual_seed(study.seed)
    return library().AutoModel.from_config(configuration(study), dtype=torch.float32).eval()


def finetuned(folder: Path) -> transformers.PreTrainedModel:
    """The encoder inside a fine-tuned model of ours, without its head. Raises EncoderError as ``bare`` does."""
    return _weights(str(folder), use_safetensors=True)[0]


def classifier(study: params.Study, labels: Sequence[str]) -> transformers.PreTrainedModel:
    """The encoder as it was released under a new head, its weights drawn by PyTorch's generator as it stands.

    ``labels`` : the class names; none for a regression. A head in the checkpoint is not used.

    Raises EncoderError as ``bare`` and ``head`` do.
    """
    with torch.random.fork_rng(devices=[]):
        encoder, absent = bare(study)
    names = dict(enumerate(labels or ["score"]))
    config = configuration(study)
    config.id2label, config.label2id = names, {n: i for i, n in names.items()}
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer(study).pad_token_id
    weights = {name: weight for name, weight in encoder.state_dict().items() if name not in absent}
    model, report = head(study).from_pretrained(
        None, config=config, state_dict=weights, dtype=torch.float32, output_loading_info=True
    )
    if lost := [
        key for key in report["missing_keys"]
        if key.startswith(f"{model.base_model_prefix}.") and not POOLER.search(key)
    ]:  # fmt: skip
        raise EncoderError(f"{config.model_type} under a head lacks weights that the encoder has: {_some(lost)}")
    return model


def without_layers(model: transformers.PreTrainedModel, end: str, count: int) -> transformers.PreTrainedModel:
    """A model without its ``count`` ``top`` or ``bottom`` layers, over the same embeddings (Sajjad et al. 2023).

    It is built from a config of fewer layers, so that it is saved and loaded like any other.

    Raises
    ------
    EncoderError : it has too few layers, they are no list of modules, or what a layer computes depends on its place.
    """
    kind, every = model.config.model_type, model.config.num_hidden_layers
    lists = [name for name, part in model.named_modules() if isinstance(part, torch.nn.ModuleList)]
    stacks = [name for name in lists if len(model.get_submodule(name)) == every]
    _refuse({
        f"{kind} has {every} layers: {count} of them cannot be dropped, at most {every - 1}": count >= every,
        f"{kind}: its layers cannot be dropped: they are not a list of {every} modules": len(stacks) != 1,
    })  # fmt: skip
    kept, (stack,) = range(every)[count:] if end == "bottom" else range(every - count), stacks
    config = type(model.config).from_dict(model.config.to_dict())
    per_layer = {k: v for k, v in vars(config).items() if isinstance(v, list | tuple) and len(v) == every}
    config.update({k: [v[i] for i in kept] for k, v in per_layer.items()} | {"num_hidden_layers": len(kept)})
    smaller, weights = type(model)(config), {}
    for name, weight in model.state_dict().items():
        layer, _, rest = name.removeprefix(f"{stack}.").partition(".")
        if not name.startswith(f"{stack}."):
            weights[name] = weight
        elif int(layer) in kept:
            weights[f"{stack}.{kept.index(int(layer))}.{rest}"] = weight
    try:
        smaller.load_state_dict(weights)
    except RuntimeError as error:
        raise EncoderError(
            f"{kind}: its layers cannot be dropped: one has other weights at another place ({_in_short(error)})"
        ) from error
    owner, _, place = stack.rpartition(".")
    layers = model.get_submodule(stack)
    setattr(model.get_submodule(owner), place, torch.nn.ModuleList(layers[i] for i in kept))
    with torch.inference_mode():  # the same layers at other places, in the model that they come from
        alike = [one.eval()(torch.arange(5, 12)[None]).logits for one in (model, smaller)]
    setattr(model.get_submodule(owner), place, layers)
    _refuse({f"{kind}: its layers cannot be dropped: what one computes depends on its place":
        not torch.allclose(*alike, rtol=1e-4, atol=1e-5)})  # fmt: skip
    return smaller


def head(study: params.Study) -> type[transformers.PreTrainedModel]:
    """The class of the study's encoder under a head for sentences. Raises EncoderError if it cannot be fine-tuned."""
    config, heads = configuration(study), library().MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    _refuse({
        f"{locate(study)}: transformers has no head for tasks on top of {config.model_type}":
            type(config) not in heads,
        f"{locate(study)}: the tokenizer has no special token to pad with (pad_token)":
            tokenizer(study).pad_token_id is None,
    })  # fmt: skip
    return heads[type(config)]


def _weights(checkpoint: str, **options: object) -> tuple[transformers.PreTrainedModel, set[str]]:
    """The encoder in a checkpoint, in float32, and the names of its weights that the checkpoint lacks.

    Raises
    ------
    EncoderError : a weight of the encoder is not in the file, has another shape, is not of this architecture, or holds
        what is not a number.
    """
    model, report = _load(
        library().AutoModel, checkpoint, dtype=torch.float32, output_loading_info=True,
        ignore_mismatched_sizes=True, **options,
    )  # fmt: skip
    absent = report["missing_keys"]
    inside = {name.partition(".")[0] for name, _ in (*model.named_parameters(), *model.named_buffers())}
    buffers = {name for name, _ in model.named_buffers()}
    own = {key: key.removeprefix(f"{model.base_model_prefix}.") for key in report["unexpected_keys"]}
    problems = {
        "not in the file, which would be random": [key for key in absent if not POOLER.search(key)],
        "in the file for which it has no place": [
            key for key, name in own.items()
            if name.partition(".")[0] in inside and name not in buffers and not OF_NO_USE.search(name)
        ],
        "of another shape there": [f"{key} {tuple(a)}, not {tuple(b)}" for key, a, b in report["mismatched_keys"]],
    }  # fmt: skip
    if message := "; ".join(f"{len(keys)} {what} ({_some(keys)})" for what, keys in problems.items() if keys):
        raise EncoderError(
            f"the weights of {checkpoint} are not those of the architecture in its config.json "
            f"({model.config.model_type}): {message}. Get config.json and weights of one and the same model, with the "
            "names that transformers gives (model.save_pretrained)"
        )
    if bad := [n for n, w in model.named_parameters() if n not in absent and not bool(torch.isfinite(w).all())]:
        raise EncoderError(f"the weights of {checkpoint} are damaged: not all are finite numbers in {_some(bad)}")
    return model.eval(), absent


OF_NO_USE = re.compile(r"(^|\.)(pooler(\..*)?|masked_bias|attn\.bias|attention\.bias|position_ids|inv_freq)$")
"""What a checkpoint may hold although the encoder has no place for it: a pooler, and buffers of earlier versions."""

POOLER = re.compile(r"(^|\.)pooler(\.|$)")
"""Weights above the top layer that many checkpoints lack."""


def _some(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (", …" if len(names) > 3 else "")


def check(study: params.Study, elsewhere: bool = False) -> None:
    """Whether the study's encoder can be probed: weights, tokenizer and one forward pass of the longest input; and,
    unless it is computed ``elsewhere``, whether its device is here.

    Raises
    ------
    EncoderError : what does not fit, and what to do.
    """
    checkpoint, tok, model = locate(study), tokenizer(study), pretrained(study)
    if not elsewhere:
        device(study)
    try:
        rows = len(model.get_input_embeddings().weight)
    except NotImplementedError as error:
        raise EncoderError(f"{checkpoint}: {model.config.model_type} has no embeddings of sub-words") from error
    token, number = max(tok.get_vocab().items(), key=lambda item: item[1])
    padding = _counted_from(model)
    _refuse({
        f"{checkpoint}: the tokenizer knows the token {token!r} (number {number}), but the encoder has embeddings for "
        f"{rows} tokens only. Use the tokenizer that the encoder was trained with":
            number >= rows,
        f"{checkpoint}: the encoder counts positions from its padding token {padding} on, but the tokenizer pads with "
        f"{tok.pad_token_id} ({tok.pad_token}). Make pad_token_id in config.json and the tokenizer agree":
            padding not in (-1, tok.pad_token_id),
    })  # fmt: skip
    if tok.pad_token in (tok.eos_token, tok.sep_token, tok.unk_token, tok.bos_token):
        print(f"{checkpoint} has no padding token: {tok.pad_token} stands for it (padding is masked)")
    longest = max_length(study, tok, model)
    text = tok(" ".join(_words_of(tok)), verbose=False)["input_ids"]
    hints = {min(8, longest): "this version of transformers cannot run it", longest: "lower encoder.max_subwords"}
    for length, hint in hints.items():
        try:
            layers_of(model, (text * length)[:length])
        except EncoderError as error:
            raise EncoderError(f"{checkpoint}, an input of {length} sub-words: {error}; {hint}") from error


@torch.inference_mode()
def layers_of(model: transformers.PreTrainedModel, ids: Sequence[int]) -> tuple[int, int]:
    """Layers (the embedding output counts as one) and width, as the model gives them for an input [sub-words].

    Raises
    ------
    EncoderError : it fails, or does not give a vector of finite numbers per sub-word at every layer.
    """
    kind, least = model.config.model_type, model.config.num_hidden_layers + 1
    batch = torch.tensor([ids], device=model.device)
    try:
        hidden = model(batch, attention_mask=torch.ones_like(batch), output_hidden_states=True).hidden_states or ()
    except Exception as error:  # whatever an architecture raises
        raise EncoderError(f"{kind} fails: {_in_short(error)}") from error
    _refuse({
        f"{kind} does not give {least} layers of one vector per sub-word, so they cannot be compared":
            len(hidden) < least or len({h.shape for h in hidden}) != 1 or hidden[0].shape[:2] != batch.shape,
        f"{kind} gives values that are not numbers, as damaged weights do":
            not all(bool(torch.isfinite(h).all()) for h in hidden),
    })  # fmt: skip
    return len(hidden), hidden[0].shape[2]


PICKLED = "pytorch_model.bin"


def safe_weights(study: params.Study) -> dict[str, bool]:
    """Loading options that refuse pickled weights, unless the file has the digest that the study or ``hub.yaml`` pins.

    Raises EncoderError for a folder whose weights are not safetensors.
    """
    folder, encoder = Path(locate(study)), study.encoder
    if [*folder.glob("*.safetensors")]:
        return {"use_safetensors": True}
    pinned = encoder.weights_sha256 or hub.pinned(encoder.checkpoint, encoder.revision).get(PICKLED)
    file = folder / PICKLED
    _refuse({
        f"{folder} holds no weights (*.safetensors). Pickled ones are fetched from the hub only if "
        "encoder.weights_sha256 pins them": not file.exists(),
        f"{folder} is not safetensors: its weights would be unpickled, which can run code. Convert them "
        "(model.save_pretrained), or pin encoder.weights_sha256 to load exactly that file, weights only": not pinned,
    })  # fmt: skip
    sources.verify(file, pinned, "Get the pinned file, or correct encoder.weights_sha256 if this one is meant")
    return {"use_safetensors": False, "weights_only": True}


def max_length(
    study: params.Study, tok: transformers.PreTrainedTokenizerBase, model: transformers.PreTrainedModel
) -> int:
    """Longest input in sub-words, special tokens included."""
    limits = [study.encoder.max_subwords or 512, tok.model_max_length]
    positions = getattr(model.config, "max_position_embeddings", None) or -1
    if positions > 0:  # relative positions (XLNet says -1) allow any length
        limits.append(positions - 1 - _counted_from(model))
    return min(limits)


def _counted_from(model: transformers.PreTrainedModel) -> int:
    """The row of the table of positions that stands for padding, where positions are counted from it on; else -1."""
    tables = (module for name, module in model.named_modules() if name.endswith("position_embeddings"))
    return next((t.padding_idx for t in tables if getattr(t, "padding_idx", None) is not None), -1)


def _load(kind: type, checkpoint: str, **options: object):
    try:
        return kind.from_pretrained(checkpoint, trust_remote_code=False, local_files_only=True, **options)
    except Exception as error:  # damaged files raise some ten kinds
        raise EncoderError(
            f"the encoder '{checkpoint}' cannot be loaded: {_in_short(error)}\n"
            "It needs config.json, tokenizer.json and model.safetensors of one and the same model"
        ) from error


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {textwrap.shorten(str(error), 300, placeholder=' …') or '-'}"
