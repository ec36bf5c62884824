"""The agent: one jitted update, one jitted policy step, and their state.

Everything a training run needs from JAX goes through `Agent`: `init` makes
the parameters, `update` is one gradient update on a replayed batch, `policy`
one acting step.  Parameters are plain nested dicts, modules exist only while
a function is traced.  Paper: arXiv 2301.04104v2; start with `Agent.loss`.
Next: world_model.py and actor_critic.py, where the losses are.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from dreamer.agent.actor_critic import (
    Actor,
    Critic,
    imagination_loss,
    imagined_rollout,
    replay_value_loss,
)
from dreamer.agent.layout import ONE_DEVICE, Layout, OneDevice
from dreamer.agent.networks import DType, Init, cast_kernels
from dreamer.agent.optim import (
    choose,
    is_finite,
    make_optimizer,
    optimizer_metrics,
)
from dreamer.agent.returns import ReturnRange, initial_return_range
from dreamer.agent.rssm import State, mask
from dreamer.agent.types import Batch, Metrics, Params
from dreamer.agent.world_model import (
    OTHER_LOSSES,
    WorldModel,
    action_vector,
    world_model_loss,
)
from dreamer.hyperparameters import AgentConfig
from dreamer.spaces import LATENTS, Space

sg = jax.lax.stop_gradient


class Networks(nnx.Module):
    """All modules that the optimiser trains."""

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
        self.world = WorldModel(obs_spaces, action_space, config, **kw)
        self.actor = Actor(feat, action_space, config.policy, **kw)
        self.critic = Critic(feat, config.value, **kw)


@chex.dataclass(frozen=True)
class TrainState:
    """All that an update changes.

    `params`: nested dict, float32. `slow_critic`: like params["critic"].
    `updates: () int32`, gradient updates so far.
    """

    params: Params
    slow_critic: Params
    opt_state: optax.OptState
    return_range: ReturnRange
    updates: jax.Array


class Carry(NamedTuple):
    """What acting remembers per environment.

    `deter: (N, D)` compute dtype, `stoch: (N, S)` class indices,
    `prev_action: (N,) int32` or `(N, A) float32`.
    """

    deter: jax.Array
    stoch: jax.Array
    prev_action: jax.Array


class Agent:
    """DreamerV3 for one pair of observation and action spaces."""

    def __init__(
        self,
        obs_spaces: dict[str, Space],
        action_space: Space,
        config: AgentConfig,
        *,
        dtype: DType,
        context: int = 1,
        layout: Layout | OneDevice = ONE_DEVICE,
        optimizer: optax.GradientTransformation | None = None,
    ):
        """Allocates no parameters; only derives their shapes.

        Args:
          obs_spaces, action_space: spaces of the environments.
          config: sizes and weights.
          dtype: dtype of activations.
          context: K steps before the trained ones.
          layout: devices that make the updates.
          optimizer: rule that turns gradients into steps; the one of
            `config.opt` by default.

        Raises:
          ConfigError: images that the encoder cannot take.
        """
        self.obs_spaces = obs_spaces
        self.action_space = action_space
        self.config = config
        self.dtype = jnp.dtype(dtype)
        self.context = context
        self.optimizer = optimizer or make_optimizer(config.opt)
        shapes = nnx.eval_shape(lambda: self.build(Init()))
        self._param_shapes = nnx.to_pure_dict(nnx.state(shapes))
        self.graph = nnx.graphdef(shapes)
        self.critic_graph = nnx.graphdef(shapes.critic)
        self.layout = layout
        self.update = self._compiled_update()
        self.policy = jax.jit(self._policy, static_argnames="greedy")

    def build(self, init: Init) -> Networks:
        return Networks(
            self.obs_spaces,
            self.action_space,
            self.config,
            dtype=self.dtype,
            init=init,
        )

    def networks(self, params: Params) -> Networks:
        return nnx.merge(self.graph, params)

    @property
    def latents(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape and NumPy dtype of the state stored with every step."""
        rssm = self.config.dyn.rssm
        index = np.uint8 if rssm.classes <= 256 else np.uint16
        return {
            "deter": ((rssm.deter,), np.dtype(self.dtype)),
            "stoch": ((rssm.stoch,), np.dtype(index)),
        }

    def init(self, seed: int) -> TrainState:
        """Fresh parameters; the slow critic starts as a copy of the critic."""
        params = nnx.to_pure_dict(nnx.state(self.build(Init(seed))))
        kept = self.layout.shardings(self.state_shapes)
        params = self.layout.place(params)
        return jax.jit(self.state_from, out_shardings=kept)(params)

    def place(self, state: TrainState) -> TrainState:
        """A state of host arrays, such as a saved one, on the devices."""
        return self.layout.place(state)

    @functools.cached_property
    def state_shapes(self) -> TrainState:
        """What `init` gives, as jax.ShapeDtypeStruct; draws no values."""
        return jax.eval_shape(self.state_from, self._param_shapes)

    def _compiled_update(self) -> Callable:
        """`_update` as one program, of one device or of all in the layout."""
        kept = self.layout.shardings(self.state_shapes)
        shardings = kept, self.layout.batch_sharded, self.layout.replicated
        return jax.jit(
            self._update,
            donate_argnums=0,
            in_shardings=shardings,  # state, batch, key
            out_shardings=shardings,  # state, latents, metrics
        )

    def state_from(self, params: Params) -> TrainState:
        """A state that has not been updated yet, around given parameters."""
        return TrainState(
            params=params,
            slow_critic=jax.tree.map(jnp.copy, params["critic"]),
            opt_state=self.optimizer.init(params),
            return_range=initial_return_range(),
            updates=jnp.zeros((), jnp.int32),
        )

    # Learning

    def _update(
        self, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[TrainState, Batch, Metrics]:
        """One gradient update, or none if its numbers are not finite.

        Where the loss or a gradient is infinite or not a number, nothing is
        learned: parameters, slow critic, optimiser and return range stay as
        they were.  Only `updates` counts on, so that the next try draws
        other random numbers.  The metric `opt/nonfinite`, 0 or 1, tells.

        Args:
          state: train state, which is donated.
          batch: observations, `reward`, `is_first`, `is_last`, `is_terminal`
            and `action`, (B, K+T, ...); and the stored state of context step
            K-1: `deter` (B, D), `stoch` (B, S) class indices.
          key: run-wide PRNG key; folded with the number of updates, so that
            a resumed run draws what an uninterrupted one would.

        Returns:
          The new state, the fresh latents of the T steps (`deter` (B, T, D),
          `stoch` (B, T, S)), and metrics, () each, to be read when logged.
          After an update that was not applied, latents and metrics other
          than `opt/nonfinite` may hold anything.
        """
        key = jax.random.fold_in(key, state.updates)
        loss = functools.partial(self.loss, state=state, batch=batch, key=key)
        grad_fn = jax.value_and_grad(loss, has_aux=True)
        (total, aux), grads = grad_fn(state.params)
        latents, metrics, return_range = aux
        steps, opt_state = self.optimizer.update(
            grads, state.opt_state, state.params
        )
        grad_norm = optax.tree.norm(grads)
        finite = is_finite(total, grad_norm)
        params = optax.apply_updates(state.params, steps)
        params = choose(finite, params, state.params)
        slow_critic = optax.incremental_update(
            params["critic"], state.slow_critic, self.config.slowvalue.rate
        )
        updates = state.updates + 1
        metrics |= optimizer_metrics(
            total, grad_norm, steps, state.params, updates
        )
        state = TrainState(
            params=params,
            slow_critic=choose(finite, slow_critic, state.slow_critic),
            opt_state=choose(finite, opt_state, state.opt_state),
            return_range=choose(finite, return_range, state.return_range),
            updates=updates,
        )
        return state, latents, metrics

    def loss(
        self, params: Params, state: TrainState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Batch, Metrics, ReturnRange]]:
        """The one loss of all modules, as a function of `params`.

        Returns:
          Total loss () float32 and, beside it, the fresh latents, metrics
          and the new return range.
        """
        c, slow_params = self.config, state.slow_critic
        params = self.layout.gather(params)
        slow_params = self.layout.gather(slow_params)
        nets = self.networks(params)
        frozen = self.networks(cast_kernels(sg(params), self.dtype))
        slow_critic = nnx.merge(self.critic_graph, slow_params)
        observe_key, imagine_key = jax.random.split(key)
        obs, carry, prev_action = self.split_context(batch)
        tokens = nets.world.encoder(obs)
        states, posterior = nets.world.rssm.observe(
            carry, tokens, prev_action, obs["is_first"], observe_key
        )
        losses, metrics = world_model_loss(
            nets.world, c, obs, states, posterior
        )
        start = jax.tree.map(
            lambda x: sg(x).reshape(-1, *x.shape[2:]), states
        )  # (B*T, ...)
        feat, actions = imagined_rollout(
            frozen.world, frozen.actor, start, c.imag_length, imagine_key
        )
        imag_losses, imag_metrics, returns, return_range = imagination_loss(
            frozen.world,
            nets.actor,
            nets.critic,
            slow_critic,
            c,
            feat,
            actions,
            state.return_range,
        )
        losses |= imag_losses
        losses["repval"] = replay_value_loss(
            nets.critic,
            slow_critic,
            c,
            states.feat,
            obs,
            returns.reshape(obs["reward"].shape),
        )
        metrics |= imag_metrics
        metrics |= {f"loss/{k}": v for k, v in losses.items()}
        total = sum(v * self.loss_scale(k) for k, v in losses.items())
        latents = {
            "deter": states.deter,
            "stoch": self.class_index(states.stoch),
        }
        return total, (sg(latents), metrics, return_range)

    def loss_scale(self, name: str) -> float:
        """Weight of a loss; all reconstructions have that of `rec`."""
        name = name if name in OTHER_LOSSES else "rec"
        return getattr(self.config.loss_scales, name)

    def split_context(self, batch: Batch) -> tuple[Batch, State, jax.Array]:
        """Separates the K context steps from the T trained ones.

        Returns:
          Fields of the trained steps (B, T, ...), the state stored with the
          last context step, and the action that led to each trained step as
          vectors (B, T, A).
        """
        k = self.context
        carry = self.stored_state(batch["deter"], batch["stoch"])
        prev_action = batch["action"][:, k - 1 : -1]
        vector = action_vector(prev_action, self.action_space)
        obs = {
            name: x[:, k:]
            for name, x in batch.items()
            if name not in (*LATENTS, "action")
        }
        return obs, carry, vector

    def stored_state(self, deter: jax.Array, stoch: jax.Array) -> State:
        """From deter (N, D) and class indices (N, S)."""
        classes = self.config.dyn.rssm.classes
        onehot = jax.nn.one_hot(stoch, classes, dtype=self.dtype)
        return State(deter.astype(self.dtype), onehot)

    def class_index(self, stoch: jax.Array) -> jax.Array:
        """One-hot (..., S, C) -> class indices (..., S) as stored."""
        index = jnp.argmax(stoch, -1)
        return index.astype(self.latents["stoch"][1])

    # Acting

    def initial_carry(self, envs: int) -> Carry:
        """All zeros; what it holds is masked at the first `is_first`."""
        (deter, deter_dtype), (stoch, stoch_dtype) = self.latents.values()
        space = self.action_space
        return Carry(
            jnp.zeros((envs, *deter), deter_dtype),
            jnp.zeros((envs, *stoch), stoch_dtype),
            jnp.zeros((envs, *space.shape), space.dtype),
        )

    def _policy(
        self,
        params: Params,
        carry: Carry,
        obs: Batch,
        key: jax.Array,
        step: jax.Array,
        greedy: bool = False,
    ) -> tuple[Carry, jax.Array]:
        """One acting step of N environments.

        Args:
          params: parameters as in TrainState.
          carry: carry from the previous step or `initial_carry`.
          obs: observations and `is_first`, (N, ...).
          key: run-wide PRNG key.
          step: number () int of this step, folded into the key.
          greedy: whether to take the actor's mode instead of a sample.

        Returns:
          The new carry, whose deter and stoch belong into the replay with
          this observation, and the action (N,) int32 or (N, A) float32.
        """
        key = jax.random.fold_in(key, step)
        stoch_key, action_key = jax.random.split(key)
        nets = self.networks(params)
        rssm = nets.world.rssm
        is_first = obs["is_first"]
        tokens = rssm.project_tokens(nets.world.encoder(obs))
        vector = action_vector(carry.prev_action, self.action_space)
        state, _ = rssm.observe_step(
            self.stored_state(carry.deter, carry.stoch),
            tokens,
            rssm.embed_action(mask(vector, ~is_first)),
            is_first,
            stoch_key,
        )
        dist = nets.actor(state.feat)
        action = dist.mode() if greedy else dist.sample(action_key)
        stoch = self.class_index(state.stoch)
        return Carry(state.deter, stoch, action), action
