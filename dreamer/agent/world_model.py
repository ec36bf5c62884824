"""World model: encoder, RSSM, decoder, reward and continue heads, its loss.

Paper: arXiv 2301.04104v2, "World model learning", equations 3 to 5.  Loss
names are the paper's and those of the authors' code: `dyn` and `rep` are the
two directions of KL balancing.  Next: actor_critic.py learns from what this
model imagines.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx

from dreamer.agent.decoder import Decoder
from dreamer.agent.distributions import Bernoulli, Categorical, TwoHot
from dreamer.agent.encoder import Encoder
from dreamer.agent.networks import DType, Head, Init
from dreamer.agent.rssm import RSSM, State
from dreamer.agent.types import Batch, Metrics
from dreamer.hyperparameters import AgentConfig, LossScales
from dreamer.spaces import Space

f32 = jnp.float32
sg = jax.lax.stop_gradient
# All but the reconstructions, which are called by their observations' keys.
OTHER_LOSSES = {x.name for x in dataclasses.fields(LossScales)} - {"rec"}


def action_width(space: Space) -> int:
    """Length of the vector that the RSSM sees an action as."""
    return space.classes or math.prod(space.shape)


def action_vector(action: jax.Array, space: Space) -> jax.Array:
    """Discrete (...) int -> one-hot (..., A); continuous (..., A) as is."""
    if space.kind == "discrete":
        return jax.nn.one_hot(action, space.classes)
    return action


class WorldModel(nnx.Module):
    """Everything that learns from replayed observations and rewards."""

    def __init__(
        self,
        obs_spaces: dict[str, Space],
        action_space: Space,
        config: AgentConfig,
        *,
        dtype: DType,
        init: Init,
    ):
        kw = dict(dtype=dtype, init=init)
        rssm = config.dyn.rssm
        feat = rssm.deter + rssm.stoch * rssm.classes
        self.encoder = Encoder(obs_spaces, config.enc.simple, **kw)
        self.rssm = RSSM(
            rssm, action_width(action_space), self.encoder.width, **kw
        )
        self.decoder = Decoder(obs_spaces, config.dec.simple, rssm, **kw)
        rew, con = config.rewhead, config.conhead
        self.reward_head = Head(feat, rew.bins, rew, outscale=0.0, **kw)
        self.continue_head = Head(feat, 1, con, **kw)

    def reward(self, feat: jax.Array) -> TwoHot:
        """Of arriving in this state; feat (..., F)."""
        return TwoHot(self.reward_head(feat))

    def continue_prob(self, feat: jax.Array) -> Bernoulli:
        """That the episode goes on, discount included; feat (..., F)."""
        return Bernoulli(self.continue_head(feat)[..., 0])


def world_model_loss(
    model: WorldModel,
    config: AgentConfig,
    obs: Batch,
    states: State,
    posterior: Categorical,
) -> tuple[Metrics, Metrics]:
    """Reconstruction, reward, continue and the two KL terms.

    Args:
      model: modules whose parameters are differentiated.
      config: settings with free nats and the discount horizon.
      obs: observations, `reward` and `is_terminal`, (B, T, ...).
      states: posterior states (B, T, ...) with gradients into the model.
      posterior: distributions (B, T, S, C) they were sampled from.

    Returns:
      Unscaled losses, () float32 each: one per observation key, see
      `rec_name`, and `rew`, `con`, `dyn`, `rep`; and statistics.
    """
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), states)
    flat_obs = {k: x.reshape(-1, *x.shape[2:]) for k, x in obs.items()}
    rec = model.decoder.loss(flat.deter, flat.flat_stoch, flat_obs)
    losses = {rec_name(key): loss for key, loss in rec.items()}
    feat = states.feat  # (B, T, F)
    losses["rew"] = model.reward(feat).loss(obs["reward"])
    alive = 1 - obs["is_terminal"].astype(f32)
    target = alive * (1 - 1 / config.horizon)
    losses["con"] = model.continue_prob(feat).loss(target)

    prior = model.rssm.prior(states.deter)
    free = config.dyn.rssm.free_nats
    losses["dyn"] = jnp.maximum(free, group_kl(sg_dist(posterior), prior))
    losses["rep"] = jnp.maximum(free, group_kl(posterior, sg_dist(prior)))
    metrics = {
        "dyn_ent": prior.entropy().sum(-1).mean(),
        "rep_ent": posterior.entropy().sum(-1).mean(),
    }
    return {k: loss.mean() for k, loss in losses.items()}, metrics


def rec_name(key: str) -> str:
    """What an observation's reconstruction is called among the losses.

    As in the authors' logs, by its key, unless another loss is called so.
    """
    return f"rec/{key}" if key in OTHER_LOSSES else key


def group_kl(left: Categorical, right: Categorical) -> jax.Array:
    """KL(left || right) summed over the S groups: (B, T)."""
    return left.kl(right).sum(-1)


def sg_dist(dist: Categorical) -> Categorical:
    """The same distribution behind a stop-gradient."""
    return Categorical(sg(dist.log_probs))
