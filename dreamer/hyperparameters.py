"""Every number of the algorithm: sizes, losses, optimiser.

Defaults are those of the authors' public code, which are those of "Mastering
diverse control tasks through world models" (arXiv 2301.04104v2), table of
hyperparameters, except where a sentence here gives the paper's in brackets.
Next: `dreamer.config`, where these are the group `agent`.
"""

from dataclasses import dataclass, field

from dreamer.options import option


@dataclass(frozen=True)
class RSSMConfig:
    """Recurrent state-space model: the size of its state and layers."""

    deter: int = option(
        8192,
        "[8, 1048576]",
        "Deterministic units D, a multiple of 8 and blocks.",
    )
    hidden: int = option(
        1024, "[1, 65536]", "Units of each layer around the recurrent core."
    )
    stoch: int = option(32, "[1, 65536]", "Categorical variables S.")
    classes: int = option(64, "[2, 65536]", "Classes C of each categorical.")
    blocks: int = option(
        8, "[1, 65536]", "Blocks G of the block-diagonal GRU."
    )
    unimix: float = option(
        0.01, "[0, 1)", "Share of the uniform mixed into the categoricals."
    )
    free_nats: float = option(
        1.0, "[0, inf)", "KL below which the dynamics losses stop pushing."
    )


@dataclass(frozen=True)
class DynConfig:
    """The dynamics model; the RSSM is the only kind."""

    rssm: RSSMConfig = field(default_factory=RSSMConfig)


@dataclass(frozen=True)
class EncoderConfig:
    """Observation to tokens: convolutions for images, MLP for the rest."""

    depth: int = option(
        64,
        "[1, 65536]",
        "The stages have 2, 3, 4 and 4 times so many channels.",
    )
    units: int = option(1024, "[1, 65536]", "Units of each layer for vectors.")
    layers: int = option(3, "[1, 64]", "Layers for vectors.")


@dataclass(frozen=True)
class EncConfig:
    """The encoder; there is one kind."""

    simple: EncoderConfig = field(default_factory=EncoderConfig)


@dataclass(frozen=True)
class DecoderConfig:
    """State to observation, the encoder's mirror image."""

    depth: int = option(
        64,
        "[2, 65536]",
        "The stages have 2, 3, 4 and 4 times so many channels; even.",
    )
    units: int = option(1024, "[1, 65536]", "Units of each layer for vectors.")
    layers: int = option(3, "[1, 64]", "Layers for vectors.")


@dataclass(frozen=True)
class DecConfig:
    """The decoder; there is one kind."""

    simple: DecoderConfig = field(default_factory=DecoderConfig)


@dataclass(frozen=True)
class RewardHeadConfig:
    """Reward predictor, symexp two-hot."""

    layers: int = option(1, "[1, 64]", "Hidden layers.")
    units: int = option(1024, "[1, 65536]", "Units of each hidden layer.")
    bins: int = option(255, "[2, 65536]", "Bins of the two-hot distribution.")


@dataclass(frozen=True)
class ContinueHeadConfig:
    """Predictor of whether the episode goes on, Bernoulli."""

    layers: int = option(1, "[1, 64]", "Hidden layers.")
    units: int = option(1024, "[1, 65536]", "Units of each hidden layer.")


@dataclass(frozen=True)
class PolicyConfig:
    """The actor."""

    layers: int = option(3, "[1, 64]", "Hidden layers.")
    units: int = option(1024, "[1, 65536]", "Units of each hidden layer.")
    minstd: float = option(
        0.1, "(0, inf)", "Smallest standard deviation of continuous actions."
    )
    maxstd: float = option(
        1.0, "(0, inf)", "Largest standard deviation of continuous actions."
    )
    unimix: float = option(
        0.0,
        "[0, 1)",
        "Share of the uniform mixed into discrete actions (paper: 0.01).",
    )


@dataclass(frozen=True)
class ValueConfig:
    """The critic, symexp two-hot."""

    layers: int = option(3, "[1, 64]", "Hidden layers.")
    units: int = option(1024, "[1, 65536]", "Units of each hidden layer.")
    bins: int = option(255, "[2, 65536]", "Bins of the two-hot distribution.")


@dataclass(frozen=True)
class OptConfig:
    """LaProp behind adaptive gradient clipping (AGC), linear warm-up."""

    lr: float = option(4e-5, "(0, inf)", "Learning rate after the warm-up.")
    agc: float = option(
        0.3,
        "(0, inf)",
        "Largest norm of a tensor's gradient, relative to the tensor's norm.",
    )
    eps: float = option(
        1e-20, "(0, inf)", "Added to the root mean square of gradients."
    )
    beta1: float = option(0.9, "[0, 1)", "Decay of the momentum.")
    beta2: float = option(
        0.999, "[0, 1)", "Decay of the mean squared gradient (paper: 0.99)."
    )
    warmup: int = option(
        1000, "[0, 1e9]", "Updates until the full learning rate."
    )


@dataclass(frozen=True)
class LossScales:
    """Weight of each term of the loss."""

    rec: float = option(1.0, "[0, inf)", "Weight of reconstruction.")
    rew: float = option(1.0, "[0, inf)", "Weight of reward prediction.")
    con: float = option(1.0, "[0, inf)", "Weight of the continue prediction.")
    dyn: float = option(
        1.0, "[0, inf)", "Weight of the KL that trains the prior."
    )
    rep: float = option(
        0.1, "[0, inf)", "Weight of the KL that trains the posterior."
    )
    policy: float = option(
        1.0, "[0, inf)", "Weight of the actor, in imagination."
    )
    value: float = option(
        1.0, "[0, inf)", "Weight of the critic, in imagination."
    )
    repval: float = option(
        0.3, "[0, inf)", "Weight of the critic, on replayed states."
    )


@dataclass(frozen=True)
class ImagLoss:
    """Actor and critic in imagination."""

    lam: float = option(0.95, "[0, 1]", "Lambda of the returns.")
    actent: float = option(3e-4, "[0, inf)", "Weight of the actor's entropy.")
    slowreg: float = option(
        1.0, "[0, inf)", "Weight of staying close to the slow critic."
    )


@dataclass(frozen=True)
class ReplLoss:
    """Critic on replayed states."""

    lam: float = option(0.95, "[0, 1]", "Lambda of the returns.")
    slowreg: float = option(
        1.0, "[0, inf)", "Weight of staying close to the slow critic."
    )


@dataclass(frozen=True)
class RetNorm:
    """Range of returns that advantages are divided by."""

    rate: float = option(0.01, "(0, 1]", "Rate of the average range.")
    limit: float = option(1.0, "(0, inf)", "Smallest range of returns.")
    perclo: float = option(
        5.0, "[0, 100]", "Percentile of returns where the range begins."
    )
    perchi: float = option(
        95.0, "[0, 100]", "Percentile of returns where the range ends."
    )


@dataclass(frozen=True)
class SlowValue:
    """The slow critic."""

    rate: float = option(
        0.02,
        "(0, 1]",
        "Share of the way to the critic that an update moves the slow one.",
    )


@dataclass(frozen=True)
class AgentConfig:
    """World model, actor, critic and optimiser."""

    dyn: DynConfig = field(default_factory=DynConfig)
    enc: EncConfig = field(default_factory=EncConfig)
    dec: DecConfig = field(default_factory=DecConfig)
    rewhead: RewardHeadConfig = field(default_factory=RewardHeadConfig)
    conhead: ContinueHeadConfig = field(default_factory=ContinueHeadConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    value: ValueConfig = field(default_factory=ValueConfig)
    opt: OptConfig = field(default_factory=OptConfig)
    loss_scales: LossScales = field(default_factory=LossScales)
    imag_length: int = option(15, "[1, 65536]", "Imagined steps H.")
    horizon: int = option(
        333, "[1, 1e6]", "Discount is 1 - 1 / horizon, per policy step."
    )
    imag_loss: ImagLoss = field(default_factory=ImagLoss)
    repl_loss: ReplLoss = field(default_factory=ReplLoss)
    retnorm: RetNorm = field(default_factory=RetNorm)
    slowvalue: SlowValue = field(default_factory=SlowValue)
