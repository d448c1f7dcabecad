"""The verbs behind Make: ``python -m lib VERB``; ``python -m lib --help`` lists them."""

import argparse
import importlib
import inspect
import json
import sys
from collections.abc import Callable
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, as Make's users did not type these arguments."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message.removeprefix('argument ')}\n")


def whole(least: int) -> Callable[[str], int]:
    """Reads a whole number from ``least`` on; raises ArgumentTypeError for another text."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"'{text}' is no whole number from {least} on")
        return int(text)

    return read


FLAG: dict[str, Any] = {"action": "store_true"}
PART: dict[str, Any] = {
    "--overrides": {"type": json.loads, "default": {}},
    "--key": {"default": "", "help": "the key that the executed notebook is kept under"},
    "--since": {"type": float, "default": float("inf"), "help": "when the command began that this is a part of"},
    "--of": {"type": int, "default": 1, "help": "how many parts that command has"},
}
SELECTORS: dict[str, dict[str, Any]] = {
    "--scale": {"dest": "suite", "default": "mini", "help": "the suite: the studies with this scale in params/*.yaml"},
    "--studies": {"default": "", "type": str.split, "help": "parameter files by name; default: all of the suite"},
    "--tasks": {"default": "", "type": str.split, "help": "tasks to fine-tune on; default: those of each study"},
    "--seeds": {
        "default": "",
        "type": lambda text: [*map(whole(0), text.split())],
        "help": "seeds of fine-tuning; default: of each study",
    },
    "--properties": {"default": "", "type": str.split, "help": "properties to probe; default: those of each study"},
    "--device": {"default": "", "help": "auto, cpu, cuda, cuda:1, mps; default: that of each study"},
    "--threads": {
        "default": "",
        "type": lambda text: whole(1)(text) if text else 0,
        "help": "per run; default: that of each study",
    },
    "--size": {"default": "full", "help": "full, or a preset of base.yaml: a trial with fewer words"},
}

VERBS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "data": ("fetch and verify the data", "lib.grid:get_data", {
        "--mirror": {"default": "", "help": "a folder with copies of what no package registry has"},
    }),
    "plan": ("the runs that make reproduce would make, and what they take", "lib.grid:print_plan", {
        "--jobs": {"type": whole(1), "default": 1, "help": "runs at a time"},
        "--keep": FLAG | {"help": "keep the activation stores"},
    }),
    "grid": ("check and fetch, then the steps to run, as rules for Make", "lib.grid:print_rules", {
        "--keep": FLAG | {"help": "keep the activation stores"},
        "--dry": FLAG | {"help": "fetch nothing"},
        "--record": FLAG | {"help": "skip recorded steps, and record the others as they finish"},
    }),
    "run": ("one notebook of one run", "lib.notebook:run", {
        "study": {}, "variant": {}, "notebook": {},
        "--record": {"default": "", "help": "the step whose tables are recorded"}, **PART,
    }),
    "draw": ("the figures of several runs", "lib.notebook:draw", {
        "name": {"help": "the suite"}, "variants": {"type": json.loads, "help": "study → variants, as JSON"}, **PART,
    }),
    "summary": ("what a finished study says, in the terminal", "lib.figures.report:print_summary", {}),
    "figures": ("draw every figure, table and verdict from the recorded runs", "lib.grid:draw_recorded", {}),
    "verify": ("compare the results with the recorded ones; fails on a miss", "lib.results.verify:check", {}),
    "record": ("record the results and make them the reference", "lib.results.verify:record", {}),
    "digits": ("keep the digests of the results as those of this maker's processors", "lib.results.digits:keep", {}),
    "report": ("the figures notebook as one page", "lib.figures.report:write_page", {}),
    "pretrain": ("make the encoders of models/ from nothing", "lib.pretraining.minis:make_and_compare", {
        "--preset": {"default": "full"}, "--settings": {"type": json.loads, "default": {}},
    }),
    "certify": ("whether changed code gives the same results as a commit's", "lib.certify:certify", {
        "commit": {"nargs": "?", "default": "HEAD"},
    }),
    "doctor": ("what this machine has and lacks", "lib.doctor:report", {}),
}  # fmt: skip
"""Verb → help, function, arguments of its own. The function is given what it has parameters for: these arguments, the
selectors, and ``wanted``, the runs that the selectors name."""


def arguments() -> argparse.ArgumentParser:
    """The command line: selectors first, then a verb and its own arguments."""
    parser = Parser("python -m lib", description=__doc__, allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, settings in SELECTORS.items():
        parser.add_argument(name, **settings)
    for verb, (text, _, own) in VERBS.items():
        sub = verbs.add_parser(verb, help=text, allow_abbrev=False)
        for name, settings in own.items():
            sub.add_argument(name, **settings)
    return parser


def main(given: dict[str, Any]) -> bool:
    """Do what the verb says. Returns False if a comparison or a step failed; errors are raised."""
    module, name = VERBS[given["verb"]][1].split(":")
    function = getattr(importlib.import_module(module), name)
    names = inspect.signature(function).parameters
    if "wanted" in names:
        from lib import grid  # here: PyTorch takes seconds to import, and a step starts without it
        from lib.study import runs

        given["overrides"] = {name: given[name] for name in ("device", "properties", "threads") if given[name]}
        given["overrides"] |= {"size": given["size"]} if given["size"] != "full" else {}
        if given["verb"] == "record" or given.get("record") is True:
            given["overrides"] |= runs.RECORDED
        given["wanted"] = grid.selected(**{n: given[n] for n in ("suite", "studies", "tasks", "seeds", "overrides")})
        grid.check(given["wanted"])
    return function(**{name: given[name] for name in names if name in given}) is not False


if __name__ == "__main__":
    sys.tracebacklimit = 0  # an error names file, place and remedy
    sys.exit(not main(vars(arguments().parse_args())))
