"""The Indexed Job: accepted by Kubernetes' own schema, and what it says."""

import json
import re
import subprocess

import pytest
from ruamel.yaml import YAML

from dreamer.options import ConfigError
from dreamer.sweeps import k8s, record
from dreamer.sweeps.flags import parse
from dreamer.sweeps.grid import expand
from tests.sweeps.fake_train import ROOT

ASKED = [
    "--logdir",
    "x",
    "--launcher",
    "k8s",
    "--image",
    "lab/dreamer:1",
    "--pvc",
    "logs",
]


def some_runs(folder, seeds):
    return expand(["debug"], {"task": "gym_a/B-v0", "seed": seeds}, folder)


def manifest(folder, *words, seeds="0,1", number=0):
    flags = parse([*ASKED, *words])[0]
    return k8s.manifest(folder, number, some_runs(folder, seeds), flags)


def documents(text):
    return list(YAML(typ="safe", pure=True).load_all(text))


@pytest.mark.parametrize(
    "words",
    [
        [],
        [
            "--gpu-count",
            "0",
            "--cpus",
            "4",
            "--mem",
            "16Gi",
            "--concurrent",
            "1",
            "--retries",
            "0",
        ],
    ],
)
def test_the_schema_accepts_it(tmp_path, words):
    validate = pytest.importorskip("kubernetes_validate")
    version = validate.latest_version()
    assert tuple(map(int, version.split(".")[:2])) >= (1, 33)
    found = documents(manifest(tmp_path, *words))
    assert [x["kind"] for x in found] == ["ConfigMap", "Job"]
    for document in found:
        validate.validate(document, version, strict=True)
    found[1]["spec"]["backoffLimitPerIdx"] = 1
    with pytest.raises(validate.ValidationError):
        validate.validate(found[1], version, strict=True)


def test_every_run_has_an_index_and_a_command(tmp_path):
    config_map, job = documents(manifest(tmp_path, seeds="0,1,2"))
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"]) == ("Indexed", 3)
    for seed in range(3):
        command = config_map["data"][f"run-{seed}"]
        assert command.startswith(f"exec {' '.join(k8s.ENTRY)} --configs deb")
        assert f"--seed {seed} " in command
        assert command.endswith(f"--logdir {tmp_path}/gym_a_B-v0-{seed}\n")


def test_a_pod_starts_as_the_image_does():
    """With what hears a signal while Python still imports."""
    text = (ROOT / "docker" / "Dockerfile").read_text()
    (entry,) = re.findall("^ENTRYPOINT (.*)$", text, re.MULTILINE)
    assert json.loads(entry) == k8s.ENTRY


def test_the_run_takes_the_place_of_the_shells(tmp_path, monkeypatch):
    """So that it gets the signal, and its exit code is the pod's."""
    entry = tmp_path / "python"
    entry.write_text('#!/bin/sh\necho $$ "$@"; exit 75\n')
    entry.chmod(0o755)
    monkeypatch.setattr(k8s, "ENTRY", [str(entry), "entry.py"])
    config_map, job = documents(manifest(tmp_path))
    for name, text in config_map["data"].items():
        (tmp_path / name).write_text(text)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    command = [
        x.replace(k8s.COMMANDS, str(tmp_path)) for x in container["command"]
    ]
    process = subprocess.Popen(
        command,
        env={"PATH": "/usr/bin:/bin", "JOB_COMPLETION_INDEX": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    out, _ = process.communicate()
    assert process.returncode == 75
    assert out.split()[:3] == [str(process.pid), "entry.py", "--configs"]
    assert out.endswith("gym_a_B-v0-1\n")


def test_what_counts_as_a_failure(tmp_path):
    spec = documents(manifest(tmp_path, "--retries", "3"))[1]["spec"]
    assert spec["backoffLimitPerIndex"] == 3
    rules = spec["podFailurePolicy"]["rules"]
    codes = {
        tuple(x["onExitCodes"]["values"]): x["action"]
        for x in rules
        if "onExitCodes" in x
    }
    assert codes == {(75,): "Ignore", (2,): "FailIndex"}
    (pod,) = [x for x in rules if "onPodConditions" in x]
    assert pod["action"] == "Ignore"


def test_pods_have_what_was_asked_for(tmp_path):
    words = [
        "--cpus",
        "4",
        "--mem",
        "16Gi",
        "--gpu-count",
        "2",
        "--concurrent",
        "1",
    ]
    spec = documents(manifest(tmp_path, *words))[1]["spec"]
    assert spec["parallelism"] == 1
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] >= 60
    (container,) = pod["containers"]
    assert container["image"] == "lab/dreamer:1"
    assert container["resources"]["limits"] == {
        "nvidia.com/gpu": 2,
        "memory": "16Gi",
    }
    assert container["volumeMounts"][0]["mountPath"] == str(tmp_path)
    claim = pod["volumes"][0]["persistentVolumeClaim"]
    assert claim == {"claimName": "logs"}
    assert container["env"] == [{"name": "JAX_PLATFORMS", "value": "cuda"}]
    mounts = {x["name"]: x["mountPath"] for x in container["volumeMounts"]}
    assert mounts["shm"] == "/dev/shm"
    shm = {"medium": "Memory", "sizeLimit": "1Gi"}
    assert {"name": "shm", "emptyDir": shm} in pod["volumes"]
    assert {x["name"] for x in pod["volumes"]} == set(mounts)
    without = documents(manifest(tmp_path, "--gpu-count", "0"))[1]["spec"]
    (container,) = without["template"]["spec"]["containers"]
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert "env" not in container
    assert len(container["volumeMounts"]) == 2


def test_every_manifest_has_a_name_of_its_own(tmp_path):
    assert manifest(tmp_path) == manifest(tmp_path)
    names = {
        documents(manifest(folder, seeds=seeds, number=number))[1]["metadata"][
            "name"
        ]
        for folder in (tmp_path / ("A b" * 20), tmp_path / "---")
        for seeds in ("0", "1")
        for number in (0, 9999)
    }
    assert len(names) == 8
    for name in names:
        assert re.fullmatch("[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?", name)


def test_runs_are_left_to_a_manifest_while_it_lies_there(tmp_path):
    flags = parse(ASKED)[0]
    found = record.read(tmp_path)
    runs = some_runs(tmp_path, "0,1,2")
    found.add(runs)
    first = k8s.submit(found, runs[:2], flags)
    second = k8s.submit(found, runs[1:], flags)
    names = [documents(x.read_text())[1]["metadata"]["name"]
             for x in (first, second)]  # fmt: skip
    assert names[0].endswith("-0")
    assert names[1].endswith("-1")
    assert k8s.queued(record.read(tmp_path)) == {
        runs[0].name: first,
        runs[1].name: second,
        runs[2].name: second,
    }
    first.unlink()
    assert set(k8s.queued(found).values()) == {second}
    second.unlink()
    assert k8s.queued(found) == {}
    assert k8s.submit(found, runs, flags).name == "k8s-2.yaml"


@pytest.mark.parametrize("missing", ["image", "pvc"])
def test_what_a_manifest_has_to_name(missing):
    at = ASKED.index(f"--{missing}")
    flags = parse([*ASKED[:at], *ASKED[at + 2 :]])[0]
    with pytest.raises(ConfigError, match=f"expected --{missing} "):
        k8s.check(flags, [])


def test_a_pod_sees_presets_and_files_of_the_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = parse([*ASKED, "--logdir", "sweep"])[0]
    k8s.check(flags, ["debug", "sweep/mine.yaml", f"{tmp_path}/sweep/a.yml"])
    for path in ("mine.yaml", "sweep/../mine.yaml", "~/sweep/mine.yml"):
        with pytest.raises(ConfigError, match=f"--configs {path}: expected"):
            k8s.check(flags, ["debug", path])


def test_more_runs_than_kubectl_takes_are_refused(tmp_path, monkeypatch):
    """It keeps the ConfigMap, as JSON, in an annotation of its own."""
    config_map, _ = documents(manifest(tmp_path))
    size = len(json.dumps(config_map))
    monkeypatch.setattr(k8s, "LARGEST", size)
    assert manifest(tmp_path)
    monkeypatch.setattr(k8s, "LARGEST", size - 1)
    with pytest.raises(ConfigError, match=f"2 runs: .* {size:,} bytes of a"):
        manifest(tmp_path)
