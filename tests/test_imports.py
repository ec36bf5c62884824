"""Imports go one way: entry points -> run -> {agent, envs, replay}.

Environment workers must stay light and off the accelerator, so neither their
code nor the replay's may import JAX, however indirectly. Read from the source:
no import hidden in a function escapes.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
JAX = re.compile(r"(jax|jaxlib|flax|optax|chex|orbax)(\.|$)")
PARTS = ("agent", "envs", "replay")
ENTRY_POINTS = {
    f"dreamer.{x}"
    for x in ("train", "evaluate", "export", "plot", "report", "sweep")
}
# The one exception: the names of the games, to check a task by.
PURE = {"dreamer.envs.games"}


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree, package):
    """Names of all modules that a module imports, `package` being its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            yield base
            # `from dreamer import run` means dreamer.run.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def is_package(name):
    return (ROOT.joinpath(*name.split(".")) / "__init__.py").exists()


def read_modules():
    found = {}
    for path in sorted((ROOT / "dreamer").rglob("*.py")):
        name = name_of(path)
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found[name] = set(imported(tree, package))
    return found


MODULES = read_modules()
# Anyone may import these, so they may import nothing but one another.
LEAVES = {
    name for name in MODULES if name.count(".") == 1 and not is_package(name)
} - ENTRY_POINTS


def ours(name):
    """The modules of the package that a module imports."""
    return {other for other in MODULES[name] if other in MODULES}


def reached(name):
    """Everything that importing a module imports, ours and others'."""
    done, todo = set(), [name]
    while todo:
        for other in MODULES.get(todo.pop(), ()):
            # Importing a.b.c imports a and a.b too.
            parts = other.split(".")
            for end in range(1, len(parts) + 1):
                prefix = ".".join(parts[:end])
                if prefix not in done:
                    done.add(prefix)
                    todo.append(prefix)
    return done


def part_of(name):
    return (name.split(".") + [""])[1]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import jax.numpy as jnp", {"jax.numpy"}),
        ("def f():\n    import a, b.c", {"a", "b.c"}),
        ("from dreamer import run", {"dreamer", "dreamer.run"}),
        ("from . import ring", {"dreamer.replay", "dreamer.replay.ring"}),
        ("from ..run import x", {"dreamer.run", "dreamer.run.x"}),
    ],
)
def test_the_walk_sees_every_form(source, expected):
    assert set(imported(ast.parse(source), "dreamer.replay")) == expected


def test_the_walk_sees_the_package():
    assert {"dreamer", "dreamer.config", "dreamer.run.logger"} <= set(MODULES)
    assert "dreamer.config" in ours("dreamer.run.logger")
    assert "dataclasses" in reached("dreamer.run.logger")


@pytest.mark.parametrize("part", PARTS)
def test_parts_import_neither_one_another_nor_run(part):
    allowed = {"", part} | {leaf.split(".")[1] for leaf in LEAVES}
    for name in MODULES:
        if part_of(name) == part:
            wrong = {o for o in ours(name) if part_of(o) not in allowed}
            assert not wrong, f"{name} imports {sorted(wrong)}"


@pytest.mark.parametrize(
    "part", ["envs", "replay", "scores", "pages", "sweeps"]
)
def test_light_parts_never_reach_jax(part):
    for name in MODULES:
        if part_of(name) == part:
            wrong = {other for other in reached(name) if JAX.match(other)}
            assert not wrong, f"{name} imports {sorted(wrong)}"


def test_scores_import_leaves_only():
    for name in MODULES:
        if part_of(name) == "scores":
            others = {o for o in ours(name) if part_of(o) != "scores"}
            wrong = others - LEAVES - PURE - {"dreamer", "dreamer.envs"}
            assert not wrong, f"{name} imports {sorted(wrong)}"


def test_pages_import_scores_and_leaves_only():
    for name in MODULES:
        if part_of(name) == "pages":
            others = {o for o in ours(name) if part_of(o) != "pages"}
            wrong = {o for o in others - LEAVES if part_of(o) != "scores"}
            assert not wrong - {"dreamer"}, f"{name} imports {sorted(wrong)}"


def test_leaves_import_only_leaves():
    for name in LEAVES:
        wrong = ours(name) - LEAVES - PURE - {"dreamer", "dreamer.envs"}
        assert not wrong, f"{name} imports {sorted(wrong)}"
        heavy = {
            other
            for other in reached(name)
            if JAX.match(other) or other.startswith(("gymnasium", "ale_py"))
        }
        assert not heavy, f"{name} imports {sorted(heavy)}"


def test_nothing_imports_an_entry_point():
    for name in MODULES:
        wrong = ours(name) & ENTRY_POINTS
        assert not wrong, f"{name} imports {sorted(wrong)}"
