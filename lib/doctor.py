"""Doctor: what this machine has and lacks. One OK or FAIL line per requirement, with the fix. Run by ``make doctor``.

Begins with the standard library alone, so that it works before anything is installed.
"""

import importlib.metadata
import os
import re
import shutil
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
Line = "tuple[bool | None, str, str]"  # a string: an old Python must get as far as the message that it is too old
"""Whether a requirement holds (None: for information), a description, the fix."""


def python() -> Line:
    return sys.version_info >= (3, 11), f"Python {sys.version.split()[0]}", "install Python 3.11 or later"


def make() -> Line:
    """Whether there is one: the Makefile itself refuses a make that is too old."""
    found = shutil.which("gmake") or shutil.which("make")
    return (
        found is not None,
        f"make: {found}" if found else "no make",
        "install GNU Make 4 or later (macOS: brew install make, then gmake)",
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def packages() -> Line:
    pins = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.M)
    wrong = [f"{name} {_version(name)} (lock: {pin})" for name, pin in pins if _version(name) != pin]
    text = "; ".join(wrong[:5]) or f"{len(pins)} packages as in requirements.lock"
    return not wrong, text + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""), "make env"


def demand() -> None:
    """For Make: exit with one line unless this Python is new enough and has the packages of requirements.lock."""
    fix = f"PYTHONNOUSERSITE=1 {sys.executable} -m pip install -r requirements.lock; or leave out PYTHON=..."
    if Path(sys.prefix).resolve() == ROOT / ".venv":
        fix = "pip did not put them there: see '.venv/bin/python -m pip config list'"
    for good, text, remedy in (python(), (*packages()[:2], fix)):
        if not good:
            sys.exit(f"{sys.executable} is not as requirements.lock asks: {text}  ->  {remedy}")


def device() -> Line:
    import torch

    text = f"device: CPU, {os.cpu_count()} cores (a GPU is needed at the paper's scale only)"
    if torch.cuda.is_available():
        text = f"device: {torch.cuda.get_device_name(0)}, {torch.cuda.mem_get_info()[1] / 1e9:.0f} GB"
    elif torch.backends.mps.is_available():
        text = "device: Apple GPU (mps)"
    return True, text, ""


def disk() -> Line:
    free = shutil.disk_usage(ROOT).free / 1e9
    return (
        free > 6,
        f"{free:.0f} GB of disk free",
        "free 6 GB, or make runs/ and data/ links to folders on a larger disk",
    )


def memory() -> Line:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (ValueError, OSError, AttributeError):
        return None, "memory unknown on this system", ""
    return size > 3.5 * 2, f"{size:.0f} GB of memory", "two runs at a time take about 6 GB: make reproduce JOBS=1"


def data() -> Line:
    sys.path.insert(0, str(ROOT))
    from lib import sources

    lacking = sources.missing()
    return not lacking, "data: " + (f"lacking {', '.join(lacking)}" if lacking else "all sources here"), "make data"


def hub() -> Line:
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        return None, "model hub: offline (HF_HUB_OFFLINE=1)", ""
    from huggingface_hub import constants

    try:
        urllib.request.urlopen(constants.ENDPOINT, timeout=3).close()  # noqa: S310
    except OSError:
        return None, "model hub: not reachable; only studies with hub ids (the paper's scale) need it", ""
    return True, "model hub: reachable", ""


def report() -> bool:
    """Print one line per requirement. Returns whether all that are needed hold."""
    found = []
    for check in (python, make, packages, device, disk, memory, data, hub):
        try:
            good, text, fix = check()
        except ImportError as error:
            good, text, fix = None, f"{check.__name__}: not looked at before {error.name} is installed", ""
        print({True: "OK   ", False: "FAIL ", None: "-    "}[good] + text + (f"  ->  {fix}" if good is False else ""))
        found.append(good is not False)
    return all(found)


if __name__ == "__main__":
    sys.exit(not report())
