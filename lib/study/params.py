"""Study: the parameters of one encoder, read from ``params/<study>.yaml`` over ``params/base.yaml`` and validated.

Nothing is computed before every value has been checked: a misspelt key is refused with the nearest valid name, a value
of the wrong type or range with its place in the file.
"""

import difflib
import json
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from lib.study.errors import ParameterError as ParameterError
from lib.study.variants import CONDITION, Variant

ROOT = Path(__file__).resolve().parents[2]
"""The repository root; every relative path in a parameter file starts here."""


SPLITS = ("train", "dev", "test")


Fraction = Annotated[float, Field(ge=0, le=1)]


Part = Annotated[float, Field(gt=0, le=0.5)]


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


Penalty = Annotated[float, Field(ge=0, allow_inf_nan=False)]


Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def nearest(name: str, known: Iterable[Any]) -> str:
    """``; did you mean '…'?`` with the nearest known name, or nothing."""
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def shown(value: Any) -> str:
    """A value as Python writes it, cut where it is long: a few aliases of YAML can stand for billions of words."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 200
    try:
        return short.repr(value)[:1000]
    except ValueError:  # Python refuses to write out an integer of thousands of digits
        return "a huge number"


class Format(NamedTuple):
    """A format of corpora. The function ``read`` of the module with its name in ``lib/corpora`` reads it.

    ``needs`` : the parameters of a corpus that it cannot do without. ``properties`` : what it can give; none: what the
    corpus's ``columns`` name. ``gold`` : those whose labels people assigned, unless the corpus says so itself.
    ``sources`` : property → the named source that its labels come from, beside the source of the corpus.
    """

    needs: tuple[str, ...]
    properties: tuple[str, ...] = ()
    gold: tuple[str, ...] = ()
    sources: Mapping[str, str] = {}


FORMATS = {
    "brown": Format(("source",), ("pos", "chunk", "supersense"), ("pos",), {"supersense": "wordnet"}),
    "columns": Format(("files", "columns")),
}


class Encoder(Section):
    """Which encoder, and how words are read from it.

    ``checkpoint`` : a named source (``lib.sources``), a folder, or a hub id. ``revision`` : hub commit; by default the
    one in ``lib/hub.yaml``; an id that is not there needs it, or Make refuses it. ``weights_sha256`` :
    the digest that its weight file must have; needed only for a checkpoint that is neither safetensors nor in
    ``lib/hub.yaml``. ``pooling`` : which sub-word stands for the word (method: the last). ``max_subwords`` : longest
    input, longer sentences are read in windows; default: what the encoder was built for, at most 512.
    ``batch_subwords`` : per forward pass of the extraction, padding included; default: 512 on a CPU (what its caches
    hold), 16,384 elsewhere.
    """

    checkpoint: str
    revision: str | None = None
    weights_sha256: str | None = None
    pooling: Literal["last", "first", "average"] = "last"
    max_subwords: Count | None = None
    batch_subwords: Count | None = None


class Corpus(Section):
    """Word-labelled sentences in three splits.

    ``source`` : the named source (format brown). ``files`` : the file of each split (format columns); without ``dev``,
    every tenth training sentence is held out. ``columns`` : which column (from 0) is the word and which is each
    property, e.g. ``{word: 0, pos: 1}``. ``gold`` : the properties whose labels people assigned; all others
    are marked silver wherever they are shown.
    """

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    format: Literal[*FORMATS]
    source: str | None = None
    files: dict[Literal["train", "dev", "test"], str] = {}
    columns: dict[str, int] = {}
    separator: Literal["whitespace", "tab"] = "whitespace"
    gold: list[str] = Field(default_factory=lambda known: [*FORMATS[known["format"]].gold])
    train_words: Count
    dev_words: Count
    test_words: Count

    @model_validator(mode="after")
    def _complete(self) -> "Corpus":
        complete = {
            "source": (self.source, "the name of a source"),
            "files": ({"train", "test"} <= set(self.files), "files: {train: ..., test: ...} (dev is optional)"),
            "columns": ("word" in self.columns and self.columns.keys() - {"word"},
                        "columns: {word: 0, <property>: 1, ...}"),
        }  # fmt: skip
        for holds, need in (complete[name] for name in FORMATS[self.format].needs):
            if not holds:
                raise ValueError(f"format '{self.format}' needs {need}")
        if taken := {"text", "sentence", "position"} & set(self.properties):
            raise ValueError(f"{sorted(taken)[0]!r} cannot be a property: it names where a word stands")
        return self

    @property
    def properties(self) -> list[str]:
        """The properties that it can give."""
        return [*FORMATS[self.format].properties] or [name for name in self.columns if name != "word"]

    def sources(self, properties: Iterable[str]) -> set[str]:
        """The named sources that it and these properties of it come from."""
        labels = FORMATS[self.format].sources
        return {self.source, *(labels.get(name) for name in properties)} - {None}


class OwnTask(Section):
    """A downstream task of the user's own: a table of texts and labels for training and one for testing.

    ``labels`` : class names in the order of their numbers; absent: a regression on the column ``label``.
    """

    format: Literal["csv", "json", "parquet"]
    files: dict[Literal["train", "test"], str]
    text: str
    text_pair: str | None = None
    label: str = "label"
    labels: list[Annotated[str, Field(min_length=1)]] | None = None

    @field_validator("files")
    @classmethod
    def _both(cls, files: dict[str, str]) -> dict[str, str]:
        if len(files) < 2:
            raise ValueError("a task needs files: {train: ..., test: ...}")
        return files

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: list[str] | None) -> list[str] | None:
        if labels is not None and len(labels) < 2:
            raise ValueError("a task needs two classes at least; one without 'labels' is a regression")
        if twice := [n for i, n in enumerate(labels or []) if n in (labels or [])[:i]]:
            raise ValueError(f"the class '{twice[0]}' is given twice")
        return labels

    @model_validator(mode="after")
    def _columns(self) -> "OwnTask":
        if self.label in (self.text, self.text_pair) or self.text == self.text_pair:
            raise ValueError("text, text_pair and label are columns of their own; one is named twice")
        return self


class TaskData(Section):
    """The data of the tasks. ``glue`` : hub id or local folder. ``glue_revision`` : hub commit; by default the one in
    ``lib/hub.yaml``. ``*_examples`` : at most this many; default: all. ``sample`` : the number of the random sample of
    training examples."""

    glue: str = "nyu-mll/glue"
    glue_revision: str | None = None
    own: dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], OwnTask] = {}
    sample: Annotated[int, Field(ge=0, lt=2**16)] = 0
    train_examples: Count | None = None
    dev_examples: Count | None = None
    test_examples: Count | None = None


class FinetuneSettings(Section):
    """``warmup`` : the share of the updates over which the learning rate rises to its value, before it falls to 0.
    ``evaluations`` : points of the learning curve."""

    epochs: Positive
    batch_size: Count
    learning_rate: Positive
    warmup: Fraction
    weight_decay: Penalty = 0.0
    max_subwords: Count = 128
    evaluations: Count


class ProbeSettings(Section):
    """``l1``, ``l2`` : λ1 and λ2 of λ1·Σ|W| + λ2·‖W‖₂ (weights only); ``squared`` : λ2·‖W‖₂² instead. ``penalties`` :
    ``model_type`` → property → its own λ1 and λ2. ``standardise`` : scale every neuron to mean 0 and deviation 1 over
    the training words; false is the toolkit's way (raw). ``tolerance`` : training ends before ``epochs`` when the loss
    on the first 2,048 training words has fallen by less than this share in five epochs, at every layer; 0: never."""

    epochs: Count
    batch_size: Count
    learning_rate: Positive
    l1: Penalty
    l2: Penalty
    squared: bool = False
    penalties: dict[
        Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")],
        dict[str, Annotated[list[Penalty], Field(min_length=2, max_length=2)]],
    ] = {}
    standardise: bool = True
    order: Literal["shuffled", "corpus"] = "shuffled"
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def penalty(self, architecture: str, name: str) -> tuple[float, float]:
        """λ1 and λ2 of a property."""
        l1, l2 = self.penalties.get(architecture, {}).get(name, (self.l1, self.l2))
        return l1, l2


class RankingSettings(Section):
    """``l1`` : values of λ1 = λ2 to try; with several, the best by LCA's search score; with none, the probe's own
    penalties. ``min_label_words`` : labels with fewer training words are left out of the ordering. ``sizes`` :
    fractions of all neurons that a probe is retrained on, ascending; the last is 1. ``top`` : the fraction of all
    neurons that counts as the top and, from the end, as the bottom; ``tops`` : property → its own. ``deltas`` :
    relative loss of accuracy allowed to the minimal set. ``half_samples`` : how many rankings are learnt from half of
    the training texts, to tell how much the neurons depend on the words."""

    l1: list[Penalty]
    mass_steps: Count = 1000
    min_label_words: Count = 100
    sizes: list[Fraction] = Field(min_length=1)
    top: Part
    tops: dict[str, Part] = {}
    deltas: list[Fraction] = Field(min_length=1)
    half_samples: Annotated[int, Field(ge=0)] = 0

    def top_of(self, name: str) -> float:
        """The fraction of all neurons that is the top of a property."""
        return self.tops.get(name, self.top)

    @model_validator(mode="after")
    def _ascending(self) -> "RankingSettings":
        if self.sizes != sorted(set(self.sizes)) or self.sizes[-1] != 1 or self.sizes[0] == 0:
            raise ValueError("sizes must ascend from above 0 to 1.0")
        return self


class Study(Section):
    """All parameters of a study.

    ``suite`` : the studies that are drawn together; a file calls it ``scale``. ``corpus`` : of all properties that have
    none of their own. ``corpora`` : property → its own corpus, laid over ``corpus`` (``loading.merge``). ``tasks`` :
    what is fine-tuned on, with what is not as usual (``sst2-1k``, ``variants.CONDITION``), once with each of ``seeds``.
    ``precision`` : of the passes through the encoder, in fine-tuning and extraction; weights and probes are float32.
    """

    name: str
    preset: str
    suite: str = Field(alias="scale", pattern=r"^[a-z0-9_]+$")
    title: str = Field(min_length=1)
    encoder: Encoder
    corpus: Corpus | None = None
    corpora: dict[str, Corpus] = {}
    properties: list[str] = Field(min_length=1)
    tasks: list[
        Annotated[str, Field(pattern=f"^{CONDITION}$"), AfterValidator(lambda name: Variant.parse(name, 0).condition)]
    ]
    seeds: list[Annotated[int, Field(ge=0)]] = Field([1], min_length=1)
    task_data: TaskData
    finetune: FinetuneSettings
    probe: ProbeSettings
    ranking: RankingSettings
    seed: int = Field(ge=0, lt=2**32)
    device: str = Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: Count

    @model_validator(mode="after")
    def _properties_are_known(self) -> "Study":
        known = {*self.properties, *(p for form in FORMATS.values() for p in form.properties), "sem", "ccg"}
        penalised = {name for of in self.probe.penalties.values() for name in of}
        for field, names in (("ranking.tops", set(self.ranking.tops)), ("probe.penalties", penalised)):
            if unknown := sorted(names - known):
                raise ValueError(f"{field}: there is no property '{unknown[0]}'{nearest(unknown[0], known)}")
        return self

    @model_validator(mode="after")
    def _corpora_fit(self) -> "Study":
        own = {name: (f"corpora.{name}", corpus) for name, corpus in self.corpora.items()}
        used = {name: own.get(name, ("corpus", self.corpus)) for name in self.properties}
        first: dict[str, tuple[str, Corpus]] = {}
        for name, (field, corpus) in (used | own).items():
            if corpus is None:
                raise ValueError(f"property '{name}' has no corpus: give corpus, or corpora.{name}")
            for listed, what in (([name], "property"), (corpus.gold, f"{field}.gold:")):
                if unknown := [p for p in listed if p not in corpus.properties]:
                    known = f"(it has {', '.join(corpus.properties)})"
                    raise ValueError(f"{what} '{unknown[0]}' is not in corpus '{corpus.name}' {known}")
            if name in used and corpus != first.setdefault(corpus.name, (field, corpus))[1]:
                raise ValueError(
                    f"{first[corpus.name][0]} and {field} differ, but both are named '{corpus.name}': give one of "
                    "them another name, or make them equal"
                )
        return self

    def training(self, variant: Variant) -> FinetuneSettings:
        """The settings of a variant's training: the study's, with the learning rate of the variant if it has one."""
        return self.finetune.model_copy(update={"learning_rate": float(variant.rate)} if variant.rate else {})

    def corpus_of(self, name: str) -> Corpus:
        """The corpus of a property."""
        corpus = self.corpora.get(name, self.corpus)
        assert corpus
        return corpus

    @property
    def corpora_in_use(self) -> dict[str, tuple[Corpus, list[str]]]:
        """Name of each corpus → the corpus and the study's properties that it labels."""
        out: dict[str, tuple[Corpus, list[str]]] = {}
        for name in self.properties:
            corpus = self.corpus_of(name)
            out.setdefault(corpus.name, (corpus, []))[1].append(name)
        return out

    @property
    def sources(self) -> set[str]:
        """The named sources that its corpora come from."""
        return set().union(*(corpus.sources(properties) for corpus, properties in self.corpora_in_use.values()))

    def is_gold(self, name: str) -> bool:
        """Whether people assigned the labels of a property."""
        return name in self.corpus_of(name).gold

    def table(self) -> pd.DataFrame:
        """The resolved parameters, one row each, for display."""
        flat = pd.json_normalize(self.model_dump(), sep=".").iloc[0]
        return flat.map(lambda v: json.dumps(v) if isinstance(v, list | dict) else v).rename("value").to_frame()
