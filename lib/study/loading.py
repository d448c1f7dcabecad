"""Loading: a study read from ``params/<study>.yaml`` over ``params/base.yaml``, and validated before anything runs."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from lib.study import files, params
from lib.study.params import OwnTask, ParameterError, Study, nearest, shown


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
    sizes = read_yaml(params.ROOT / "params" / "base.yaml").get("sizes", {})
    return sorted({*files.names(params.ROOT / "params")} - {"base", *sizes})


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
    base = read_yaml(params.ROOT / "params" / "base.yaml")
    sizes = {"full": {}, **base.pop("sizes", {})}
    if size not in sizes:
        raise ParameterError(f"there is no size '{size}'{nearest(size, sizes)}\nSizes: {', '.join(sizes)}")
    data = merge(base, read_yaml(params.ROOT / "params" / f"{study}.yaml"))
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


def _fields(path: tuple) -> list[str]:
    model: Any = Study
    for part in path:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field else OwnTask if model is not None else None
    return list(getattr(model, "model_fields", {}))


def _explain(error: ValidationError, study: str, data: dict) -> str:
    lines = [f"study '{study}' cannot be used:"]
    for item in (e for e in error.errors() if e["type"] != "default_factory_not_called"):
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
