"""What the tests share: tiny encoders made on the spot, runs written to a temporary folder, and no network."""

import atexit
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_CACHE = tempfile.mkdtemp(prefix="tests-datasets-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": _CACHE, "TOKENIZERS_PARALLELISM": "false"}

import lib  # noqa: E402, F401 - before torch, as in the lessons: it says how torch computes

# isort: split
import numpy as np  # noqa: E402 - the environment comes first
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load  # noqa: E402
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402
from transformers import (  # noqa: E402
    AutoModel,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLNetConfig,
)

from lib import disk, hub, sources, surroundings  # noqa: E402
from lib.encoders.activations import Activations  # noqa: E402
from lib.encoders.alignment import Alignment  # noqa: E402
from lib.study import inputs, loading, params, runs  # noqa: E402
from lib.study.runs import Run  # noqa: E402
from lib.study.steps import STEPS  # noqa: E402
from lib.study.variants import Variant  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


def copy_repository(folder: Path, but: str = "") -> Path:
    """Copy the repository's own files into a folder, those below ``but`` left out, with a link to the data."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True).stdout.decode().split("\0")
    if "Makefile" not in listed:  # no git here, or no repository
        own = ("bench", "expected", "figures", "lib", "models", "notebooks", "params", "results", "tests")
        found = [p for p in ROOT.iterdir() if p.is_file()] + [p for name in own for p in (ROOT / name).rglob("*")]
        listed = [p.relative_to(ROOT).as_posix() for p in found if "__pycache__" not in p.parts]
    for name in filter(None, listed):
        if (ROOT / name).is_file() and not (but and name.startswith(f"{but}/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    sources.home().mkdir(parents=True, exist_ok=True)
    (folder / "data").symlink_to(sources.home())
    return folder


def write_result(run: runs.Run, *steps: str, key: str = "") -> None:
    """Write a finished result of each step of a run, empty but for a file and the manifest."""
    for step in steps:
        for folder in STEPS[step].folders(run):
            with disk.atomic_write(folder) as part:
                part.mkdir()
                (part / "file").write_text("content")
                disk.write_manifest(part, {"key": key or run.key(step)})


SENTENCES = [
    "the old dog sleeps under the green tree",
    "a small bird sings in the morning light",
    "they walked slowly along the river bank",
    "nobody understands these unbelievable complications",
    "she quickly reads the interesting newspaper again",
    "we never eat bread without butter , do we ?",
    "the children played happily until the evening came",
    "his answer was short and not very friendly .",
]
KINDS = ("bert", "roberta", "xlnet", "plain")


def _wordpiece() -> PreTrainedTokenizerFast:
    tok = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tok.normalizer, tok.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tok.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special))
    tok.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tok, **names)


def _byte_level(prefix: bool = True) -> PreTrainedTokenizerFast:
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer, tok.decoder = pre_tokenizers.ByteLevel(add_prefix_space=prefix), decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=360, special_tokens=special, initial_alphabet=alphabet)
    tok.train_from_iterator([f" {s}" for s in SENTENCES], trainer)
    tok.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tok, bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>", pad_token="<pad>",
        unk_token="<unk>", mask_token="<mask>", add_prefix_space=prefix,
    )  # fmt: skip


def _unigram() -> PreTrainedTokenizerFast:
    tok = Tokenizer(models.Unigram())
    tok.pre_tokenizer, tok.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>")
    tok.train_from_iterator(SENTENCES, trainer)
    tok.post_processor = processors.TemplateProcessing(
        single="$A:0 <sep>:0 <cls>:2", pair="$A:0 <sep>:0 $B:1 <sep>:1 <cls>:2",
        special_tokens=[("<sep>", 4), ("<cls>", 3)],
    )  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=tok, cls_token="<cls>", sep_token="<sep>", pad_token="<pad>", unk_token="<unk>",
        mask_token="<mask>", padding_side="left",
    )  # fmt: skip


def _special_free() -> PreTrainedTokenizerFast:
    """Byte-pairs of the training letters only: a word of another script becomes nothing."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Whitespace()
    tok.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=120, special_tokens=["<pad>"]))
    return PreTrainedTokenizerFast(tokenizer_object=tok, pad_token="<pad>")


TOKENIZERS = {"bert": _wordpiece, "roberta": _byte_level, "xlnet": _unigram, "plain": _special_free}


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """Larger weights than the initial ones, under which all layers look alike."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "norm" not in name.lower():
                weight.normal_(0, 0.3)
    return model


def build_encoder(folder: Path, kind: str, width: int = 16, layers: int = 2, longest: int = 64) -> Path:
    """A random tiny encoder of one of ``KINDS`` with its tokenizer, saved as a checkpoint folder."""
    tok = TOKENIZERS[kind]()
    tok.model_max_length = longest
    size = {"vocab_size": len(tok), "pad_token_id": tok.pad_token_id}
    shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 32}
    if kind == "roberta":  # positions are counted from the padding id on
        config = RobertaConfig(**size, **shape, max_position_embeddings=longest + 2, bos_token_id=0, eos_token_id=2)
    elif kind == "xlnet":
        config = XLNetConfig(**size, d_model=width, n_layer=layers, n_head=2, d_inner=32)
    else:
        config = BertConfig(**size, **shape, max_position_embeddings=longest)
    torch.manual_seed(7)
    randomise(AutoModel.from_config(config)).save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Kind of tiny encoder → its checkpoint folder; made once, read only."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = build_encoder(tmp_path_factory.mktemp(f"encoder-{kind}"), kind)
        return made[kind]

    return folder


CACHES = (sources.fetch, hub.folder, hub._unreached, inputs.code_digest)


def forget() -> None:
    """Empty the caches that hold for the life of a process."""
    for cached in CACHES:
        cached.cache_clear()


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs are written to a temporary folder; nothing remembered from another test; one thread."""
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    torch.set_num_threads(1)
    forget()
    yield
    forget()


@pytest.fixture
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for the sources, in place of the repository's ``data/``."""
    folder = tmp_path / "data"
    monkeypatch.setenv("DATA", str(folder))
    return folder


@pytest.fixture
def source() -> Callable[[str], Path]:
    """Name of a registry source → its folder; the test is skipped where it is not here and cannot be fetched."""

    def folder(name: str) -> Path:
        try:
            return sources.fetch(name)
        except (sources.SourceError, OSError) as error:
            pytest.skip(f"source {name} is not here: {str(error).splitlines()[0]}")

    return folder


@pytest.fixture
def shared() -> Path:
    """The development mirror; the test is skipped where there is none."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the development mirror {folder} is not here")
    return folder


def write_columns(file: Path, sentences: list[list[tuple[str, ...]]], separator: str = " ") -> Path:
    """Sentences of (word, label, ...) as a column file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join("".join(separator.join(row) + "\n" for row in s) + "\n" for s in sentences)
    file.write_text(text, encoding="utf-8")
    return file


NOUNS, VERBS = ("dog", "bird", "tree", "river", "bank", "light"), ("sings", "sleeps", "walked", "played", "reads")
OTHERS = ("the", "a", "under", "slowly", "happily", "unbelievable", "complications", "again", ",", "x-ray")


def labelled_sentences(count: int, seed: int) -> list[list[tuple[str, str]]]:
    """Different random sentences, each word with the label N, V or O of its type (``bank`` is N or V by its place)."""
    rng = np.random.default_rng(seed)
    kind = dict.fromkeys(NOUNS, "N") | dict.fromkeys(VERBS, "V") | dict.fromkeys(OTHERS, "O")
    out: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    while len(out) < count:
        words = [str(w) for w in rng.choice([*kind], size=rng.integers(2, 12))]
        labels = ["V" if w == "bank" and i % 2 else kind[w] for i, w in enumerate(words)]
        out.setdefault(tuple(words), list(zip(words, labels, strict=True)))
    return list(out.values())


@pytest.fixture
def make_study(tmp_path: Path, encoder_folder: Callable[[str], Path]) -> Callable[..., params.Study]:
    """``make_study(kind, files=..., **overrides)``: a lesson-size study of a tiny encoder on a small corpus."""

    def make(kind: str = "bert", files: dict[str, str] | None = None, **overrides: Any) -> params.Study:
        if files is None:
            amounts = {"train": (60, 1), "dev": (20, 2), "test": (20, 3)}
            place = tmp_path / "corpus"
            files = {
                split: str(write_columns(place / f"{split}.txt", labelled_sentences(n, seed)))
                for split, (n, seed) in amounts.items()
            }
        corpus = {"name": "own", "format": "columns", "files": files, "columns": {"word": 0, "tag": 1}, "gold": ["tag"]}
        given = {
            "encoder": {"checkpoint": str(encoder_folder(kind))}, "corpus": corpus, "properties": ["tag"],
            "tasks": ["own"], "device": "cpu", "probe.epochs": 6,
            "probe.learning_rate": 0.02, "ranking.mass_steps": 100,
            "ranking.min_label_words": 5, "ranking.sizes": [0.05, 0.2, 1.0],
        }  # fmt: skip
        for key, value in overrides.items():
            given[key.replace("__", ".")] = value
        return loading.load("minilm", "lesson", given)

    return make


@pytest.fixture
def study_of(make_study: Callable[..., params.Study]) -> Callable[..., params.Study]:
    """``study_of(checkpoint, **options)``: a study of the encoder in a folder, with options of its section."""
    return lambda checkpoint, **options: make_study(encoder={"checkpoint": str(checkpoint), **options})


def with_variants(table: pd.DataFrame) -> pd.DataFrame:
    """A table made by hand, with the columns that its ``variant`` stands for (``Variant.columns``)."""
    meant = {name: Variant.parse(name).columns() for name in table["variant"].unique()}
    return table.assign(**{c: [meant[name][c] for name in table["variant"]] for c in Variant().columns()})


def store(vectors: np.ndarray, words: pd.DataFrame | None = None) -> Activations:
    """A store in memory: [layers, words, width] as float16."""
    table = words if words is not None else pd.DataFrame({"word": [f"w{i}" for i in range(vectors.shape[1])]})
    return Activations(vectors.astype(np.float16), table, pd.DataFrame())


NOUNS = "dog cat bird child teacher film story house road song".split()


VERBS = "sees likes finds knows hears takes".split()


SENTENCE = [("the", "DET"), ("{n}", "NOUN"), ("{v}", "VERB"), ("a", "DET"), ("small", "ADJ"), ("{m}", "NOUN")]


def environment() -> dict[str, str]:
    """The environment of a shell, without what pytest, Make and the libraries that a test has imported put into it."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "PYTEST"))}
    surroundings.clean(clean, [*surroundings.REMOVED, *surroundings.REMOVED_AT_START, "ISA"])
    return clean | {"HF_HUB_OFFLINE": "1"}


EMULATOR = shutil.which("qemu-x86_64")

PROCESSORS = {"AuthenticAMD": "EPYC-Rome", "GenuineIntel": "Haswell-noTSX"}
"""Maker → an emulated processor of it; neither has AVX-512."""


@pytest.fixture(scope="session")
def sibling() -> str:
    """An emulated processor of the same maker as the one at hand."""
    return _processor(alike=True)


@pytest.fixture(scope="session")
def stranger() -> str:
    """An emulated processor of another maker than the one at hand."""
    return _processor(alike=False)


def _processor(alike: bool) -> str:
    if not EMULATOR:
        pytest.skip("no qemu-x86_64 here, which stands in for other processors (Debian: apt install qemu-user)")
    if platform.machine() != "x86_64" or runs.maker() not in PROCESSORS:
        pytest.skip(f"equal digits are promised for AMD's and Intel's processors; this is {runs.maker()}")
    return next(name for maker, name in PROCESSORS.items() if (maker == runs.maker()) == alike)


def native(isa: str, *command: str, **variables: str) -> str:
    """What a Python program prints under an ``ISA``. Raises CalledProcessError."""
    return _output([sys.executable, *command], isa, variables)


def emulated(processor: str, isa: str, *command: str, **variables: str) -> str:
    """The same on an emulated processor, fifty to a hundred times as slow.

    NumPy is imported first, without AVX2: QEMU 7.2 crashes in its vectorised sort.
    """
    assert EMULATOR
    start = "import numpy, runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    variables |= {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"}
    return _output([EMULATOR, "-cpu", processor, sys.executable, "-c", start, *command], isa, variables)


def _output(command: list[str], isa: str, variables: dict[str, str]) -> str:
    settled = surroundings.SET | surroundings.arithmetic(isa) | {"ISA": isa, "PYTHONPATH": str(ROOT)}
    environ = environment() | settled | {"DATA": str(sources.home())} | variables
    return subprocess.check_output(command, cwd=ROOT, env=environ, text=True)


def make(folder: Path, *words: str) -> subprocess.CompletedProcess:
    command = ["make", f"PYTHON={sys.executable}", *words]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)


def sentences(count: int, start: int) -> str:
    lines = []
    for i in range(start, start + count):
        fill = {"n": NOUNS[i % 10], "v": VERBS[i // 10 % 6], "m": NOUNS[(i // 60 + i) % 10]}
        lines += [f"{w.format(**fill)} {tag}" for w, tag in SENTENCE] + [""]
    return "\n".join(lines)


CORPUS = """
corpus:
  name: mine
  format: columns
  files: {train: my-corpus/train.txt, test: my-corpus/test.txt}
  columns: {word: 0, pos: 1}
  gold: [pos]
properties: [pos]
"""
"""The section of a study on the corpus that ``save_corpus`` writes."""


def save_corpus(folder: Path) -> None:
    """Write the files of ``CORPUS`` into a copy of the repository."""
    (folder / "my-corpus").mkdir()
    (folder / "my-corpus" / "train.txt").write_text(sentences(400, 0), encoding="utf-8")
    (folder / "my-corpus" / "test.txt").write_text(sentences(100, 400), encoding="utf-8")


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


def represented(alignment: Alignment) -> list[int]:
    return sorted(int(i) for w in alignment.windows for i in w.words)


GOOD, BAD = ("sings", "light", "green", "friendly"), ("short", "old", "never", "nobody")
FILLER = "the dog bird tree river they walked along slowly under".split()


def examples(count: int, seed: int) -> pd.DataFrame:
    """Texts whose class is told by several of their words."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % 2)
    texts = []
    for label in labels:
        words = [*rng.choice(FILLER, size=rng.integers(1, 4)), *rng.choice(GOOD if label else BAD, size=4)]
        texts.append(" ".join(rng.permutation(words)))
    return pd.DataFrame({"text": texts, "label": np.where(labels, "good", "bad")})


@pytest.fixture
def run_of(make_study, tmp_path: Path):
    """``run_of(train, test, variant, **overrides)``: a run on an own task of these tables."""

    def make(
        train: pd.DataFrame, test: pd.DataFrame, variant: str = "own-s1", regression: bool = False, **overrides
    ) -> Run:
        files = {}
        for name, table in (("train", train), ("test", test)):
            files[name] = str(tmp_path / f"{name}.csv")
            table.to_csv(files[name], index=False)
        own = {"format": "csv", "files": files, "text": "text", **({} if regression else {"labels": ["bad", "good"]})}
        given = {
            "task_data": {"own": {"own": own}}, "finetune__epochs": 10.0, "finetune__batch_size": 16,
            "finetune__learning_rate": 5e-3, "finetune__evaluations": 4, **overrides,
        }  # fmt: skip
        return Run(make_study(**given), Variant.parse(variant))

    return make


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load((folder / "model.safetensors").read_bytes())


FILES = {"pkg/data/a.txt": b"alpha", "pkg/data/sub/b.txt": b"beta" * 1000, "pkg/other.txt": b"other"}


def tar(path: Path, files: dict[str, bytes], links: dict[str, tuple[bytes, str]] | None = None) -> Path:
    """A tar.gz; ``links`` : name → (tar type, target)."""
    with tarfile.open(path, "w:gz") as bundle:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            bundle.addfile(info, io.BytesIO(content))
        for name, (kind, target) in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            bundle.addfile(info)
    return path


def zipped(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in files.items():
            bundle.writestr(name, content)
        for name, target in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, 0o120777 << 16
            bundle.writestr(info, target)
    return path
