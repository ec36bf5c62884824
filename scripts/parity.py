"""Compares the agent with numbers of the authors' public code.

    python scripts/parity.py tests/data/tiny.npz

A fixture holds parameters, batches and acting inputs, and what the authors'
code makes of them in float32 with every categorical sample replaced by the
arg-max of its logits.  This script loads the parameters into the product's
own `Agent`, runs the functions that training uses, and prints one row per
group of quantities: its worst relative error and where, beside the
tolerance.  Exit code 1 when any is exceeded, 2 when the fixture is unusable.
Read first: fixture.py, what a fixture is.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from fixture import (  # noqa: E402
    Fixture,
    FixtureError,
    get,
    our_path,
    settings,
)

from dreamer.agent.agent import Agent, TrainState  # noqa: E402
from dreamer.agent.optim import make_optimizer  # noqa: E402
from dreamer.agent.returns import ReturnRange  # noqa: E402
from dreamer.options import one_line  # noqa: E402
from dreamer.spaces import Space  # noqa: E402

# Two builds of the authors' code agree to 1e-4 (8e-4 for the parameters'
# change), so these leave room for the order of float32 sums and no more.
TOLERANCE = 1e-3
TOLERANCE_CHANGE = 1e-2
TOLERANCE_INIT = 0.15  # of a standard deviation estimated from few numbers


def keep_gradients() -> optax.GradientTransformation:
    """Passes gradients on and keeps them as its state.

    In front of the agent's optimiser it shows the gradients of the very
    update that training compiles.
    """

    def init(params):
        return jax.tree.map(jnp.zeros_like, params)

    def update(grads, state, params=None):
        del state, params
        return grads, grads

    return optax.GradientTransformation(init, update)


def make_agent(fixture: Fixture) -> Agent:
    """The product's agent with the dimensions of a fixture."""
    config = settings(fixture.config).agent
    return Agent(
        {"image": Space("image", tuple(fixture.config["size"]))},
        Space("discrete", (), fixture.config["acts"]),
        config,
        dtype=jnp.float32,
        optimizer=optax.chain(keep_gradients(), make_optimizer(config.opt)),
    )


def make_state(agent: Agent, fixture: Fixture) -> TrainState:
    """The fixture's starting values, every tensor named exactly once."""
    given = fixture.under("params")
    shapes = agent.state_shapes
    params = jax.tree.map(lambda x: None, shapes.params)
    slow = jax.tree.map(lambda x: None, shapes.slow_critic)
    for name, value in given.items():
        if name.startswith(("retnorm/", "slowval_count/")):
            continue
        path = our_path(name)
        tree, want = params, get(shapes.params, path)
        if name.startswith("slowval/"):
            tree, path = slow, path[1:]
        check_like(name, value, want)
        for part in path[:-1]:
            tree = tree[part]
        tree[path[-1]] = jnp.asarray(value)
    for tree in (params, slow):
        leaves = jax.tree_util.tree_leaves_with_path(
            tree, is_leaf=lambda x: x is None
        )
        for path, leaf in leaves:
            if leaf is None:
                where = jax.tree_util.keystr(path)
                raise FixtureError(f"fixture has no value for {where}")
    ends = {}
    for ours, theirs in {"low": "lo", "high": "hi"}.items():
        name = f"params/retnorm/{theirs}/value"
        ends[ours] = fixture.array(name)
        check_like(name, ends[ours], shapes.return_range.low)
    return agent.state_from(params).replace(
        slow_critic=slow,
        return_range=ReturnRange(**jax.tree.map(jnp.asarray, ends)),
    )


def check_like(
    name: str, value: np.ndarray, ours: jax.ShapeDtypeStruct
) -> None:
    """Sees that a value can be put in the place of one of ours."""
    if value.shape != ours.shape or value.dtype != ours.dtype:
        raise FixtureError(
            f"{name} is {value.dtype}{list(value.shape)},"
            f" ours {ours.dtype}{list(ours.shape)}"
        )


def make_batch(fixture: Fixture, index: int) -> dict[str, jax.Array]:
    """Fields (B, 1+T, ...); the stored latent of the context step alone."""
    batch = fixture.under(f"batch{index}")
    deter, stoch = (
        fixture.array(f"batch{index}/{name}")
        for name in ("dyn/deter", "dyn/stoch")
    )
    del batch["dyn/deter"], batch["dyn/stoch"]
    batch["deter"] = deter[:, 0]
    batch["stoch"] = stoch[:, 0].argmax(-1).astype(np.uint8)
    return {k: jnp.asarray(v) for k, v in batch.items()}


@contextlib.contextmanager
def argmax_samples() -> Iterator[None]:
    """Replaces every categorical sample by the arg-max of its logits."""
    original = jax.random.categorical

    def argmax(key, logits, axis=-1):
        return jnp.argmax(logits, axis)

    jax.random.categorical = argmax
    try:
        yield
    finally:
        jax.random.categorical = original


Row = tuple[str, float, str, float]  # group, worst error, where, tolerance


class Table:
    """Collects relative errors, keeps the worst of each group."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def add(
        self, group: str, where: str, error: float, tolerance: float
    ) -> None:
        error = float(error) if np.isfinite(error) else float("inf")
        row = self.rows.get(group)
        if row is None or error > row[1]:
            self.rows[group] = (group, error, where, tolerance)

    def compare(
        self,
        group: str,
        where: str,
        ours: np.ndarray,
        theirs: np.ndarray,
        tolerance: float = TOLERANCE,
    ) -> None:
        """Adds |ours - theirs| / |theirs|, Euclidean norms of all entries."""
        ours = np.asarray(ours, np.float64)
        theirs = np.asarray(theirs, np.float64)
        if ours.shape != theirs.shape:
            raise FixtureError(
                f"{where} has shape {theirs.shape}, ours {ours.shape}"
            )
        scale = np.linalg.norm(theirs)
        error = np.linalg.norm(ours - theirs)
        self.add(group, where, error / scale if scale else error, tolerance)

    @property
    def passed(self) -> bool:
        return all(error <= limit for _, error, _, limit in self.rows.values())

    def __str__(self) -> str:
        lines = [f"{'quantities':18} {'worst':>9} {'allowed':>9}  where"]
        for group, error, where, limit in self.rows.values():
            verdict = "" if error <= limit else "  EXCEEDED"
            lines.append(
                f"{group:18} {error:9.1e} {limit:9.1e}  {where}{verdict}"
            )
        return "\n".join(lines)


def check_metrics(
    table: Table, name: str, fixture: Fixture, metrics: dict
) -> None:
    """Every metric that the fixture has under `expect/<name>`.

    It must have all losses; our own statistics may be more than its.
    """
    expected = fixture.under(f"expect/{name}")
    losses = {k for k in metrics if k.startswith("loss/")}
    if missing := losses - expected.keys():
        raise FixtureError(f"expect/{name} lacks {sorted(missing)[0]}")
    for key, theirs in expected.items():
        if key not in metrics:
            raise FixtureError(f"we have no metric named {key!r}")
        kind = "losses" if key.startswith(("loss/", "opt/loss")) else ""
        group = f"{name} {kind or 'statistics'}"
        table.compare(group, key, metrics[key], theirs)


def check_gradients(
    table: Table,
    fixture: Fixture,
    grads: dict,
    latents: dict[str, jax.Array],
    metrics: dict[str, jax.Array],
) -> None:
    """Loss, statistics, gradients and latents of the first update."""
    total = fixture.array("expect/loss_total")
    table.compare("loss total", "loss_total", metrics["opt/loss"], total)
    check_metrics(table, "metric0", fixture, metrics)
    expected = fixture.under("expect/grad")
    if len(expected) < (count := len(jax.tree.leaves(grads))):
        raise FixtureError(
            f"fixture has gradients of {len(expected)} tensors, ours {count}"
        )
    for name, theirs in expected.items():
        ours = get(grads, our_path(name))
        table.compare("gradients", name, ours, theirs)
    check_latents(
        table, "posterior", fixture, latents["deter"], latents["stoch"]
    )


def check_latents(
    table: Table,
    name: str,
    fixture: Fixture,
    deter: jax.Array,
    stoch: jax.Array,
) -> None:
    """States with class indices against `expect/<name>`, which is one-hot."""
    group = name.rstrip("0123456789")
    theirs = fixture.array(f"expect/{name}/stoch")
    classes = np.arange(theirs.shape[-1] if theirs.ndim else 0)
    onehot = np.asarray(stoch)[..., None] == classes
    table.compare(f"{group} stoch", name, onehot, theirs)
    theirs = fixture.array(f"expect/{name}/deter")
    table.compare(f"{group} deter", name, deter, theirs)


def check_updates(table: Table, agent: Agent, fixture: Fixture) -> None:
    """Consecutive updates, and how far they moved the parameters."""
    state = make_state(agent, fixture)
    for index in range(fixture.config["N"]):
        batch = make_batch(fixture, index)
        state, latents, metrics = agent.update(state, batch, jax.random.key(0))
        if index == 0:
            grads = state.opt_state[0]  # of keep_gradients
            check_gradients(table, fixture, grads, latents, metrics)
        check_metrics(table, f"train{index}", fixture, metrics)
    check_change(table, fixture, state)


def check_change(table: Table, fixture: Fixture, state: TrainState) -> None:
    """What all updates together added to parameters and other state."""
    before = fixture.under("params")
    ours = {
        "retnorm/lo/value": state.return_range.low,
        "retnorm/hi/value": state.return_range.high,
        "slowval_count/value": state.updates,
    }
    expected = fixture.under("expect/params_after")
    if odd := before.keys() ^ expected.keys():
        name = sorted(odd)[0]
        raise FixtureError(f"{name} is not in both params and params_after")
    for name, theirs in expected.items():
        if name.startswith("slowval/"):
            after = get(state.slow_critic, our_path(name)[1:])
        elif name in ours:
            after = ours[name]
        else:
            after = get(state.params, our_path(name))
        if theirs.shape != before[name].shape:
            raise FixtureError(f"{name} changes its shape")
        table.compare(
            "parameters' change",
            name,
            np.asarray(after, np.float64) - before[name],
            np.asarray(theirs, np.float64) - before[name],
            TOLERANCE_CHANGE,
        )


def check_policy(table: Table, agent: Agent, fixture: Fixture) -> None:
    """Consecutive acting steps of the starting parameters."""
    state = make_state(agent, fixture)
    carry = agent.initial_carry(len(fixture.array("policy0/is_first")))
    for index in range(fixture.acting_steps):
        obs = {
            k: jnp.asarray(v)
            for k, v in fixture.under(f"policy{index}").items()
        }
        carry, action = agent.policy(
            state.params, carry, obs, jax.random.key(0), jnp.int32(index)
        )
        name = f"policy{index}"
        theirs = fixture.array(f"expect/{name}/action")
        table.compare("policy action", name, action, theirs)
        check_latents(table, name, fixture, carry.deter, carry.stoch)


def check_init(table: Table, agent: Agent, fixture: Fixture) -> None:
    """Standard deviation of every fresh tensor, averaged over seeds.

    The fixture's figure comes from one draw, so the error is counted in
    units of what one draw of that many numbers can be off by.
    """
    draws = [agent.init(seed).params for seed in range(4)]
    for name, theirs in fixture.init_std.items():
        ours = [np.asarray(get(draw, our_path(name))) for draw in draws]
        std = np.sqrt(np.mean([np.var(x) for x in ours]))
        if not theirs or not std:
            error = abs(theirs - std)
        else:
            spread = 3 / np.sqrt(2 * ours[0].size)
            error = max(0.0, abs(std / theirs - 1) - spread)
        table.add("initialisation", name, error, TOLERANCE_INIT)


def run(fixture: Fixture) -> Table:
    """All comparisons; categorical samples are arg-max throughout."""
    table = Table()
    with argmax_samples():
        agent = make_agent(fixture)
        check_updates(table, agent, fixture)
        check_policy(table, agent, fixture)
    check_init(table, agent, fixture)
    return table


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    jax.config.update("jax_default_matmul_precision", "highest")
    try:
        if len(argv) != 1:
            raise FixtureError("expected one file, as tests/data/tiny.npz")
        table = run(Fixture.load(Path(argv[0])))
    except (FixtureError, MemoryError) as error:
        line = " ".join(str(error).split()) or "out of memory"
        print(f"parity: {one_line(line)}", file=sys.stderr)
        return 2
    print(table)
    print("parity holds" if table.passed else "parity FAILED")
    return 0 if table.passed else 1


if __name__ == "__main__":
    sys.exit(main())
