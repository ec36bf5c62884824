"""Compares the agent with numbers of the authors' public code.

    python scripts/parity.py tests/data/tiny.npz

A fixture holds parameters, batches and acting inputs, and what the authors'
code makes of them in float32 with every categorical sample replaced by the
arg-max of its logits.  This script loads the parameters into the product's
own `Agent`, runs the functions that training uses, and prints one row per
group of quantities: its worst relative error and where, beside the
tolerance.  Exit code 1 when any is exceeded, 2 when the fixture is unusable.
"""

import contextlib
import dataclasses
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dreamer.agent.agent import Agent, TrainState  # noqa: E402
from dreamer.agent.returns import ReturnRange  # noqa: E402
from dreamer.checks import check  # noqa: E402
from dreamer.config import Config  # noqa: E402
from dreamer.options import apply, one_line  # noqa: E402
from dreamer.spaces import Space  # noqa: E402

# Two builds of the authors' code agree to 1e-4 (8e-4 for the parameters'
# change), so these leave room for the order of float32 sums and no more.
TOLERANCE = 1e-3
TOLERANCE_CHANGE = 1e-2
TOLERANCE_INIT = 0.15  # of a standard deviation estimated from few numbers

# The authors' name of a tensor -> ours.  Digits after # are converted.
NAMES = [
    (r"enc/cnn(\d)/", r"world/encoder/stages/\1/conv/"),
    (r"enc/cnn(\d)norm/", r"world/encoder/stages/\1/norm/"),
    (r"dyn/dynin0/", "world/rssm/deter_in/linear/"),
    (r"dyn/dynin0norm/", "world/rssm/deter_in/norm/"),
    (r"dyn/dynin1/", "world/rssm/stoch_in/linear/"),
    (r"dyn/dynin1norm/", "world/rssm/stoch_in/norm/"),
    (r"dyn/dynin2/", "world/rssm/action_in/linear/"),
    (r"dyn/dynin2norm/", "world/rssm/action_in/norm/"),
    (r"dyn/dynhid0/", "world/rssm/mix/"),
    (r"dyn/dynhid0norm/", "world/rssm/mix_norm/"),
    (r"dyn/dyngru/", "world/rssm/gates/"),
    (r"dyn/obs0/", "world/rssm/posterior_in/"),
    (r"dyn/obs0norm/", "world/rssm/posterior_norm/"),
    (r"dyn/obslogit/", "world/rssm/posterior_out/"),
    (r"dyn/prior(\d)/", r"world/rssm/prior_mlp/layers/\1/linear/"),
    (r"dyn/prior(\d)norm/", r"world/rssm/prior_mlp/layers/\1/norm/"),
    (r"dyn/priorlogit/", "world/rssm/prior_out/"),
    (r"dec/sp0/", "world/decoder/deter_in/"),
    (r"dec/sp1/", "world/decoder/stoch_in/linear/"),
    (r"dec/sp1norm/", "world/decoder/stoch_in/norm/"),
    (r"dec/sp2/", "world/decoder/stoch_out/"),
    (r"dec/spnorm/", "world/decoder/norm/"),
    (r"dec/conv2/", "world/decoder/stages/0/conv/"),
    (r"dec/conv1/", "world/decoder/stages/1/conv/"),
    (r"dec/conv0/", "world/decoder/stages/2/conv/"),
    (r"dec/conv2norm/", "world/decoder/stages/0/norm/"),
    (r"dec/conv1norm/", "world/decoder/stages/1/norm/"),
    (r"dec/conv0norm/", "world/decoder/stages/2/norm/"),
    (r"dec/imgout/", "world/decoder/out/"),
    (r"rew/", "world/reward_head/"),
    (r"con/", "world/continue_head/"),
    (r"pol/", "actor/head/"),
    (r"(slow)?val/", "critic/head/"),
]
HEAD_NAMES = [
    (r"mlp/linear(\d)/", r"mlp/layers/\1/linear/"),
    (r"mlp/norm(\d)/", r"mlp/layers/\1/norm/"),
    (r"head/head/(action/)?logits?/", "head/out/"),
    (r"_head/head/logits?/", "_head/out/"),
]


NARROW = {"f": np.float32, "i": np.int32}  # as the agent computes
LARGEST = 2**30  # bytes of a fixture's arrays; a small file can hold more
# A fixture's dimensions -> the settings that they are.
SETTINGS = {
    "deter": ["agent.dyn.rssm.deter"],
    "hidden": ["agent.dyn.rssm.hidden"],
    "stoch": ["agent.dyn.rssm.stoch"],
    "classes": ["agent.dyn.rssm.classes"],
    "blocks": ["agent.dyn.rssm.blocks"],
    "depth": ["agent.enc.simple.depth", "agent.dec.simple.depth"],
    "units": [
        "agent.enc.simple.units",
        "agent.dec.simple.units",
        "agent.rewhead.units",
        "agent.conhead.units",
        "agent.policy.units",
        "agent.value.units",
    ],
    "bins": ["agent.rewhead.bins", "agent.value.bins"],
    "imag": ["agent.imag_length"],
    "warmup": ["agent.opt.warmup"],
    "B": ["batch_size"],
    "T": ["batch_length"],
}


class FixtureError(ValueError):
    """The file is no fixture of the expected form."""


def our_path(name: str) -> tuple[str | int, ...]:
    """Path in our parameters of a tensor named by the authors' code."""
    for pattern, ours in NAMES:
        result, count = re.subn("^" + pattern, ours, name)
        if count:
            break
    else:
        raise FixtureError(f"no parameter of ours is named {name!r}")
    for pattern, ours in HEAD_NAMES:
        result = re.sub(pattern, ours, result)
    return tuple(
        int(part) if part.isdigit() else part for part in result.split("/")
    )


def get(tree: dict, path: tuple[str | int, ...]) -> jax.Array:
    """The array of a nested dict at a path."""
    for part in path:
        tree = tree.get(part) if isinstance(tree, dict) else None
    if tree is None or isinstance(tree, dict):
        name = "/".join(map(str, path))
        raise FixtureError(f"no parameter of ours is {name}")
    return tree


@dataclasses.dataclass(frozen=True)
class Fixture:
    """Arrays by name and the dimensions they were made with."""

    arrays: dict[str, np.ndarray]
    config: dict
    init_std: dict[str, float]

    @classmethod
    def load(cls, path: Path) -> "Fixture":
        """Reads and checks a fixture; nothing in it can run code.

        Raises:
          FixtureError: the file is no fixture, or one without some input.
        """
        try:
            arrays = read_arrays(path)
            meta = json.loads(str(arrays.pop("meta")))
            fixture = cls(arrays, meta["config"], meta["init_std"])
            check_inputs(fixture)
        except Exception as error:  # NumPy, zip and JSON have no end of them
            raise FixtureError(f"cannot read fixture {path}: {error!r}") from (
                error
            )
        return fixture

    @property
    def acting_steps(self) -> int:
        """How many consecutive acting steps there are."""
        return len({k.split("/")[0] for k in self.arrays if k[:6] == "policy"})

    def array(self, name: str) -> np.ndarray:
        """The array of that name."""
        if name not in self.arrays:
            raise FixtureError(f"fixture has no array {name}")
        return self.arrays[name]

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """Arrays whose name starts with prefix/, without it; not none."""
        start = prefix + "/"
        found = {
            k[len(start) :]: v
            for k, v in self.arrays.items()
            if k.startswith(start)
        }
        if not found:
            raise FixtureError(f"fixture has no arrays under {start}")
        return found


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file by name."""
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
        if size > LARGEST:
            raise FixtureError(f"expected at most {LARGEST} bytes of arrays")
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for name, array in arrays.items():
        known = re.match(
            r"(batch\d|policy\d|params|expect)/[\w/]+$|meta$", name
        )
        if not known or not isinstance(array, np.ndarray):
            raise FixtureError(f"{name!r} is no array of a fixture")
        kind = array.dtype.kind
        if name != "meta" and kind not in "biuf":
            raise FixtureError(f"{name} holds {array.dtype}, expected numbers")
        arrays[name] = array.astype(NARROW.get(kind, array.dtype))
    return arrays


def check_inputs(fixture: Fixture) -> None:
    """Sees that dimensions and inputs are there and go together."""
    config, ours = fixture.config, settings(fixture.config)
    rssm, size = ours.agent.dyn.rssm, tuple(config["size"])
    for count in (config["acts"], config["N"], *size[2:]):
        if type(count) is not int or count < 1:
            raise FixtureError(f"{count!r}: expected a whole number >= 1")
    for name, std in fixture.init_std.items():
        if type(std) not in (int, float):
            raise FixtureError(f"init_std of {name} is {std!r}")
    flags = ("is_first", "is_last", "is_terminal")
    batch = {
        **dict.fromkeys(flags, ((), "b")),
        "image": (size, "u1"),
        "reward": ((), "f"),
        "action": ((), "i"),
        "dyn/deter": ((rssm.deter,), "f"),
        "dyn/stoch": ((rssm.stoch, rssm.classes), "f"),
    }
    lead = (ours.batch_size, 1 + ours.batch_length)
    for index in range(config["N"]):
        check_group(fixture, f"batch{index}", lead, batch)
    lead = fixture.array("policy0/is_first").shape[:1]
    acting = {key: batch[key] for key in ("image", "is_first")}
    for index in range(fixture.acting_steps):
        check_group(fixture, f"policy{index}", lead, acting)


def check_group(
    fixture: Fixture,
    group: str,
    lead: tuple[int, ...],
    fields: dict[str, tuple[tuple[int, ...], str]],
) -> None:
    """Sees that a group has these fields: shape without lead, NumPy kind."""
    arrays = fixture.under(group)
    if odd := arrays.keys() ^ fields.keys():
        raise FixtureError(f"{group} needs {sorted(fields)}, not {odd}")
    for name, (shape, kind) in fields.items():
        found = arrays[name]
        if found.shape != lead + shape or kind not in found.dtype.str:
            raise FixtureError(
                f"{group}/{name} is {found.dtype}{list(found.shape)},"
                f" expected {kind}{list(lead + shape)}"
            )


def settings(config: dict) -> Config:
    """Our settings for a fixture's dimensions.

    Raises:
      ConfigError: one is out of its range, or they do not go together.
    """
    values = {
        name: config[key] for key, names in SETTINGS.items() for name in names
    }
    size = {"env.gym.size": config["size"][:2], "run.train_ratio": 0}
    ours = apply(Config(), values | size, "")
    check(ours)
    return ours


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
    config = fixture.config
    agent = Agent(
        {"image": Space("image", tuple(config["size"]))},
        Space("discrete", (), config["acts"]),
        settings(config).agent,
        dtype=jnp.float32,
    )
    agent.optimizer = optax.chain(keep_gradients(), agent.optimizer)
    return agent


def make_state(agent: Agent, fixture: Fixture) -> TrainState:
    """The fixture's starting values, every tensor named exactly once."""
    given = fixture.under("params")
    shapes = jax.eval_shape(lambda: agent.init(0))
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
