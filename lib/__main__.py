"""The verbs behind Make: ``python -m lib VERB``; ``python -m lib --help`` lists them."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def arguments() -> argparse.ArgumentParser:
    """The command line: selectors first, then a verb."""
    parser = argparse.ArgumentParser("python -m lib", description=__doc__, allow_abbrev=False)
    parser.add_argument("--scale", default="mini", help="which studies and figures: the scale of params/*.yaml")
    parser.add_argument("--studies", default="", type=str.split, help="parameter files by name")
    parser.add_argument("--tasks", default="", type=str.split, help="tasks to fine-tune on; default: of each study")
    parser.add_argument("--seeds", default="1", type=_seeds, help="seeds of fine-tuning")
    parser.add_argument("--properties", default="", type=str.split, help="properties to probe; default: of each study")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("data", help="fetch and verify the data")
    verbs.add_parser("plan", help="what is to do, and nothing done")
    grid = verbs.add_parser("grid", help="check and fetch, then what is to do as rules for Make")
    grid.add_argument("--keep", action="store_true", help="keep the activation stores")
    grid.add_argument("--dry", action="store_true", help="fetch nothing")
    run = verbs.add_parser("run", help="one notebook of one run")
    for name in ("study", "variant", "notebook"):
        run.add_argument(name)
    draw = verbs.add_parser("draw", help="the notebook of figures of several runs")
    draw.add_argument("name", help="the scale")
    draw.add_argument("variants", type=json.loads, help="study → variants, as JSON")
    for part in (run, draw):
        part.add_argument("--overrides", type=json.loads, default={})
        part.add_argument("--key", default="")
        part.add_argument("--since", type=float, default=float("inf"))
        part.add_argument("--of", type=int, default=1)
    verbs.add_parser("summary", help="what a finished study says, in the terminal")
    verbs.add_parser("verify", help="compare the results with the recorded ones; fails on a miss")
    verbs.add_parser("record", help="make the results the reference")
    verbs.add_parser("report", help="the notebook of figures as one page")
    pretrain = verbs.add_parser("pretrain", help="make the encoders of models/ from nothing")
    pretrain.add_argument("--size", default="full")
    pretrain.add_argument("--settings", type=json.loads, default={})
    certify = verbs.add_parser("certify", help="whether changed code gives the same results as a commit's")
    certify.add_argument("commit", nargs="?", default="HEAD")
    lessons = verbs.add_parser("lessons", help="execute the notebooks in place, as they are committed")
    lessons.add_argument("notebooks", nargs="*", type=Path, help="default: all")
    verbs.add_parser("doctor", help="what this machine has and lacks")
    return parser


def _seeds(text: str) -> list[int]:
    return [int(seed) for seed in text.split()]


def main(given: argparse.Namespace) -> bool:
    """Do what the verb says. Returns whether it went well."""
    if given.verb == "run":
        from lib import notebook

        target = notebook.ROOT / "runs" / given.study / given.variant / f"{given.notebook}.ipynb"
        parameters = {"study": given.study, "variant": given.variant, "size": "full", "overrides": given.overrides}
        return notebook.execute(target, parameters, given.key, given.since, given.of)
    if given.verb == "draw":
        from lib import notebook

        target = notebook.ROOT / "runs" / "figures" / given.name / "05_figures.ipynb"
        parameters = {"variants": given.variants, "scale": given.name, "size": "full", "overrides": given.overrides}
        return notebook.execute(target, parameters, given.key, given.since, given.of)
    if given.verb == "lessons":
        from lib import notebook

        notebook.execute_in_place(given.notebooks)
        return True
    if given.verb == "doctor":
        from lib import doctor

        return all([*doctor.report()])
    if given.verb == "data":
        from lib import sources

        for name, source in sources.SOURCES.items():
            if not source.optional:
                print("OK", name, sources.fetch(name))
        return True
    if given.verb == "certify":
        from lib import certify

        return certify.certify(given.commit)
    if given.verb == "pretrain":
        from lib.pretraining import minis

        minis.make_and_compare(given.size, given.settings, given.device)
        return True
    return _on_runs(given)


def _on_runs(given: argparse.Namespace) -> bool:
    """The verbs that are about the runs that the selectors name."""
    from lib import grid, results

    overrides: dict[str, Any] = {"device": given.device}
    overrides |= {"properties": given.properties} if given.properties else {}
    wanted = grid.selected(given.scale, given.studies, given.tasks, given.seeds, overrides)
    grid.check(wanted)
    if given.verb == "plan":
        print(
            "\n".join(f"  {name}" for name in grid.plan(wanted, given.scale)) or "nothing to do: every result is there"
        )
    elif given.verb == "grid":
        if not given.dry:
            with _to_stderr():
                grid.fetch(wanted)
                results.figures_folder(given.scale).mkdir(parents=True, exist_ok=True)
        print(grid.rules(wanted, given.scale, overrides, given.keep))
    elif given.verb == "summary":
        from lib.figures import report

        report.print_summary(wanted, given.scale)
    elif given.verb == "report":
        from lib.figures import report

        executed = results.figures_folder(given.scale) / f"{grid.FIGURES}.ipynb"
        report.write(executed, executed.with_suffix(".html"))
        print(executed.with_suffix(".html").relative_to(Path.cwd()))
    else:
        from lib.results import verify

        if given.verb == "verify":
            return verify.check(wanted, given.scale)
        verify.record(wanted, given.scale)
    return True


def _to_stderr():
    """What is printed on the way does not get among the rules."""
    import contextlib

    return contextlib.redirect_stdout(sys.stderr)


if __name__ == "__main__":
    sys.tracebacklimit = 0  # errors name file, place and remedy
    sys.exit(not main(arguments().parse_args()))
