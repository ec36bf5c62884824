"""A Slurm of one machine, on loopback, for a test: begun, used, ended.

Its own key, sockets, ports and folders, so that it disturbs no other one. No
systemd, no accounting, no control groups. Munge wants folders that nobody
else can write in, and a user of its own if there is one.
"""

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
# Where Debian has the programs of daemons, which is not on everyone's PATH.
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
PATIENCE = 60  # seconds for all of it to be up
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CommunicationParameters=NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,batch_sched_delay=0
KillWait=60
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 Port={node} CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why there can be none here, or nothing."""
    lacking = [x for x in PROGRAMS if not shutil.which(x, path=PATH)]
    if lacking:
        return f"Slurm is not installed: no {', '.join(lacking)}"
    return ""


def _free_ports(count):
    with contextlib.ExitStack() as opened:
        found = []
        for _ in range(count):
            one = opened.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            found.append(one.getsockname()[1])
        return found


def _munge_user():
    """Munge does not run as root, so as to lose no secret of root's."""
    if os.geteuid():
        return None
    names = {x.pw_name for x in pwd.getpwall()}
    return "munge" if "munge" in names else "nobody"


@contextlib.contextmanager
def slurm():
    """Yields the environment in which Slurm's programs find it."""
    with tempfile.TemporaryDirectory(prefix="slurm") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with contextlib.ExitStack() as opened:
            opened.callback(_tell, folder)
            _start_munge(folder, opened)
            env = _configure(folder)
            for command in (["slurmctld"], ["slurmd", "-N", _host()]):
                _start([*command, "-D"], env, folder, opened)
            opened.callback(_cancel, env)
            _wait(env, ["sinfo", "--noheader", "--format=%T"], "idle")
            yield env


def _host():
    return socket.gethostname().partition(".")[0]


def _configure(folder):
    for name in ("state", "spool"):
        (folder / name).mkdir()
    controller, node = _free_ports(2)
    text = CONF.format(
        host=_host(),
        user=pwd.getpwuid(os.geteuid()).pw_name,
        controller=controller,
        node=node,
        cpus=os.cpu_count(),
        folder=folder,
    )
    conf = folder / "slurm.conf"
    conf.write_text(text)
    return {**os.environ, "PATH": PATH, "SLURM_CONF": str(conf)}


def _start_munge(folder, opened):
    user = _munge_user()
    home = folder / "munge"
    home.mkdir(mode=0o755)
    key = home / "key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    if user:
        for path in (home, key):
            shutil.chown(path, user)
    command = ["munged", "--foreground", f"--key-file={key}"]
    for word in ("socket", "pid-file", "log-file", "seed-file"):
        command.append(f"--{word}={home}/{word}")
    env = {**os.environ, "PATH": PATH}
    _start(command, env, folder, opened, user=user)
    end = time.monotonic() + PATIENCE
    while not (home / "socket").exists():
        assert time.monotonic() < end, "munged does not start"
        time.sleep(0.05)


def _start(command, env, folder, opened, **options):
    """A daemon, which ends with the test."""
    log = opened.enter_context((folder / f"{command[0]}.out").open("wb"))
    found = shutil.which(command[0], path=PATH)
    process = subprocess.Popen(
        [found, *command[1:]], env=env, stdout=log, stderr=log, **options
    )
    opened.callback(_end, process)


def _end(process):
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _cancel(env):
    """No job outlives its cluster."""
    subprocess.run(["scancel", "--full", "--signal=KILL", "--me"], env=env)
    subprocess.run(["scancel", "--me"], env=env)
    _wait(env, ["squeue", "--noheader"], "")


def _wait(env, command, answer):
    """Until a program answers so."""
    end = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, check=False
        )
        if not done.returncode and done.stdout.strip() == answer:
            return
        assert time.monotonic() < end, done
        time.sleep(0.2)


def _tell(folder):
    """What the daemons said, which pytest shows where a test failed."""
    for path in sorted(folder.glob("*.log")) + sorted(folder.glob("*.out")):
        print(f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}")
