"""Execute notebooks in place, each in a fresh kernel, as they are committed: ``python tests/execute.py [NOTEBOOK …]``.

Progress bars and whatever names the machine or the time are left out of what is stored.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
WIDGET = "application/vnd.jupyter.widget-view+json"


def execute(path: Path) -> None:
    """Run one notebook and write it back. Raises CellExecutionError, and leaves the file, if a cell fails."""
    book = nbformat.read(path, 4)
    NotebookClient(book, timeout=2000, kernel_name="python3", resources={"metadata": {"path": path.parent}}).execute()
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" and WIDGET not in o.get("data", {})]
    book.metadata.pop("widgets", None)
    book.metadata.language_info = {"name": "python"}
    nbformat.write(book, path)


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted((ROOT / "notebooks").glob("*.ipynb")):
        print(Path(name).stem, flush=True)
        execute(Path(name).resolve())
