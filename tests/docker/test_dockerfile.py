"""The Dockerfile: what it installs, who runs, and that it is understood."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
LOCKS = ("cuda12", "cpu")


@pytest.fixture(params=LOCKS)
def stages(request, program):
    given = {"LOCK": request.param}
    return program("dockerfile").read(DOCKERFILE, given)


def texts(stage, name):
    return [step.text for step in stage.steps if step.name == name]


def last(stage, name):
    return next(x for x in reversed(stage.steps) if x.name == name)


def test_a_linter_has_nothing_to_say():
    beside = Path(sys.executable).with_name("hadolint")
    hadolint = beside if beside.exists() else shutil.which("hadolint")
    if not hadolint:
        pytest.skip("hadolint is not installed")
    done = subprocess.run(
        [hadolint, "--no-color", DOCKERFILE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_is_one_pinned_python_that_the_locks_are_for(stages):
    bases = {stage.base for stage in stages}
    assert len(bases) == 1
    version = re.fullmatch(r"python:(3\.12)\.\d+-slim-[a-z]+", bases.pop())[1]
    with (ROOT / "pyproject.toml").open("rb") as file:
        needs = tomllib.load(file)["project"]["requires-python"]
    assert tuple(map(int, version.split("."))) >= tuple(
        map(int, needs.removeprefix(">=").split("."))
    )


def test_packages_come_from_a_lock_with_hashes_and_nothing_is_built(stages):
    packages, final = stages
    installs = [x for x in texts(packages, "RUN") if " -m pip " in x]
    assert len(installs) == 1
    for word in ("--require-hashes", "--only-binary :all:", "-r /lock.txt"):
        assert word in installs[0]
    everything = " ".join(texts(packages, "RUN") + texts(final, "RUN"))
    tools = r"\b(apt|apt-get|gcc|g\+\+|make|curl|wget|git|conda|uv)\b"
    assert not re.search(tools, everything)
    assert not re.search(r"\bpip\b", " ".join(texts(final, "RUN")))
    assert "requirements/${LOCK}.txt /lock.txt" in texts(packages, "COPY")
    for lock in LOCKS:
        assert (ROOT / "requirements" / f"{lock}.txt").exists()


def test_it_runs_as_a_user_without_rights(stages):
    final = stages[-1]
    user, group = last(final, "USER").text.split(":")
    assert int(user) > 0
    assert int(group) > 0
    after = final.steps[final.steps.index(last(final, "USER")) :]
    assert not {"RUN", "COPY", "ENV"} & {step.name for step in after}
    assert f"useradd --uid {user} " in " ".join(texts(final, "RUN"))


def test_no_shell_stands_between_the_program_and_its_signals(stages):
    final = stages[-1]
    venv = "/opt/dreamer/bin/python"
    entry = last(final, "ENTRYPOINT").command()
    assert entry == [venv, "/opt/dreamer/src/docker/entry.py"]
    check = last(final, "HEALTHCHECK").command()
    assert check == [venv, "/opt/dreamer/src/docker/health.py"]
    assert last(final, "CMD").command() == ["--help"]
    assert last(final, "STOPSIGNAL").text == "SIGTERM"


def test_everything_copied_is_there_and_nothing_else_is_sent(stages, program):
    included = program("replay").included
    for stage in stages:
        for step in stage.steps:
            if step.name == "COPY" and not step.flags:
                for source in step.words()[:-1]:
                    path = ROOT / source.replace("${LOCK}", "cpu")
                    assert path.exists(), source
                    assert included(path), source
    for path in (ROOT / "dreamer").rglob("*"):
        assert included(path) != ("__pycache__" in path.parts), path
    for name in (".git/config", ".venv/bin/python", "logdir/x", "tests/x.py"):
        assert not included(ROOT / name)
    for name in ("README.md", "dreamer/__pycache__/x.pyc", "docker/job.yaml"):
        assert not included(ROOT / name)


BEGINNING = "FROM python:3.12.1-slim\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUN true\n", "line 1: expected FROM first"),
        (BEGINNING + "RNU true\n", "line 2: RNU: expected an instruction"),
        (BEGINNING + "run true\n", "line 2: run: expected an instruction"),
        (BEGINNING + "\n# x\nRUN\n", "line 4: RUN: expected more"),
        (BEGINNING + "RUN a \\\n", r"line 2: ends with \ and then nothing"),
        (BEGINNING + "COPY --form=a b c\n", "COPY --form=a: unknown flag"),
        (BEGINNING + "RUN --mount=type=x a\n", "RUN --mount=type=x: unknown"),
        ("FROM python AS\n", "line 1: FROM: expected IMAGE or IMAGE AS NAME"),
        ("FROM python:$X\n", "line 1: $X has no value"),
    ],
)
def test_what_is_not_known_is_refused(program, tmp_path, text, message):
    dockerfile = program("dockerfile")
    path = tmp_path / "Dockerfile"
    path.write_text(text)
    with pytest.raises(dockerfile.DockerfileError) as error:
        dockerfile.read(path, {})
    assert message in str(error.value)


def test_shell_form_and_unknown_arguments_are_refused(program, tmp_path):
    dockerfile = program("dockerfile")
    path = tmp_path / "Dockerfile"
    path.write_text(f"{BEGINNING}ENTRYPOINT python -m dreamer.train\n")
    (stage,) = dockerfile.read(path, {})
    with pytest.raises(dockerfile.DockerfileError, match="exec form"):
        stage.steps[0].command()
    with pytest.raises(dockerfile.DockerfileError, match="expected one of"):
        dockerfile.read(DOCKERFILE, {"LOKC": "cpu"})


def test_arguments_reach_the_steps_that_declare_them(program):
    dockerfile = program("dockerfile")
    stages = dockerfile.read(DOCKERFILE, {"PYTHON": "3.12.1-slim-x"})
    assert {stage.base for stage in stages} == {"python:3.12.1-slim-x"}
    step = next(x for x in stages[0].steps if x.name == "ARG")
    assert dockerfile.argument(step, {}) == {"LOCK": "cuda12"}
    assert dockerfile.argument(step, {"LOCK": "cpu"}) == {"LOCK": "cpu"}
