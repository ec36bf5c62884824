"""Actor and critic: learned in imagination, the critic on replay too.

Paper: arXiv 2301.04104v2, "Critic learning" and "Actor learning", equations
6 to 8.  The actor's gradient is REINFORCE for discrete and continuous
actions alike; nothing in imagination sends gradients to the world model.
Next: agent.py puts all losses into one update.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from dreamer.agent.distributions import Categorical, Normal, TwoHot
from dreamer.agent.networks import DType, Head, Init, Linear
from dreamer.agent.returns import ReturnRange, lambda_return
from dreamer.agent.rssm import State
from dreamer.agent.types import Batch, Metrics
from dreamer.agent.world_model import WorldModel, action_vector, action_width
from dreamer.hyperparameters import AgentConfig, PolicyConfig, ValueConfig
from dreamer.spaces import Space

f32 = jnp.float32
sg = jax.lax.stop_gradient

ACTOR_OUTSCALE = 0.01  # nearly uniform at the start (paper: methods)


class Actor(nnx.Module):
    """feat (..., F) -> distribution of actions.

    Mean and standard deviation of continuous actions have a layer each, as
    the optimiser clips by tensor: a large gradient of one leaves the other.
    """

    def __init__(
        self,
        inputs: int,
        space: Space,
        config: PolicyConfig,
        *,
        dtype: DType,
        init: Init,
    ):
        self.space, self.config = space, config
        width = action_width(space)
        kwargs = dict(dtype=dtype, init=init, outscale=ACTOR_OUTSCALE)
        self.head = Head(inputs, width, config, **kwargs)
        if space.kind == "continuous":
            self.std = Linear(config.units, width, **kwargs)

    def __call__(self, feat: jax.Array) -> Categorical | Normal:
        hidden = self.head.mlp(feat)
        out = self.head.out(hidden).astype(f32)
        if self.space.kind == "discrete":
            return Categorical.of(out, self.config.unimix)
        low, high = self.config.minstd, self.config.maxstd
        std = jax.nn.sigmoid(self.std(hidden).astype(f32) + 2.0)
        return Normal(jnp.tanh(out), (high - low) * std + low, low, high)


class Critic(nnx.Module):
    """feat (..., F) -> distribution of returns."""

    def __init__(
        self, inputs: int, config: ValueConfig, *, dtype: DType, init: Init
    ):
        self.head = Head(
            inputs, config.bins, config, dtype=dtype, init=init, outscale=0.0
        )

    def __call__(self, feat: jax.Array) -> TwoHot:
        return TwoHot(self.head(feat))


def imagined_rollout(
    world: WorldModel,
    actor: Actor,
    start: State,
    horizon: int,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Rolls actor and prior forward from every start state.

    Args:
      world, actor: modules with parameters behind a stop-gradient.
      start: states (N, ...), also behind one.
      horizon: H.
      key: one PRNG key.

    Returns:
      feat of states 0..H (N, H+1, F) and actions at 0..H-1 (N, H, ...).
    """

    def policy(feat, key):
        action = actor(feat).sample(key)
        return action, action_vector(action, actor.space)

    states, actions = world.rssm.imagine(start, policy, horizon, key)
    feat = states.feat.swapaxes(0, 1)  # (N, H+1, F)
    return feat, actions.swapaxes(0, 1)


def critic_loss(
    dist: TwoHot, target: jax.Array, slow_value: jax.Array, slowreg: float
) -> jax.Array:
    """Cross-entropy with the return and with the slow critic's mean."""
    return dist.loss(sg(target)) + slowreg * dist.loss(sg(slow_value))


def imagination_loss(
    frozen_world: WorldModel,
    actor: Actor,
    critic: Critic,
    slow_critic: Critic,
    config: AgentConfig,
    feat: jax.Array,
    actions: jax.Array,
    return_range: ReturnRange,
) -> tuple[Metrics, Metrics, jax.Array, ReturnRange]:
    """Losses of actor and critic on imagined states.

    Args:
      frozen_world: world model behind a stop-gradient, for its heads.
      actor, critic: modules to differentiate.
      slow_critic: moving average of the critic, a constant here.
      config: lambda, entropy scale, slow critic's weight.
      feat: states 0..H behind a stop-gradient, (N, H+1, F).
      actions: actions at states 0..H-1, (N, H, ...).
      return_range: range before this update.

    Returns:
      Unscaled losses `policy` and `value`, statistics, R_0 as (N,), and the
      new return range.
    """
    c = config.imag_loss
    reward = frozen_world.reward(feat).mean()  # (N, H+1) from here on
    continue_prob = frozen_world.continue_prob(feat).prob
    critic_dist = critic(feat)
    value = sg(critic_dist.mean())
    slow_value = slow_critic(feat).mean()
    weight = jnp.cumprod(continue_prob, 1)
    returns = lambda_return(reward, continue_prob, value, value, c.lam)
    r = config.retnorm  # (N, H) above
    return_range = return_range.update(returns, r.rate, r.perclo, r.perchi)
    scale = return_range.scale(r.limit)
    advantage = sg((returns - value[:, :-1]) / scale)

    dist = actor(feat[:, :-1])
    entropy = dist.entropy()
    objective = dist.log_prob(actions) * advantage + c.actent * entropy
    policy_loss = -weight[:, :-1] * objective
    current = TwoHot(critic_dist.logits[:, :-1])
    value_loss = critic_loss(current, returns, slow_value[:, :-1], c.slowreg)
    value_loss = weight[:, :-1] * value_loss
    losses = {"policy": policy_loss.mean(), "value": value_loss.mean()}

    normed = (returns - return_range.low) / scale
    metrics = {
        "adv": advantage.mean(),
        "adv_std": advantage.std(),
        "adv_mag": jnp.abs(advantage).mean(),
        "rew": reward.mean(),
        "con": continue_prob.mean(),
        "val": value.mean(),
        "slowval": slow_value.mean(),
        "weight": weight.mean(),
        "tar": returns.mean(),
        "ret": normed.mean(),
        "ret_min": normed.min(),
        "ret_max": normed.max(),
        "ret_rate": (jnp.abs(normed) >= 1.0).mean(),
        "ent/action": entropy.mean(),
        "rand/action": relative_entropy(entropy.mean(), *dist.entropy_range()),
    }
    return losses, metrics, returns[:, 0], return_range


def relative_entropy(
    entropy: jax.Array, lowest: float, highest: float
) -> jax.Array:
    """Entropy () between the lowest, 0, and the highest there can be, 1.

    0 where all actions have the same, as if there is one action only.
    """
    if highest <= lowest:
        return jnp.zeros((), f32)
    return (entropy - lowest) / (highest - lowest)


def replay_value_loss(
    critic: Critic,
    slow_critic: Critic,
    config: AgentConfig,
    feat: jax.Array,
    obs: Batch,
    bootstrap: jax.Array,
) -> jax.Array:
    """Critic on replayed states, `repval`, with gradients into `feat`.

    Args:
      critic: module to differentiate.
      slow_critic: moving average of it, a constant here.
      config: lambda, horizon, slow critic's weight.
      feat: posterior states with gradients, (B, T, F).
      obs: fields with `reward`, `is_last`, `is_terminal`, (B, T) each.
      bootstrap: R_0 of the imagined returns from the same states, (B, T).

    Returns:
      () float32, the mean over B and T-1 steps, masked where `is_last`.
    """
    c = config.repl_loss
    alive = 1 - obs["is_terminal"].astype(f32)
    keep = 1 - obs["is_last"].astype(f32)
    returns = lambda_return(
        obs["reward"],
        alive * (1 - 1 / config.horizon),
        bootstrap,
        bootstrap,
        keep * c.lam,
    )
    slow_value = slow_critic(sg(feat)).mean()
    dist = TwoHot(critic(feat).logits[:, :-1])
    loss = critic_loss(dist, returns, slow_value[:, :-1], c.slowreg)
    return (keep[:, :-1] * loss).mean()
