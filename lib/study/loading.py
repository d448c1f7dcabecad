"""Loading: a study read from ``params/<study>.yaml`` over ``params/base.yaml``, and validated before anything runs."""

import re
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import yaml
from pydantic import ValidationError

from lib.study import params
from lib.study.params import ParameterError, Study, nearest, shown

UNFIT = re.compile(r"""[\s:;%#$"'`\\*?\[\]{}()<>|&!,=~^]""")
"""What Make, a shell or a path takes for something else than a part of a name."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads ``2e-5`` as a string; read it as the number everybody means, and refuse a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key in [self.construct_object(k, deep=deep) for k, _ in node.value]:
            if not isinstance(key, str):
                fault = f"key {shown(key)} is not a word; if one is meant, put it in quotation marks"
                raise yaml.constructor.ConstructorError(None, None, fault, node.start_mark)
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


@lru_cache
def hub_pins() -> dict[str, dict[str, Any]]:
    """The pinned repositories of the model hub (``lib/hub.yaml``): id → ``revision``, and ``files``: name → SHA-256."""
    return read_yaml(Path(__file__).resolve().parents[1] / "hub.yaml")


# The files, before anything is validated ----------------------------------------------------------------------------


def _files() -> list[Path]:
    """All parameter files, whatever their endings; not the hidden ones, which editors and archives leave."""
    files = (p for p in (params.ROOT / "params").iterdir() if p.suffix.lower() in (".yaml", ".yml"))
    return sorted(p for p in files if p.is_file() and not p.name.startswith("."))


def _fits(file: Path) -> bool:
    return file.suffix == ".yaml" and not UNFIT.search(file.stem)


def _names(presets: Any) -> list[str]:
    """Names of the studies: of the files that can be used, but for those of ``base`` and its named reductions."""
    reductions = presets if isinstance(presets, dict) else {}
    return sorted(file.stem for file in _files() if _fits(file) and file.stem not in ("base", *reductions))


def _read(file: Path) -> dict[str, Any]:
    """A parameter file; of one that is not valid YAML, the ``scale`` that a line of it seems to give."""
    try:
        data = yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError):
        text = file.read_text(encoding="utf-8", errors="replace")
        line = re.search(r"^\ufeff?scale\s*:\s*['\"]?([\w.-]+)", text, re.MULTILINE)
        return {"scale": line and line[1]}
    return data if isinstance(data, dict) else {}


def studies() -> dict[str, str]:
    """Name of each study in ``params/`` → its suite (``scale`` in the file)."""
    folder = params.ROOT / "params"
    base = _read(folder / "base.yaml") if (folder / "base.yaml").is_file() else {}
    return {name: str((base | _read(folder / f"{name}.yaml")).get("scale")) for name in _names(base.get("presets"))}


def twins(names: Collection[str]) -> tuple[dict[str, str], str]:
    """The studies that are another one under another probe: study with standardised neurons → study with the other
    probe; and the name of that probe."""
    known = studies()
    for suffix, probe in (("-raw", "raw neurons"), ("-paper", "the paper's probe")):
        pairs = {name.removesuffix(suffix): name for name in names if name.endswith(suffix)}
        if found := {name: other for name, other in pairs.items() if name in known}:
            return found, probe
    pairs = {name: name.removesuffix("-standardised") for name in names if name.endswith("-standardised")}
    return {name: other for name, other in pairs.items() if other in known}, probe


def problems(suite: str) -> Iterator[str]:
    """What keeps a file from being a study of this suite, or that there is none, with what to do."""
    wrong = [file for file in _files() if not _fits(file) and str(_read(file).get("scale")) == suite]
    for file in wrong:
        yield f"params/{file.name} is no name for a study: rename it to params/{UNFIT.sub('-', file.stem)}.yaml"
    there = set(studies().values())
    if not wrong and suite not in there:
        suites = sorted(there - {"None"})  # of files that give none
        known = nearest(suite, suites) or f"; there are {', '.join(suites)}"
        yield f"no file in params/ has 'scale: {suite}'{known}"


# Laying one over another --------------------------------------------------------------------------------------------


def _own(study: str, *alike: str) -> dict[str, Any]:
    """What the file of a study says, laid over that of the study which it is ``like``, if any. ``alike`` : the studies
    that led here. Raises ParameterError if there is none of that name, or if it is like itself."""
    own = read_yaml(params.ROOT / "params" / f"{study}.yaml")
    model = own.pop("like", None)
    if model is None:
        return own
    if model not in (known := [name for name in studies() if name not in (study, *alike)]):
        raise ParameterError(
            f"params/{study}.yaml: like: there is no other study '{model}'{nearest(str(model), known)}"
        )
    return merge(_own(model, study, *alike), own)


def merge(base: dict, over: dict) -> dict:
    """``over`` laid upon ``base``, section by section. A corpus's or a task's own table of columns or files replaces
    the one below it as a whole; of a corpus with another name, only the numbers of words remain."""
    out = dict(base)
    for key, value in over.items():
        below = out.get(key)
        if not (isinstance(value, dict) and isinstance(below, dict)) or key in ("files", "columns"):
            out[key] = value
        elif key == "corpora":
            out[key] = below | {name: _merge_corpus(below.get(name), corpus) for name, corpus in value.items()}
        else:
            out[key] = _merge_corpus(below, value) if key == "corpus" else merge(below, value)
    return out


def _probe(name: str, named: dict[str, dict]) -> dict:
    """A probe of ``probes`` in ``base.yaml``. Raises ParameterError if there is none of that name."""
    if name not in named:
        raise ParameterError(f"probe: there is no '{name}'{nearest(name, named)}\nProbes: {', '.join(named)}")
    return named[name]


def _collection(name: str, named: dict[str, dict]) -> dict[str, list[dict]]:
    """The corpora of one of ``collections`` in ``base.yaml``: property → those to choose from, best first. Raises
    ParameterError if there is none of that name."""
    if name not in named:
        raise ParameterError(f"corpora: there is no '{name}'{nearest(name, named)}\nCorpora: {', '.join(named)}")
    return {of: listed if isinstance(listed, list) else [listed] for of, listed in named[name].items()}


def _here(corpus: dict) -> bool:
    return all((params.ROOT / file).is_file() for file in corpus.get("files", {}).values())


def wished(study: str) -> set[str]:
    """The corpus files of a study that names a collection, were all of the best there."""
    named = read_yaml(params.ROOT / "params" / "base.yaml").get("collections", {})
    own = _own(study).get("corpora")
    best = [listed[0] for listed in _collection(own, named).values()] if isinstance(own, str) else []
    return {file for corpus in best for file in corpus.get("files", {}).values()}


def _merge_corpus(below: Any, corpus: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(corpus, dict)):
        return corpus
    same = corpus.get("name", below.get("name")) == below.get("name")
    return merge(below if same else _words(below), corpus)


def _words(corpus: dict) -> dict[str, Any]:
    """The numbers of words of a corpus's splits."""
    return {key: value for key, value in corpus.items() if key.endswith("_words")}


def _reduced(data: dict, reduction: dict) -> dict:
    """The parameters with a named reduction laid over them. What it says of ``corpus``, it says of all corpora."""
    corpus, own = reduction.get("corpus", {}), data.get("corpora")
    if isinstance(own, dict):
        reduction = reduction | {"corpora": dict.fromkeys(own, _words(corpus))}
    if data.get("corpus") is None:
        reduction = {key: value for key, value in reduction.items() if key != "corpus"}
    return merge(data, reduction)


def load(study: str, preset: str = "full", overrides: dict[str, Any] | None = None) -> Study:
    """The validated parameters of a study.

    Parameters
    ----------
    study : name of a file in ``params/`` without ``.yaml``; it is laid over that of the study that it is ``like``.
    preset : ``full``, or a named reduction from ``presets`` of ``base.yaml`` (``lesson``).
    overrides : nested dictionary laid over both files; a key may be dotted (``{"probe.epochs": 5}``). ``recorded``:
        whether what ``base.yaml`` and the study's file say of recorded runs (``recorded``) holds. ``size``: a
        named reduction that lies where the full study does (``preset`` has a folder of its own).

    Raises
    ------
    ParameterError : unknown study, preset or key (with the nearest name), or a value of the wrong type or range.
    """
    base = read_yaml(params.ROOT / "params" / "base.yaml")
    presets = {"full": {}, **base.pop("presets", {})}
    known = _names(presets)
    if study not in known:
        raise ParameterError(f"there is no study '{study}'{nearest(study, known)}\nStudies: {', '.join(known)}")
    named, of_recorded, over = base.pop("probes", {}), base.pop("recorded", {}), dict(overrides or {})
    collections = base.pop("collections", {})
    size = over.pop("size", "full")
    for wanted in (preset, size):
        if wanted not in presets:
            raise ParameterError(
                f"there is no preset '{wanted}'{nearest(wanted, presets)}\nSizes: {', '.join(presets)}"
            )
    own = _own(study)
    own_recorded = own.pop("recorded", {})
    if not isinstance(own_recorded, dict):
        raise ParameterError(f"params/{study}.yaml: recorded: expected 'name: value' lines")
    if over.pop("recorded", False):
        base, own = merge(base, of_recorded), merge(own, own_recorded)
    own |= {key: over.pop(key) for key in ("probe", "corpora") if isinstance(over.get(key), str)}
    notes: dict[str, str] = {}
    if isinstance(own.get("corpora"), str):
        choices = _collection(own["corpora"], collections)
        chosen = {of: {**next(filter(_here, listed), listed[-1])} for of, listed in choices.items()}
        notes = {corpus["name"]: corpus.pop("note") for corpus in chosen.values() if "note" in corpus}
        own["corpora"] = chosen
    if isinstance(own.get("probe"), str):
        base = merge(base, _probe(own.pop("probe"), named))
    data = merge(_reduced(_reduced(merge(base, own), presets[preset]), presets[size]), _nested(over))
    if isinstance(data.get("corpora"), dict):
        data["corpora"] = {name: _merge_corpus(data.get("corpus"), own) for name, own in data["corpora"].items()}
    if isinstance(data.get("title"), str) and isinstance(data.get("properties"), list):
        data["title"] += _noted(data, notes)
    glue = params.TaskData.model_fields["glue"].default
    for section, name, usual, revision in (
        ("encoder", "checkpoint", None, "revision"), ("task_data", "glue", glue, "glue_revision"),
    ):  # fmt: skip
        own = data.get(section)
        if isinstance(own, dict) and own.get(revision) is None and (pin := hub_pins().get(str(own.get(name, usual)))):
            data[section] = own | {revision: pin["revision"]}
    try:
        return Study(name=study, preset=preset, **data)
    except ValidationError as error:
        raise ParameterError(_explain(error, study, data)) from None  # pydantic's text holds the whole input
    except TypeError as error:
        raise ParameterError(f"study '{study}': 'name' and 'preset' are not parameters of a file ({error})") from error


def _noted(data: dict[str, Any], notes: dict[str, str]) -> str:
    """What a study's title says of the corpora of its properties. ``notes`` : name of a corpus → note."""
    own = data.get("corpora") or {}
    of = {name: notes.get(own.get(name, {}).get("name")) for name in data["properties"]} if notes else {}
    told = ", ".join(f"{name}: {note}" for name, note in of.items() if note)
    return f" ({told})" if told else ""


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


def _fields(path: tuple) -> list[str]:
    """The parameters that exist at a place in a study."""
    kind: Any = Study
    for part in path:
        fields = getattr(kind, "model_fields", {})
        kind = get_args(kind)[1] if get_origin(kind) is dict else fields[part].annotation if part in fields else None
        kind = get_args(kind)[0] if isinstance(kind, UnionType) else kind
    return [field.alias or name for name, field in getattr(kind, "model_fields", {}).items()]


def _explain(error: ValidationError, study: str, data: dict) -> str:
    lines = [f"study '{study}' cannot be used:"]
    for item in (e for e in error.errors() if e["type"] != "default_factory_not_called"):
        field = ".".join(str(p) for p in item["loc"] if p != "[key]") or "study"
        reason = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            lines.append(f"  {field}: unknown parameter{nearest(item['loc'][-1], _fields(item['loc'][:-1]))}")
        elif item["type"] == "missing":
            lines.append(f"  {field}: missing; give it in params/{study}.yaml")
        elif item["loc"]:
            if item["type"] == "string_pattern_mismatch":
                reason = _FORMS.get(str(item["loc"][0]), "only lower-case letters (a to z), digits and _ are allowed")
            elif item["type"] == "string_type" and not isinstance(item["input"], list | dict):
                reason += f" (YAML reads {_read_as(item['input'])}: if a word is meant, put it in quotation marks)"
            lines.append(f"  {field} = {shown(item['input'])}: {reason}")
        else:
            lines.append(f"  {reason}")
    return "\n".join(lines)


_FORMS = {
    "tasks": "a task's name has only lower-case letters (a to z), digits and _; then may follow, in this order: "
    "-droptop6 or -dropbottom6, -lr2e-5, -half, -quarter or a number of examples as in -500 or -2k, -at100 (updates)",
    "device": "write auto, cpu, mps, cuda, or one GPU by its number, as in cuda:1",
}


def _read_as(value: Any) -> str:
    if isinstance(value, bool):
        return "yes, no, on, off, true and false as truth values"
    if value is None:
        return "null, ~ and an empty place as nothing"
    return f"this as a {'number' if isinstance(value, int | float) else type(value).__name__}"
