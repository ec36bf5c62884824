"""The jobs beside the image: their settings exist, signals reach the run."""

import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from dreamer import settings, train
from dreamer.config import Config

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
VARIABLE = re.compile(r"\$\{\w+:-([^{}]*)\}")


def documents(name):
    return list(YAML(typ="safe").load_all((DOCKER / name).read_text("utf-8")))


def image(program):
    """The last stage's instructions by name."""
    stages = program("dockerfile").read(DOCKER / "Dockerfile", {})
    return {step.name: step for step in stages[-1].steps}


def test_the_commands_on_the_page_are_right():
    text = (DOCKER / "README.md").read_text("utf-8")
    commands = re.findall(r"^(docker run|sbatch) (.+)$", text, re.MULTILINE)
    found = [x[x.index("--configs") :] for _, x in commands if "--conf" in x]
    assert len(found) >= 4
    for flags in found:
        settings.load(shlex.split(flags))
    for path in re.findall(r"docker/[\w.]+", text):
        assert (ROOT / path).exists(), path


def test_compose(program):
    (compose,) = documents("compose.yaml")
    user = image(program)["USER"].text
    for name, service in compose["services"].items():
        words = shlex.split(VARIABLE.sub(r"\1", service["command"]))
        assert settings.load(words).task == "atari100k_pong"
        assert ("--jax.platform" in words) == (name == "train")
        assert VARIABLE.sub(r"\1", service["user"]) == user
        (volume,) = service["volumes"]
        assert volume["target"] == "/logdir"
        assert not volume["bind"]["create_host_path"]
        assert service["read_only"]
        assert "/tmp" in service["tmpfs"]
        assert service["stop_grace_period"] == "5m"
        build = service["build"]
        context = (DOCKER / build["context"]).resolve()
        assert (context, context / build["dockerfile"]) == (
            ROOT,
            DOCKER / "Dockerfile",
        )
        lock = build["args"]["LOCK"]
        assert (ROOT / "requirements" / f"{lock}.txt").exists()
    gpu = compose["services"]["train"]["deploy"]["resources"]["reservations"]
    assert gpu["devices"] == [
        {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    ]


@pytest.mark.parametrize("version", ["1.31", "newest"])
def test_kubernetes_would_take_the_job(version):
    kubernetes = pytest.importorskip("kubernetes_validate")
    if version == "newest":
        version = kubernetes.latest_version()
    found = documents("job.yaml")
    assert [x["kind"] for x in found] == ["PersistentVolumeClaim", "Job"]
    for document in found:
        kubernetes.validate(document, version, strict=True)


def test_the_job_fits_the_image(program):
    claim, job = documents("job.yaml")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert settings.load(container["args"]).jax.platform == "cuda"
    ids = image(program)["USER"].text.split(":")
    context = pod["securityContext"]
    assert [context["runAsUser"], context["runAsGroup"]] == [
        int(x) for x in ids
    ]
    assert context["runAsNonRoot"]
    probe = container["livenessProbe"]
    check = image(program)["HEALTHCHECK"].command()
    assert probe["exec"]["command"] == check
    # It must not end a run that bears with a full disk.
    patience = Config().run.disk_patience
    silence = program("health").SILENCE
    borne = silence + probe["periodSeconds"] * probe["failureThreshold"]
    assert borne > patience
    mounts = {x["mountPath"]: x["name"] for x in container["volumeMounts"]}
    volumes = {x["name"]: x for x in pod["volumes"]}
    assert mounts.keys() == {"/logdir", "/tmp", "/dev/shm"}
    assert volumes.keys() == set(mounts.values())
    name = volumes[mounts["/logdir"]]["persistentVolumeClaim"]["claimName"]
    assert name == claim["metadata"]["name"]
    assert container["securityContext"]["readOnlyRootFilesystem"]


def test_the_job_goes_on_after_an_interruption_and_not_after_a_refusal():
    _, job = documents("job.yaml")
    actions = {}
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        for code in rule.get("onExitCodes", {}).get("values", ()):
            actions[code] = rule["action"]
    assert actions == {train.INTERRUPTED: "Ignore", train.REFUSED: "FailJob"}
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


APPTAINER = """#!/bin/sh
trap 'sleep 0.3; exit 75' TERM
echo "$@" >"$NOTES/apptainer"
echo "${PYTHONPATH-none}" >>"$NOTES/apptainer"
for _ in ${LONG-}; do sleep 0.1; done
exit "${CODE:-0}"
"""


class Slurm:
    """Starts apptainer.sbatch with programs that note what they are told."""

    def __init__(self, folder):
        self.folder = folder
        self.tools = folder / "tools"
        self.tools.mkdir()
        (folder / "dreamer.sif").touch()
        self.tool("apptainer", APPTAINER)
        self.tool("squeue", '#!/bin/sh\necho "${STATE:-RUNNING}"\n')
        self.tool("scontrol", '#!/bin/sh\necho "$@" >"$NOTES/scontrol"\n')

    def tool(self, name, text):
        (self.tools / name).write_text(text)
        (self.tools / name).chmod(0o755)

    def start(self, script=DOCKER / "apptainer.sbatch", **environ):
        values = {
            "PATH": f"{self.tools}:/usr/bin:/bin",
            "HOME": str(self.folder),
            "NOTES": str(self.folder),
            "SLURM_JOB_ID": "41",
            "PYTHONPATH": "/of/the/host",
        }
        return subprocess.Popen(
            [script, "--task", "two words"],
            env=values | environ,
            stderr=subprocess.PIPE,
            text=True,
        )

    def note(self, name):
        path = self.folder / name
        return path.read_text() if path.exists() else None


@pytest.fixture
def slurm(tmp_path):
    return Slurm(tmp_path)


def test_slurm_runs_the_image(slurm):
    process = slurm.start()
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    folder = slurm.folder
    assert slurm.note("apptainer").splitlines() == [
        f"run --nv --bind {folder}/logdir:/logdir {folder}/dreamer.sif"
        " --task two words",
        "none",
    ]
    assert (folder / "logdir").is_dir()
    assert slurm.note("scontrol") is None


@pytest.mark.parametrize("code", [1, 2, 75])
def test_slurm_queues_an_interrupted_job_again(slurm, code):
    process = slurm.start(CODE=str(code))
    process.communicate()
    assert process.returncode == code
    assert slurm.note("scontrol") == ("requeue 41\n" if code == 75 else None)


def test_slurm_does_not_queue_a_cancelled_job_again(slurm):
    process = slurm.start(CODE="75", STATE="COMPLETING")
    process.communicate()
    assert process.returncode == 75
    assert slurm.note("scontrol") is None


@pytest.mark.parametrize("busy", ["squeue", "scontrol"])
def test_slurm_is_asked_again_when_it_is_busy(slurm, busy):
    fails_once = '[ -e "$NOTES/asked" ] || { touch "$NOTES/asked"; exit 1; }'
    text = (slurm.tools / busy).read_text()
    slurm.tool(busy, text.replace("\n", f"\n{fails_once}\n", 1))
    process = slurm.start(CODE="75", SQUEUE_STATES="PENDING")
    process.communicate()
    assert slurm.note("scontrol") == "requeue 41\n"


def test_a_run_that_does_not_stop_is_ended_and_queued_again(slurm):
    ignores = APPTAINER.replace("sleep 0.3; exit 75", "")
    slurm.tool("apptainer", ignores)
    text = (DOCKER / "apptainer.sbatch").read_text()
    assert "seconds = 30;" in text  # of those before the limit
    script = slurm.folder / "short.sbatch"
    script.write_text(text.replace("seconds = 30;", "seconds = 59;"))
    script.chmod(0o755)
    process = slurm.start(script, GRACE="60", LONG="x " * 600)
    while (slurm.note("apptainer") or "").count("\n") < 2:
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 128 + signal.SIGKILL
    assert slurm.note("scontrol") == "requeue 41\n"


def test_the_signal_of_slurm_reaches_the_run_and_is_waited_for(slurm):
    process = slurm.start(LONG="x " * 50)
    while (slurm.note("apptainer") or "").count("\n") < 2:
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 75
    assert slurm.note("scontrol") == "requeue 41\n"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"PATH": "/usr/bin:/bin"}, "there is no apptainer on PATH"),
        ({"IMAGE": "/no/image.sif"}, "IMAGE=/no/image.sif: no such file"),
        ({"LOGDIR": "/proc/x"}, "LOGDIR=/proc/x is not writable"),
        ({"GRACE": "9"}, "GRACE=9: expected a whole number from 60 to 99999"),
    ],
)
def test_slurm_is_refused_in_one_line(slurm, environ, message):
    process = slurm.start(**environ)
    _, err = process.communicate()
    assert (process.returncode, err) == (2, f"apptainer.sbatch: {message}\n")
    made = {path.name for path in slurm.folder.iterdir()}
    assert made == {"tools", "dreamer.sif"}
