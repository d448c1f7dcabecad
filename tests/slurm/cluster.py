"""A Slurm cluster of one node on loopback, with keys, sockets, state and logs in one folder; any user can start it."""

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
"""Where programs are found; Debian gives users no path to the daemons."""

# cred_expire: how long a job waits that goes back into the queue. KillWait: under 10, a cancelled srun may return 0.
CONFIG = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
SlurmdPort={node}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
EnforcePartLimits=ALL
KillWait=30
ReturnToService=2
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=60 State=UP
"""


class ClusterError(RuntimeError):
    """A cluster cannot be started here; the message says why and what to do."""


@contextmanager
def started(cpus: int) -> Iterator[dict[str, str]]:
    """Start a cluster of one node; its programs find it by the variables that are yielded. Nothing of it is left.

    ``cpus`` : how many its node says that it has, whatever the machine has.

    Raises ClusterError.
    """
    for program in ("munged", "slurmctld", "slurmd", "srun"):
        if not shutil.which(program, path=PATH):
            raise ClusterError(f"{program} is not here (Debian: apt install slurm-wlm munge)")
    host = socket.gethostname().partition(".")[0]
    try:
        address = socket.gethostbyname(host)
    except OSError:
        address = "unknown"
    if not address.startswith("127."):
        raise ClusterError(
            f"the address of {host}, this machine, is {address}, and a cluster on loopback needs 127.0.0.1: "
            f"write '127.0.0.1 {host}' into /etc/hosts"
        )
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        with ExitStack() as stack:
            yield _start(stack, folder, host, cpus)
    finally:
        shutil.rmtree(folder)


def _start(stack: ExitStack, folder: Path, host: str, cpus: int) -> dict[str, str]:
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(128))
    controller, node = _free_ports(2)
    memory = psutil.virtual_memory().total >> 20
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(user=getpass.getuser(), **{n: v for n, v in locals().items() if n != "stack"}))
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    environ |= {"PATH": PATH, "SLURM_CONF": str(config)}

    def daemon(name: str, *command: str) -> None:
        with (folder / f"{name}.out").open("w") as out:
            dying = ["setpriv", "--pdeathsig", "TERM", name, *command]  # with this process, whatever ends it
            process = subprocess.Popen(dying, env=environ, stdout=out, stderr=subprocess.STDOUT)
        stack.callback(_stop, process)

    files = {
        "key-file": key,
        **{n: folder / f"munge.{n.partition('-')[0]}" for n in ("socket", "pid-file", "log-file")},
    }
    files["seed-file"] = folder / "munge.seed"
    daemon("munged", "--foreground", "--force", *(f"--{name}={file}" for name, file in files.items()))
    _wait(folder, lambda: files["socket"].exists())
    daemon("slurmctld", "-D", "-f", str(config))
    daemon("slurmd", "-D", "-f", str(config), "-N", host)
    stack.callback(_cancel, environ)
    _wait(folder, lambda: "idle" in _output(["sinfo", "--noheader", "--format=%t"], environ))
    return {"PATH": PATH, "SLURM_CONF": str(config)}


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _output(command: list[str], environ: dict[str, str]) -> str:
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60).stdout


def _wait(folder: Path, ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not ready():
        if time.monotonic() > end:
            said = [
                f"{p.name}: {p.read_text()[-1000:]}" for p in sorted([*folder.glob("*.out"), *folder.glob("*.log")])
            ]
            raise ClusterError("\n".join(["Slurm did not start within a minute", *said]))
        time.sleep(0.1)


def _cancel(environ: dict[str, str]) -> None:
    """Cancel all jobs, and wait until none of their processes is left."""
    _output(["scancel", f"--user={getpass.getuser()}"], environ)
    end = time.monotonic() + 60
    while _output(["squeue", "--noheader"], environ) and time.monotonic() < end:
        time.sleep(0.2)
    for process in processes(SLURM_CONF=environ["SLURM_CONF"]):
        process.kill()


def _stop(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def processes(**variables: str) -> list[psutil.Process]:
    """The processes of jobs that have these variables."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended, or is another user's
            environ = process.environ()
            if "SLURM_JOB_ID" in environ and variables.items() <= environ.items():
                found.append(process)
    return found


def words(process: psutil.Process) -> str:
    """The command of a process; nothing if it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
