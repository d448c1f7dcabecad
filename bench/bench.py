"""Benchmark: one job on NeuroX 1.0.9 and on this package, stage by stage, beside what the arithmetic alone takes.

The job: activations of MiniLM-L6 (7 layers x 384) for some 3,100 Brown sentences (50,000 training words); a
part-of-speech probe per layer, one on all neurons, and the neurons' ordering. Both toolkits get the same sentences,
encoder, epochs, batch size and threads, and probe the raw vectors in corpus order. Every stage is a process of its own;
the toolkits take turns; shown are medians. Writes ``runs/bench/results.csv`` (every measurement) and ``results.md``;
``--record`` also keeps them beside this file and quotes the main table in the README.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
HERE, BENCH = Path(__file__).parent, ROOT / "runs" / "bench"
WORDS = {"train_words": 50_000, "dev_words": 3_000, "test_words": 13_000}
PROBE = {"epochs": 10, "batch_size": 512, "learning_rate": 1e-3, "l1": 1e-5, "l2": 1e-5}
STAGES = ("extraction", "loading", "layer probes", "all-neuron probe", "ordering")
SIZES = (1, 2, 4)
"""Multiples of the job's words that this package is measured at."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="for both toolkits [cpu]")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for both toolkits [all cores]")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; medians are shown [3]")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of words, to try it out [1.0]")
    parser.add_argument("--record", action="store_true", help="keep the results in the repository")
    given = parser.parse_args()
    peer_python()
    jobs = {size: job(given, size) for size in SIZES}
    rows = []
    for number in range(given.repeats):
        print(f"round {number + 1} of {given.repeats}", flush=True)
        rows += [{"round": number + 1, **row} for row in measure(jobs)]
    for told in jobs.values():
        shutil.rmtree(told["folder"])
    pd.DataFrame(rows).to_csv(BENCH / "results.csv", index=False, float_format="%.6g")
    text = report(pd.DataFrame(rows), jobs, given.repeats)
    (BENCH / "results.md").write_text(text, encoding="utf-8")
    if given.record:
        for name in ("results.csv", "results.md"):
            shutil.copy(BENCH / name, HERE / name)
        page = ROOT / "README.md"
        page.write_text(quoted(page.read_text(encoding="utf-8"), text), encoding="utf-8")
    print("\n" + text)


def quoted(page: str, text: str) -> str:
    """A Markdown page with machine, job and main table of the results between its marks ``<!-- bench -->`` and
    ``<!-- end -->``."""
    marks = re.compile(r"(<!-- bench -->\n).*?(<!-- end -->)", re.S)
    head = "\n\n".join(text.split("\n\n")[:3])
    return marks.sub(lambda found: f"{found[1]}{head}\n{found[2]}", page)


def job(given: argparse.Namespace, size: int) -> dict:
    """What both toolkits are told; its sentences are made and counted."""
    folder = BENCH / f"x{size}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    overrides = {
        "corpus": {name: max(1, round(words * size * given.scale)) for name, words in WORDS.items()},
        "probe": {**PROBE, "standardise": False, "order": "corpus"}, "properties": ["pos"],
        "device": given.device, "threads": given.threads,
    }  # fmt: skip
    told = {"folder": str(folder), "overrides": overrides, "device": given.device, "threads": given.threads, **PROBE}
    return told | stage("own", "prepare", told)


def stage(script: str, name: str, job: dict) -> dict:
    """Run a stage in a process. Returns its numbers and ``memory``, the peak of its anonymous memory in bytes."""
    threads, result, log = str(job["threads"]), BENCH / "result.json", BENCH / "log.txt"
    environment = {
        **os.environ, "RUNS": job["folder"], "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false" if job["threads"] == 1 else "true",
    }  # fmt: skip
    if job["device"] == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""  # NeuroX trains on a GPU wherever it sees one
    print(f"{time.strftime('%X')}  {script} {name}, {Path(job['folder']).name}", flush=True)
    with log.open("w") as errors:
        python = peer_python() if script == "peer" else sys.executable
        command = [str(python), str(HERE / f"{script}.py"), name, json.dumps(job), str(result)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
        memory = 0
        while process.poll() is None:
            memory = max(memory, anonymous(process.pid))
            time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{script} {name} failed:\n" + "\n".join(log.read_text().splitlines()[-15:]))
    return {**json.loads(result.read_text()), "memory": memory}


def anonymous(process: int) -> int:
    """Bytes of anonymous memory that a process holds now; 0 where the system does not say (it is not Linux)."""
    try:
        found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    except OSError:
        return 0
    return 1024 * int(found[1]) if found else 0


def peer_python() -> Path:
    """The interpreter of NeuroX's own environment, which is built if it is not there."""
    folder, wanted = BENCH / "venv", (HERE / "requirements.txt").read_text() + (ROOT / "requirements.lock").read_text()
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"building {folder.relative_to(ROOT)} (some minutes, once)", flush=True)
        pins = re.findall(r"^[a-z].*$", (HERE / "requirements.txt").read_text(), re.MULTILINE)
        others = [pin for pin in pins if not pin.startswith("neurox")]
        pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([*pip, "--constraint", str(ROOT / "requirements.lock"), *others], check=True)
        subprocess.run([*pip, "--no-deps", *(pin for pin in pins if pin not in others)], check=True)
        stamp.write_text(wanted)
    return python


def measure(jobs: dict[int, dict]) -> list[dict]:
    """One round, every stage of both toolkits once: a row per measurement."""
    rows, first = [], {}

    def note(toolkit: str, size: str, numbers: dict[str, float]) -> None:
        rows.extend({"toolkit": toolkit, "size": size, "what": k, "value": v} for k, v in numbers.items())

    note("limit", "1 x words", {f"{s} (s)": n for s, n in stage("own", "limits", jobs[1])["seconds"].items()})
    for toolkit, script, size in (("ours", "own", 1), ("NeuroX", "peer", 1), *(("ours", "own", n) for n in SIZES[1:])):
        made, probed = stage(script, "extract", jobs[size]), stage(script, "probe", jobs[size])
        seconds = {"extraction": made["seconds"], **probed["seconds"]}
        if toolkit == "ours":
            times = made["seconds"] / first.setdefault("extraction", made["seconds"])
            note(toolkit, f"{size} x words", {"extraction, times": times})
        note(toolkit, f"{size} x words", {f"{s} (s)": n for s, n in seconds.items()} | {
            "total (s)": sum(seconds.values()),
            "memory of the extraction (MB)": made["memory"] / 1e6,
            "memory of the probing (MB)": probed["memory"] / 1e6,
            "activations on disk (MB)": made["bytes"] / 1e6,
        } | {f"accuracy, {of}": 100 * n for of, n in probed["accuracy"].items()} | probed.get("check", {}))  # fmt: skip
    told = {**jobs[1], "stores": {size: job["store"] for size, job in jobs.items()}}
    for size, ratios in stage("own", "scaling", told)["ratios"].items():
        for what, values in ratios.items():
            for value in values:
                note("ours", size, {f"{what}, times": value})
    return rows


def report(rows: pd.DataFrame, jobs: dict[int, dict], repeats: int) -> str:
    """The medians as Markdown."""
    medians = rows.groupby(["size", "toolkit", "what"], sort=False, as_index=False)["value"].median()
    value = {key: part.set_index("what")["value"] for key, part in medians.groupby(["size", "toolkit"])}
    ours, peer, limit = (value["1 x words", toolkit] for toolkit in ("ours", "NeuroX", "limit"))
    sizes, accuracy, growth = [], [], []
    for what, own in ours.items():
        if what.endswith(", times"):
            continue
        if what.startswith("accuracy"):
            accuracy.append([what, f"{peer[what]:.2f}", f"{own:.2f}", f"{own - peer[what]:+.2f}"])
        else:
            bound = [f"{limit[what]:.2f}", f"{limit[what] / own:.0%}"] if what in limit else ["", ""]
            sizes.append([what, f"{peer[what]:.2f}", f"{own:.2f}", f"{peer[what] / own:.1f}", *bound])
    timed = ["extraction", "layer probes", "all-neuron probe"]
    for size in [*(f"{n} x words" for n in SIZES[1:]), "2 x layers", "2 x width"]:
        own, line = value[size, "ours"], [size]
        for what in timed:
            words = [sum(j["words"].values()) if what == timed[0] else j["words"]["train"] for j in jobs.values()]
            times = words[SIZES.index(int(size[0]))] / words[0] if size.endswith("words") else 2.0
            found = own.get(f"{what}, times")
            line += [f"{found:.2f}", f"{found / times - 1:+.1%}"] if found else ["", ""]
        memory = [f"memory of the {part} (MB)" for part in ("extraction", "probing")]
        growth.append(line + [f"{own[what] / ours[what]:.2f}" if what in own else "" for what in memory])
    told = jobs[1]
    return "\n\n".join([
        f"Machine: {machine(told)}. Shown are medians; rounds: {repeats}.",
        f"Job: {told['sentences']['all']:,} Brown sentences, {told['words']['train']:,} training and "
        f"{told['words']['test']:,} test words, {told['labels']} part-of-speech tags; MiniLM-L6, {told['shape'][0]} "
        f"layers x {told['shape'][1]}; {PROBE['epochs']} epochs, batch {PROBE['batch_size']}, raw vectors; "
        f"ordering in {told['steps']:,} steps.",
        table(["", "NeuroX 1.0.9", "this package", "NeuroX / this", "limit", "limit / this"], sizes),
        "Memory is the peak of anonymous memory. The limit is the arithmetic alone: the encoder's forward pass over "
        "the same batches; the probes' matrix products, forward and gradient, in float32.",
        table(["% of the test words", "NeuroX 1.0.9", "this package", "difference"], accuracy),
        f"The vectors of the two toolkits differ by at most {peer['largest difference']:.1e} (the largest value is "
        f"{peer['largest value']:.1f}); ours are stored as float16.",
        "This package on more: how many times the time of the job as it is, the difference from exactly as many times "
        "as there is more of it, and how many times the memory. Probes are timed in turns within one process.",
        table(["this package", *(h for what in timed for h in (what, "beside linear")),
               "memory of the extraction", "memory of the probing"], growth),
    ]) + "\n"  # fmt: skip


def machine(told: dict) -> str:
    """What computed a job. ``told`` : what its stage ``prepare`` tells, and its threads."""
    cpus = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpus.read_text()) if cpus.exists() else []
    parts = [*(names or [platform.machine()])[:1], f"{os.cpu_count()} cores", f"threads: {told['threads']}"]
    return ", ".join([*parts, told["gpu"] or "no GPU", f"Python {platform.python_version()}", f"torch {told['torch']}"])


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *rows])


if __name__ == "__main__":
    main()
