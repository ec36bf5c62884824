"""Parity with the authors' code, and that the check for it can fail.

Every mutation below is a mistake that trains: the program runs and learns,
only worse.  `scripts/parity.py` must notice each.  So that one compilation
serves all of them, the wrong numbers are arguments of the compiled update.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dreamer.agent.agent as agent_module
import dreamer.agent.networks as networks
import dreamer.agent.world_model as world_model
from dreamer.agent import convolve
from dreamer.agent.agent import Agent
from dreamer.agent.distributions import Categorical
from dreamer.agent.networks import Init, RMSNorm
from dreamer.agent.optim import make_optimizer
from dreamer.agent.returns import ReturnRange
from scripts import parity
from tests.agent.tiny import changed

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "tests" / "data" / "tiny.npz"
# These compile many variants of a large function and run each only once.
QUICK = {"xla_backend_optimization_level": 0}

# Numbers of the configuration, and a wrong value for each.
NUMBERS = {
    "imag_loss.lam": 0.9,
    "repl_loss.lam": 1.0,
    "imag_loss.actent": 3e-3,
    "imag_loss.slowreg": 0.5,
    "repl_loss.slowreg": 0.5,
    "horizon": 100.0,
    "dyn.rssm.free_nats": 0.0,
    "loss_scales.dyn": 0.5,
    "loss_scales.rep": 1.0,
    "loss_scales.repval": 1.0,
    "retnorm.perchi": 99.0,
    "retnorm.limit": 1e-3,
    "slowvalue.rate": 0.01,
    "opt.lr": 1e-4,
    "opt.agc": 1.0,
    "opt.beta1": 0.8,
    "opt.beta2": 0.99,
    "opt.eps": 1e-6,
}
# Mistakes in the code, 0 for right and 1 for wrong.
SWITCHES = [
    "norm_eps",
    "no_unimix",
    "no_update_bias",
    "decoder_order",
    "swapped_kl",
    "is_last_ignored",
    "is_terminal_ignored",
    "range_debiased",
    "first_update_not_at_rate_zero",
]


def value_at(config, path):
    for part in path.split("."):
        config = getattr(config, part)
    return config


def wrong_params(params, knobs, rssm, grid):
    """Parameters with which the right code computes what wrong code would.

    As it happens inside the loss, the gradients are those of wrong code too.
    """
    params = jax.tree.map(lambda x: x, params)  # fresh dicts
    gates = params["world"]["rssm"]["gates"]
    bias = gates["bias"].reshape(rssm.blocks, 3, -1)
    bias = bias.at[:, 2].add(knobs["no_update_bias"])
    gates["bias"] = bias.reshape(-1)
    layer = params["world"]["decoder"]["deter_in"]
    # (block, channel, height, width) for (block, height, width, channel)
    units = layer["kernel"].shape[-1]
    order = np.arange(units).reshape(-1, *grid).transpose(1, 2, 0).ravel()
    right = layer["kernel"]
    wrong = right[..., order]
    layer["kernel"] = right + knobs["decoder_order"] * (wrong - right)
    return params


def install(patch, agent, knobs):
    """Patches every number and every switch into code and agent."""

    def mix(name, right, wrong):
        return right + knobs[name] * (wrong - right)

    config = changed(agent.config, {path: knobs[path] for path in NUMBERS})
    patch.setattr(agent, "config", config)
    schedule = optax.linear_schedule
    early = knobs["first_update_not_at_rate_zero"]
    patch.setattr(
        optax,
        "linear_schedule",
        lambda *args: lambda count: schedule(*args)(count + early),
    )
    optimizer = make_optimizer(config.opt)
    patch.setattr(
        agent, "optimizer", optax.chain(parity.keep_gradients(), optimizer)
    )
    make_networks = agent.networks
    grid = [n // 16 for n in agent.obs_spaces["image"].shape[:2]]
    patch.setattr(
        agent,
        "networks",
        lambda params: make_networks(
            wrong_params(params, knobs, config.dyn.rssm, grid)
        ),
    )
    eps = networks.NORM_EPS
    patch.setattr(networks, "NORM_EPS", mix("norm_eps", eps, 1e-3))
    of = Categorical.of

    def categorical(logits, unimix=0.0):
        right, wrong = of(logits, unimix).log_probs, of(logits).log_probs
        return Categorical(mix("no_unimix", right, wrong))

    patch.setattr(Categorical, "of", categorical)
    kl = world_model.group_kl
    patch.setattr(
        world_model,
        "group_kl",
        lambda p, q: mix("swapped_kl", kl(p, q), kl(q, p)),
    )
    replay_loss = agent_module.replay_value_loss

    def careless(critic, slow_critic, config, feat, obs, bootstrap):
        ends = {
            key: mix(f"{key}_ignored", obs[key].astype(jnp.float32), 0.0)
            for key in ("is_last", "is_terminal")
        }
        rest = (feat, obs | ends, bootstrap)
        return replay_loss(critic, slow_critic, config, *rest)

    patch.setattr(agent_module, "replay_value_loss", careless)
    move = ReturnRange.update

    def update(self, returns, rate, *percentiles):
        rate = mix("range_debiased", rate, 1.0)  # of the first update
        return move(self, returns, rate, *percentiles)

    patch.setattr(ReturnRange, "update", update)


def mutable_update(agent):
    """The agent's update with the numbers of `install` as an argument."""
    plain = agent.update.__wrapped__

    def update(state, batch, key, knobs):
        with pytest.MonkeyPatch.context() as patch:
            install(patch, agent, knobs)
            return plain(state, batch, key)

    return jax.jit(update, compiler_options=QUICK)


@pytest.fixture(scope="module")
def fixture():
    return parity.Fixture.load(TINY)


@pytest.fixture(scope="module")
def check_with(fixture):
    """Function from changed knobs to the table of all updates."""
    agent = parity.make_agent(fixture)
    right = {path: value_at(agent.config, path) for path in NUMBERS}
    right |= dict.fromkeys(SWITCHES, 0.0)
    update = mutable_update(agent)

    def check(**knobs):
        knobs = {k: jnp.float32(v) for k, v in (right | knobs).items()}
        agent.update = functools.partial(update, knobs=knobs)
        table = parity.Table()
        with parity.argmax_samples():
            parity.check_updates(table, agent, fixture)
        return table

    return check


def checked(check, function, fixture):
    """Table of a check that calls this function of the agent."""
    agent = parity.make_agent(fixture)
    plain = getattr(agent, function).__wrapped__
    setattr(agent, function, jax.jit(plain, compiler_options=QUICK))
    table = parity.Table()
    with parity.argmax_samples():
        check(table, agent, fixture)
    return table


def test_updates_pass_unmutated(check_with):
    table = check_with()
    assert table.passed, table


def test_updates_pass_as_accelerators_compute_them(fixture, monkeypatch):
    """Convolutions and block-linear layers are others there than on a CPU."""
    monkeypatch.setattr(convolve, "on_one_cpu", lambda: False)
    table = checked(parity.check_updates, "update", fixture)
    assert table.passed, table


@pytest.mark.parametrize("path", NUMBERS)
def test_a_wrong_number_is_noticed(path, check_with):
    assert not check_with(**{path: NUMBERS[path]}).passed


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_mistake_in_the_code_is_noticed(switch, check_with):
    assert not check_with(**{switch: 1.0}).passed


# Acting and initialisation


def check_acting(fixture):
    return checked(parity.check_policy, "policy", fixture)


def test_acting_passes_unmutated(fixture):
    table = check_acting(fixture)
    assert table.passed, table


def test_acting_without_norms_is_noticed(fixture, monkeypatch):
    monkeypatch.setattr(RMSNorm, "__call__", lambda self, x: x)
    assert not check_acting(fixture).passed


def test_acting_without_resets_is_noticed(fixture, monkeypatch):
    plain = Agent._policy

    def forgetful(self, params, carry, obs, key, step, greedy=False):
        obs = obs | {"is_first": jnp.zeros_like(obs["is_first"])}
        return plain(self, params, carry, obs, key, step, greedy)

    monkeypatch.setattr(Agent, "_policy", forgetful)
    assert not check_acting(fixture).passed


def check_initial(fixture):
    table = parity.Table()
    parity.check_init(table, parity.make_agent(fixture), fixture)
    return table


def test_initialisation_passes_unmutated(fixture):
    assert check_initial(fixture).passed


@pytest.mark.parametrize(
    "wrong",
    [
        # Of one block instead of the whole width.
        lambda shape, fan_in, scale: (shape, shape[-2], scale),
        lambda shape, fan_in, scale: (shape, fan_in, 1.0),
        lambda shape, fan_in, scale: (shape, (fan_in + shape[-1]) / 2, scale),
    ],
    ids=["block_fan_in", "outscale_ignored", "fan_average"],
)
def test_a_wrong_initialiser_is_noticed(wrong, fixture, monkeypatch):
    right = Init.kernel

    def kernel(self, shape, fan_in, outscale=1.0):
        return right(self, *wrong(shape, fan_in, outscale))

    monkeypatch.setattr(Init, "kernel", kernel)
    assert not check_initial(fixture).passed


# Other dimensions

OTHER = dict(
    deter=32,
    hidden=8,
    stoch=3,
    classes=5,
    blocks=2,
    depth=2,
    units=12,
    bins=16,
    size=[96, 96, 1],
    acts=4,
    B=2,
    T=3,
    N=2,
    imag=3,
    warmup=1,
)


def own_inputs(names):
    """A fixture of other dimensions that holds no results yet."""
    rng = np.random.default_rng(0)
    arrays = {}
    lead = (OTHER["B"], 1 + OTHER["T"])
    for index in range(OTHER["N"]):
        fields = {
            "image": rng.integers(0, 256, (*lead, *OTHER["size"]), np.uint8),
            "reward": rng.normal(size=lead).astype(np.float32),
            "action": rng.integers(0, OTHER["acts"], lead, np.int32),
            "dyn/deter": rng.normal(size=(*lead, 32)).astype(np.float32),
            "dyn/stoch": np.eye(5)[rng.integers(0, 5, (*lead, 3))],
        }
        for key in ("is_first", "is_last", "is_terminal"):
            fields[key] = np.zeros(lead, bool)
        arrays |= {f"batch{index}/{k}": v for k, v in fields.items()}
    image = rng.integers(0, 256, (2, *OTHER["size"]), np.uint8)
    arrays |= {"policy0/image": image, "policy0/is_first": np.ones(2, bool)}
    agent = parity.make_agent(parity.Fixture({}, OTHER, {}))
    params = agent.init(0).params
    for name in names:
        if name.startswith(("retnorm/", "slowval_count/")):
            arrays[f"params/{name}"] = np.float32(0)
        else:
            value = np.asarray(parity.get(params, parity.our_path(name)))
            arrays[f"params/{name}"] = value
    return agent, parity.Fixture(arrays, OTHER, {})


def own_results(agent, fixture):
    """What our own agent makes of the inputs, under the authors' names."""
    state = parity.make_state(agent, fixture)
    found = {}
    for index in range(OTHER["N"]):
        batch = parity.make_batch(fixture, index)
        state, latents, metrics = agent.update(state, batch, jax.random.key(0))
        found |= {f"train{index}/{k}": v for k, v in metrics.items()}
        if index == 0:
            found |= {f"metric0/{k}": v for k, v in metrics.items()}
            found["loss_total"] = metrics["opt/loss"]
            found["posterior/deter"] = latents["deter"]
            found["posterior/stoch"] = np.eye(5)[latents["stoch"]]
            grads = jax.device_get(state.opt_state[0])
    ends = {"lo": state.return_range.low, "hi": state.return_range.high}
    for name in fixture.under("params"):
        if name.startswith("retnorm/"):
            after = ends[name.split("/")[1]]
        elif name.startswith("slowval_count/"):
            after = state.updates
        elif name.startswith("slowval/"):
            path = parity.our_path(name)[1:]
            after = parity.get(state.slow_critic, path)
        else:
            after = parity.get(state.params, parity.our_path(name))
            grad = parity.get(grads, parity.our_path(name))
            found[f"grad/{name}"] = grad
        found[f"params_after/{name}"] = after
    carry, action = agent.policy(
        parity.make_state(agent, fixture).params,
        agent.initial_carry(2),
        {k: jnp.asarray(v) for k, v in fixture.under("policy0").items()},
        jax.random.key(0),
        jnp.int32(0),
    )
    found["policy0/action"] = action
    found["policy0/deter"] = carry.deter
    found["policy0/stoch"] = np.eye(5)[carry.stoch]
    return {f"expect/{k}": np.array(v) for k, v in found.items()}


def test_fixtures_of_other_dimensions_are_read(fixture):
    """96x96 gray, four actions, two blocks, an even number of bins."""
    agent, own = own_inputs(fixture.under("params"))
    for name in ("update", "policy"):
        plain = getattr(agent, name).__wrapped__
        setattr(agent, name, jax.jit(plain, compiler_options=QUICK))
    with parity.argmax_samples():
        own.arrays.update(own_results(agent, own))
        table = parity.Table()
        parity.check_updates(table, agent, own)
        parity.check_policy(table, agent, own)
        assert table.passed, table
        # And it is these numbers that are compared.
        own.arrays["expect/grad/dyn/dyngru/kernel"][0, 0, 0] += 1.0
        parity.check_updates(table, agent, own)
    assert not table.passed


# The command


def run_script(path):
    flag = "--xla_backend_optimization_level=0"
    return subprocess.run(
        [sys.executable, "scripts/parity.py", str(path)],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_agent_computes_what_the_authors_code_does():
    result = run_script(TINY)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["quantities", "worst", "allowed"]
    assert lines[-1] == "parity holds"
    groups = {line[:18].strip() for line in lines[1:-1]}
    assert groups >= {
        "metric0 losses",
        "metric0 statistics",
        "train3 losses",
        "gradients",
        "posterior deter",
        "posterior stoch",
        "parameters' change",
        "policy action",
        "initialisation",
    }


def test_differences_give_exit_code_1(monkeypatch, capsys):
    table = parity.Table()
    table.compare("gradients", "here", np.ones(3), 1.01 * np.ones(3))
    monkeypatch.setattr(parity, "run", lambda fixture: table)
    assert parity.main([str(TINY)]) == 1
    out = capsys.readouterr().out
    assert "EXCEEDED" in out
    assert "parity FAILED" in out


@pytest.mark.parametrize("ours", [np.nan, np.inf])
def test_numbers_that_are_not_finite_never_pass(ours):
    table = parity.Table()
    table.compare("gradients", "", np.array([ours]), np.ones(1))
    assert not table.passed


def broken_files(directory):
    """Unusable fixtures by what is wrong with them."""
    whole = TINY.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    contents = {
        "truncated": whole[: len(whole) // 2],
        "damaged": bytes(damaged),
        "empty": b"",
        "text": b"no archive\n",
    }
    for name, content in contents.items():
        path = directory / f"{name}.npz"
        path.write_bytes(content)
        yield name, path
    np.save(directory / "array.npy", np.zeros(3))
    yield "array", directory / "array.npy"
    np.savez(directory / "meta.npz", x=np.zeros(3))
    yield "without_meta", directory / "meta.npz"
    np.savez(directory / "odd.npz", meta=np.array("[1]"))
    yield "odd_meta", directory / "odd.npz"
    yield "missing", directory / "nowhere.npz"
    yield "directory", directory


def test_unusable_files_give_exit_code_2_and_one_line(tmp_path, capsys):
    for name, path in broken_files(tmp_path):
        assert parity.main([str(path)]) == 2, name
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("parity: "), name
        assert captured.err.count("\n") == 1, name
        assert str(path) in captured.err


@pytest.fixture(scope="module")
def stand_ins(fixture):
    """Zeros in the shape of what update and policy return."""
    agent = parity.make_agent(fixture)
    state, key = parity.make_state(agent, fixture), jax.random.key(0)
    batch, obs = parity.make_batch(fixture, 0), fixture.under("policy0")
    carry, step = agent.initial_carry(2), jnp.int32(0)
    shapes = (
        jax.eval_shape(agent.update, state, batch, key),
        jax.eval_shape(agent.policy, state.params, carry, obs, key, step),
    )
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


@pytest.mark.parametrize(
    "missing",
    [
        "batch0/dyn/deter",
        "batch0",
        "params/retnorm/lo/value",
        "params/dyn/dyngru/kernel",
        "policy",
        "expect/grad",
        "expect/grad/dyn/dyngru/kernel",
        "expect/metric0",
        "expect/metric0/loss/dyn",
        "expect/params_after",
        "expect/posterior/stoch",
        "expect/policy2/action",
        "expect/loss_total",
    ],
)
def test_fixtures_that_lack_something_are_refused(missing, fixture, stand_ins):
    """None passes because there is nothing to compare."""
    kept = {
        k: v for k, v in fixture.arrays.items() if not k.startswith(missing)
    }
    assert len(kept) < len(fixture.arrays)
    cut = parity.Fixture(kept, fixture.config, fixture.init_std)
    agent = parity.make_agent(fixture)
    update, policy = stand_ins
    agent.update = lambda *args: update
    agent.policy = lambda *args: policy

    def check():
        table = parity.Table()
        parity.check_updates(table, agent, cut)
        parity.check_policy(table, agent, cut)

    with pytest.raises(parity.FixtureError):
        check()
