"""The notebooks as committed: executed in order, with cells that nbval really compares, and no trace of a machine."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(path: Path, kind: str = "code") -> list[dict]:
    return [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == kind]


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


@pytest.fixture(params=NOTEBOOKS, ids=lambda p: p.stem)
def notebook(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_are_the_lessons_and_their_solutions() -> None:
    assert [p.stem[:2] for p in NOTEBOOKS] == ["00", "01", "02", "03", "04", "05", "so"]


def test_every_cell_was_executed_in_order_from_a_fresh_kernel(notebook: Path) -> None:
    assert [c["execution_count"] for c in cells(notebook)] == list(range(1, len(cells(notebook)) + 1))


def test_no_error_and_no_bar_is_committed(notebook: Path) -> None:
    for cell in cells(notebook):
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr"
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})


def test_at_least_three_cells_are_compared_and_all_of_them_print_something(notebook: Path) -> None:
    checked = [c for c in cells(notebook) if "nbval-check-output" in tags(c)]
    assert len(checked) >= 3
    for cell in checked:
        assert cell["outputs"], "a checked cell without output compares nothing"
        text = "".join("".join(o.get("text", "")) for o in cell["outputs"])
        assert not re.search(r"\d\.\d{2,}|/home/|/tmp/|\d s\b", text), "raw floats, paths and times are not stable"


def test_every_verdict_of_a_checked_cell_holds(notebook: Path) -> None:
    for cell in cells(notebook):
        if "nbval-check-output" in tags(cell):
            assert "False" not in "".join("".join(o.get("text", "")) for o in cell["outputs"])


def test_a_notebook_defines_no_function_and_has_one_parameters_cell(notebook: Path) -> None:
    code = ["".join(c["source"]) for c in cells(notebook)]
    assert not any(re.search(r"^\s*(def|class) ", c, re.M) for c in code)
    assert sum("parameters" in tags(c) for c in cells(notebook)) == 1


def test_a_notebook_is_short_and_tells_why_before_and_what_after(notebook: Path) -> None:
    assert sum(len(c["source"]) for c in cells(notebook)) <= 150
    lesson = ("**Aim.**", "**In:**", "**Out:**", "## To remember", "## Exercises") * (notebook.stem != "solutions")
    prose = "".join("".join(c["source"]) for c in cells(notebook, "markdown"))
    for part in ("**Time:**", *lesson):
        assert part in prose, part


def test_every_exercise_has_its_answer() -> None:
    answers = "".join("".join(c["source"]) for c in cells(ROOT / "notebooks" / "solutions.ipynb", "markdown"))
    for path in NOTEBOOKS:
        prose = "".join("".join(c["source"]) for c in cells(path, "markdown"))
        if "solutions.ipynb" in prose:
            assert f"## {int(path.stem[:2])} ·" in answers, path.stem


def test_a_run_leaves_no_trace_of_its_machine(notebook: Path) -> None:
    text = notebook.read_text(encoding="utf-8")
    assert "papermill" not in json.loads(text)["metadata"]
    assert not re.search(r"/(home|root|Users|tmp)/", text)
