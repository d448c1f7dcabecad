"""Notebook: one papermill run of one lesson. Whole or not at all, once for two makes, again if its kernel is lost.

Needs, beside the standard library, ``filelock`` only: it stands at the start of every step.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]


LOST = re.compile(r"DeadKernelError|Kernel died|Address already in use|ZMQError|Kernel didn't respond")
"""What a log says when not the notebook but its kernel was at fault."""


def run(
    study: str, variant: str, notebook: str, record: str, overrides: dict[str, Any], key: str, since: float, of: int
) -> bool:
    """For Make: execute a notebook of a run, then ``record`` the step that is named, if any. Returns its success."""
    parameters = {"study": study, "variant": variant, "preset": "full", "overrides": overrides}
    done = execute(ROOT / "runs" / study / variant / f"{notebook}.ipynb", parameters, key, since, of)
    if done and record:
        from lib.study import runs  # here: a step that is not recorded starts without pandas

        runs.record(runs.load(study, variant, "full", overrides), record)
    return done


def draw(
    name: str, variants: dict[str, list[str]], overrides: dict[str, Any], key: str = "", since: float = float("inf"),
    of: int = 1, recorded: bool = False,
) -> bool:  # fmt: skip
    """For Make: execute the notebook of figures for these variants of studies. Returns whether it went well."""
    parameters = {"variants": variants, "suite": name, "preset": "full", "overrides": overrides, "recorded": recorded}
    folder = ROOT / "runs" / ("recorded" if recorded else "figures") / name
    return execute(folder / "05_figures.ipynb", parameters, key, since, of)


def execute(target: Path, parameters: dict[str, Any], key: str, since: float, of: int) -> bool:
    """Execute ``notebooks/<stem of target>.ipynb`` into ``target``, its log beside it. Returns whether that went well.

    Parameters
    ----------
    key : what the executed notebook is kept under, in its metadata.
    since, of : when the command that this is a part of began (seconds since 1970), and of how many parts it consists.
    """
    name, stem = target.stem, target.with_suffix("")
    title = f"{target.parent.relative_to(ROOT / 'runs').as_posix()} {name}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{name}.lock"), fallback_to_soft=False):
        if target.exists() and target.stat().st_mtime >= since and key_of(target) == key:
            print(f"  {title}: made by another make meanwhile", flush=True)
            return True
        target.unlink(missing_ok=True)
        print(f"  {title} ...", flush=True)
        start, part, log = time.time(), Path(f"{stem}.part.ipynb"), Path(f"{stem}.log")
        done = _papermill(name, part, parameters, log)
        if not done and LOST.search(log.read_text(encoding="utf-8", errors="replace")):
            print(f"  {title}: the kernel was lost, once more", flush=True)
            done = _papermill(name, part, parameters, log)
        if not done:
            lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
            shown = log.relative_to(ROOT).as_posix()
            print("", *lines[-12:], f"FAILED: {title}; the whole log is {shown}", sep="\n", flush=True)
            return False
        book = json.loads(part.read_text(encoding="utf-8"))
        book["metadata"]["lib"] = {"key": key}
        part.write_text(json.dumps(book, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(target)
        finished = sum(p.stat().st_mtime >= since for p in (ROOT / "runs").glob("*/*/0*_*.ipynb") if p.exists())
        told = f"  {title} done, {time.time() - start:.0f} s  [{finished} of {of}]"
        with log.open("a", encoding="utf-8") as stream:
            stream.write(told + "\n")
        print(told, flush=True)
        return True


def key_of(executed: Path) -> str | None:
    """The key that an executed notebook was made under."""
    return json.loads(executed.read_text(encoding="utf-8"))["metadata"].get("lib", {}).get("key")


def _papermill(name: str, part: Path, parameters: dict[str, Any], log: Path) -> bool:
    ipython = part.with_name(f".{name}.ipython")  # in place of the user's folder, with its start-up files
    command = [sys.executable, "-m", "papermill", "--log-output", "--no-progress-bar", "--cwd", "notebooks"]
    command += [f"notebooks/{name}.ipynb", str(part), "-y", json.dumps(parameters)]
    try:
        with log.open("w", encoding="utf-8") as stream:
            done = subprocess.run(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
                env=os.environ | {"IPYTHONDIR": str(ipython)},
            )  # fmt: skip
        return done.returncode == 0
    finally:
        shutil.rmtree(ipython, ignore_errors=True)
