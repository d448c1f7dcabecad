"""Study: the parameters of one encoder, read from ``params/<study>.yaml`` over ``params/base.yaml`` and validated.

Nothing is computed before every value has been checked: a misspelt key is refused with the nearest valid name, a value
of the wrong type or range with its place in the file.
"""

import difflib
import json
import re
import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lib import grid

ROOT = Path(__file__).resolve().parents[1]
"""The repository root; every relative path in a parameter file starts here."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class ParameterError(ValueError):
    """A parameter file or an override that cannot be used; the message says what, where and what to do."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Encoder(Section):
    checkpoint: str
    """A named source (``lib.sources``), a folder, or a model hub id."""
    revision: str | None = None
    """Hub commit; pin it for a result that can be repeated."""
    weights_sha256: str | None = None
    """Needed only for a checkpoint that is not safetensors: the digest its weight file must have."""
    pooling: Literal["last", "first", "average"] = "last"
    """Which sub-word stands for the word (method: the last)."""
    max_pieces: Count | None = None
    """Longest input in sub-words; default: what the encoder was built for, at most 512. Longer
    sentences are read in windows."""
    batch_pieces: Count | None = None
    """Sub-words per forward pass of the extraction, padding included; default: 512 on a CPU (what its caches hold),
    16,384 elsewhere."""


class Corpus(Section):
    name: str = Field(pattern=r"^[a-z0-9_]+$")
    format: Literal["brown", "columns"]
    source: str | None = None
    """brown: the named source. columns: not used."""
    files: dict[Literal["train", "dev", "test"], str] = {}
    """columns: the file of each split. Without ``dev``, every tenth training sentence is held out."""
    columns: dict[str, int] = {}
    """columns: which column (from 0) is the word and which is each property, e.g. ``{word: 0, pos: 1}``."""
    separator: Literal["whitespace", "tab"] = "whitespace"
    gold: list[str] = []
    """The properties whose labels people assigned; every other property is marked silver wherever it is shown."""
    train_words: Count
    dev_words: Count
    test_words: Count

    @model_validator(mode="after")
    def _complete(self) -> "Corpus":
        if self.format == "columns":
            if not {"train", "test"} <= set(self.files):
                raise ValueError("format 'columns' needs files: {train: ..., test: ...} (dev is optional)")
            if "word" not in self.columns or len(self.columns) < 2:
                raise ValueError("format 'columns' needs columns: {word: 0, <property>: 1, ...}")
            if taken := {"text", "sentence", "position"} & set(self.columns):
                raise ValueError(f"{sorted(taken)[0]!r} cannot be a property: it names where a word stands")
        elif not self.source:
            raise ValueError(f"format '{self.format}' needs the name of a source")
        return self


class OwnTask(Section):
    """A downstream task of the user's own: a table of texts and labels for training and one for testing."""

    format: Literal["csv", "json", "parquet"]
    files: dict[Literal["train", "test"], str]
    text: str
    text_pair: str | None = None
    label: str = "label"
    labels: list[Annotated[str, Field(min_length=1)]] | None = None
    """Class names in the order of their numbers; absent: a regression on the column ``label``."""

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


class Tasks(Section):
    glue: str = "nyu-mll/glue"
    """Hub id or local folder of GLUE."""
    glue_revision: str | None = None
    own: dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], OwnTask] = {}
    train_examples: Count | None = None
    """At most this many; default: all."""
    dev_examples: Count | None = None
    test_examples: Count | None = None


class Finetune(Section):
    epochs: Positive
    batch_size: Count
    learning_rate: Positive
    warmup: Fraction = 0.0
    """The share of the updates over which the learning rate rises to its value, before it falls to 0."""
    weight_decay: Penalty = 0.0
    max_pieces: Count = 128
    evaluations: Count = 6
    """Points of the learning curve."""


class Probe(Section):
    epochs: Count
    batch_size: Count
    learning_rate: Positive
    l1: Penalty
    """λ1 of λ1·Σ|W| + λ2·‖W‖₂ (weights only)."""
    l2: Penalty
    standardise: bool = True
    """Scale every neuron to mean 0 and deviation 1 over the training words; false is the paper's way (raw)."""
    order: Literal["shuffled", "corpus"] = "shuffled"


class Ranking(Section):
    l1: list[Penalty] = Field(min_length=1)
    """Values of λ1 = λ2 to try; with several, the best by the search score of LCA."""
    mass_steps: Count = 1000
    min_label_words: Count = 100
    """Labels with fewer training words are left out of the ordering."""
    sizes: list[Fraction] = Field(min_length=1)
    """Fractions of all neurons that a probe is retrained on, ascending; the last is 1."""
    top: Fraction
    """The fraction of all neurons whose distribution over layers is shown."""
    deltas: list[Fraction] = Field(min_length=1)
    """Relative loss of accuracy allowed to the minimal set."""

    @model_validator(mode="after")
    def _ascending(self) -> "Ranking":
        if self.sizes != sorted(set(self.sizes)) or self.sizes[-1] != 1 or self.sizes[0] == 0:
            raise ValueError("sizes must ascend from above 0 to 1.0")
        return self


class Study(Section):
    name: str
    size: str
    scale: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    encoder: Encoder
    corpus: Corpus
    properties: list[str] = Field(min_length=1)
    tasks: list[Annotated[str, Field(pattern=r"^[a-z0-9_]+(-(half|quarter|\d+k?))?$")]]
    """What is fine-tuned on, with an amount where it is not all (``sst2-1k``); seeds are the Makefile's."""
    task_data: Tasks
    finetune: Finetune
    probe: Probe
    ranking: Ranking
    seed: int = Field(ge=0, lt=2**32)
    device: str = Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    threads: Count

    @model_validator(mode="after")
    def _known_properties(self) -> "Study":
        known = {"brown": ["pos", "chunk", "supersense"]}.get(self.corpus.format) or [
            c for c in self.corpus.columns if c != "word"
        ]
        for name in self.properties:
            if name not in known:
                raise ValueError(f"property '{name}' is not in corpus '{self.corpus.name}' (it has {', '.join(known)})")
        for name in self.corpus.gold:
            if name not in known:
                raise ValueError(
                    f"corpus.gold: '{name}' is not in corpus '{self.corpus.name}' (it has {', '.join(known)})"
                )
        return self

    def table(self) -> pd.DataFrame:
        """The resolved parameters, one row each, for display."""
        flat = pd.json_normalize(self.model_dump(), sep=".").iloc[0]
        return flat.map(lambda v: json.dumps(v) if isinstance(v, list | dict) else v).rename("value").to_frame()


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads ``2e-5`` as a string; read it as the number everybody means, and refuse a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key in [self.construct_object(k, deep=deep) for k, _ in node.value]:
            if not isinstance(key, str):
                told = f"key {shown(key)} is not a word; if one is meant, put it in quotation marks"
                raise yaml.constructor.ConstructorError(None, None, told, node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """One parameter file as a dictionary. Raises ParameterError if it is missing, empty or not a mapping."""
    if not path.is_file():
        raise ParameterError(f"there is no file {path}")
    try:
        data = yaml.load(path.read_bytes(), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ParameterError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise ParameterError(f"{path}: expected 'name: value' lines, found {type(data).__name__}")
    return data


def merge(base: dict, over: dict) -> dict:
    """``over`` laid upon ``base``, section by section. A corpus, an encoder's or a task's own table of columns or files
    replaces the one below it as a whole."""
    out = dict(base)
    for key, value in over.items():
        nested = isinstance(value, dict) and isinstance(out.get(key), dict) and key not in ("files", "columns")
        if key == "corpus" and nested and value.get("name", base[key].get("name")) != base[key].get("name"):
            sizes = {k: v for k, v in base[key].items() if k.endswith("_words")}
            out[key] = {**sizes, **value}
        else:
            out[key] = merge(out[key], value) if nested else value
    return out


def studies() -> list[str]:
    """Names of the studies in ``params/``."""
    sizes = read_yaml(ROOT / "params" / "base.yaml").get("sizes", {})
    return sorted({*grid.names(ROOT / "params")} - {"base", *sizes})


def load(study: str, size: str = "full", overrides: dict[str, Any] | None = None) -> Study:
    """The validated parameters of a study.

    Parameters
    ----------
    study : name of a file in ``params/`` without ``.yaml``.
    size : ``full``, or a named reduction from ``sizes`` of ``base.yaml`` (``lesson``).
    overrides : nested dictionary laid over both files; a key may be dotted (``{"probe.epochs": 5}``).

    Raises
    ------
    ParameterError : unknown study, size or key (with the nearest name), or a value of the wrong type or range.
    """
    known = studies()
    if study not in known:
        raise ParameterError(f"there is no study '{study}'{nearest(study, known)}\nStudies: {', '.join(known)}")
    base = read_yaml(ROOT / "params" / "base.yaml")
    sizes = {"full": {}, **base.pop("sizes", {})}
    if size not in sizes:
        raise ParameterError(f"there is no size '{size}'{nearest(size, sizes)}\nSizes: {', '.join(sizes)}")
    data = merge(base, read_yaml(ROOT / "params" / f"{study}.yaml"))
    data = merge(merge(data, sizes[size]), _nested(overrides or {}))
    try:
        return Study(name=study, size=size, **data)
    except ValidationError as error:
        raise ParameterError(_explain(error, study, data)) from None  # pydantic's text holds the whole input
    except TypeError as error:
        raise ParameterError(f"study '{study}': 'name' and 'size' are not parameters of a file ({error})") from error


def _nested(overrides: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in overrides.items():
        if not isinstance(key, str) or not key:
            raise ParameterError(f"overrides: the key {key!r} is not the name of a parameter")
        *path, last = key.split(".")
        if isinstance(value, dict) and last not in ("files", "columns"):
            value = _nested(value)
        for part in (last, *reversed(path)):
            value = {part: value}
        out = _laid(out, value)
    return out


def _laid(base: Any, over: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return base | {k: _laid(base.get(k), v) for k, v in over.items()}


def nearest(name: str, known: Any) -> str:
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


def _fields(path: tuple) -> list[str]:
    model: Any = Study
    for part in path:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field else OwnTask if model is not None else None
    return list(getattr(model, "model_fields", {}))


def _explain(error: ValidationError, study: str, data: dict) -> str:
    lines = [f"study '{study}' cannot be used:"]
    for item in error.errors():
        place = ".".join(str(p) for p in item["loc"] if p != "[key]") or "study"
        reason = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            lines.append(f"  {place}: unknown parameter{nearest(item['loc'][-1], _fields(item['loc'][:-1]))}")
        elif item["type"] == "missing":
            lines.append(f"  {place}: missing; give it in params/{study}.yaml")
        elif item["loc"]:
            if item["type"] == "string_pattern_mismatch":
                reason = _FORMS.get(str(item["loc"][0]), "only lower-case letters (a to z), digits and _ are allowed")
            elif item["type"] == "string_type" and not isinstance(item["input"], list | dict):
                reason += f" (YAML reads {_read_as(item['input'])}: if a word is meant, put it in quotation marks)"
            lines.append(f"  {place} = {shown(item['input'])}: {reason}")
        else:
            lines.append(f"  {reason}")
    return "\n".join(lines)


_FORMS = {
    "tasks": "a task's name has only lower-case letters (a to z), digits and _; an amount may follow: -half, -quarter, "
    "or a number of examples as in -500 or -2k",
    "device": "write auto, cpu, mps, cuda, or one GPU by its number, as in cuda:1",
}
"""What a parameter looks like that is more than a plain name."""


def _read_as(value: Any) -> str:
    if isinstance(value, bool):
        return "yes, no, on, off, true and false as truth values"
    if value is None:
        return "null, ~ and an empty place as nothing"
    return f"this as a {'number' if isinstance(value, int | float) else type(value).__name__}"
