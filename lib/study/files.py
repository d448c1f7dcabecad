"""Files: the studies in ``params/``, each with its scale and tasks, read before anything is validated."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parents[2] / "params"

UNFIT = re.compile(r"""[\s:;%#$"'`\\*?\[\]{}()<>|&!,=~^]""")
"""What Make, a shell or a path takes for something else than a part of a name."""


def _files(folder: Path) -> list[Path]:
    """All parameter files, whatever their endings; not the hidden ones, which editors and archives leave."""
    found = (p for p in folder.iterdir() if p.suffix.lower() in (".yaml", ".yml") and not p.name.startswith("."))
    return sorted(p for p in found if p.is_file())


def _fits(file: Path) -> bool:
    return file.suffix == ".yaml" and not UNFIT.search(file.stem)


def names(folder: Path = FOLDER) -> list[str]:
    """Names of the parameter files that can be used, ``base`` among them."""
    return [file.stem for file in _files(folder) if _fits(file)]


def _read(file: Path) -> dict[str, Any]:
    """A parameter file; of one that is not valid YAML, the scale that a line of it seems to give."""
    try:
        found = yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError):
        text = file.read_text(encoding="utf-8", errors="replace")
        line = re.search(r"^\ufeff?scale\s*:\s*['\"]?([\w.-]+)", text, re.MULTILINE)
        found = {"scale": line[1] if line else None, "tasks": []}
    return found if isinstance(found, dict) else {}


def studies(folder: Path = FOLDER) -> dict[str, tuple[str, list[str]]]:
    """Name of each study → its scale and its tasks."""
    base = _read(folder / "base.yaml") if (folder / "base.yaml").is_file() else {}
    sizes = base.get("sizes")
    out = {}
    for name in names(folder):
        if name != "base" and not (isinstance(sizes, dict) and name in sizes):
            data = base | _read(folder / f"{name}.yaml")
            tasks = data.get("tasks") if isinstance(data.get("tasks"), list) else []
            out[name] = str(data.get("scale")), [t for t in tasks if isinstance(t, str) and not UNFIT.search(t)]
    return out


def problems(scale: str, folder: Path = FOLDER) -> Iterator[str]:
    """What keeps a file from being a study of this scale, or that there is none, with what to do."""
    wrong = [file for file in _files(folder) if not _fits(file) and str(_read(file).get("scale")) == scale]
    for file in wrong:
        yield f"params/{file.name} is no name for a study: rename it to params/{UNFIT.sub('-', file.stem)}.yaml"
    scales = sorted({found for found, _ in studies(folder).values()})
    if not wrong and scale not in scales:
        yield f"no file in params/ has 'scale: {scale}'; there are {', '.join(scales)}"
