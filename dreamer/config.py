"""Every setting of a run: its type, default, range and meaning.

The frozen dataclasses below are the only place that holds defaults. Names
follow the authors' public code of "Mastering diverse control tasks through
world models" (arXiv 2301.04104v2). Next: `dreamer.hyperparameters` holds the
group `agent`, `dreamer.options` says how a setting is declared, and
`dreamer.settings` makes a `Config` of a command line.
"""

from dataclasses import dataclass, field

from dreamer.hyperparameters import AgentConfig
from dreamer.options import option


@dataclass(frozen=True)
class AtariConfig:
    """Atari preprocessing of the tasks that begin with this group's name."""

    size: tuple[int, int] = option(
        (96, 96), "[16, 512]", "Image height and width, multiples of 16."
    )
    repeat: int = option(
        4, "[1, 64]", "Emulator frames that one action is repeated for."
    )
    sticky: float = option(
        0.25, "[0, 1)", "Chance per frame that the last action sticks."
    )
    gray: bool = option(
        True, "", "Images have one gray channel, not three of colour."
    )
    actions: str = option(
        "all",
        ("all", "needed"),
        "Legal action set, or the game's minimal set.",
    )
    lives: str = option(
        "unused",
        ("unused", "discount", "reset"),
        "What losing a life does: nothing, value 0 after it, episode end.",
    )
    noops: int = option(
        30, "[0, 1000]", "Most no-op frames after a reset, drawn uniformly."
    )
    length: int = option(
        108000, "[1, 1e15]", "Frames after which an episode is cut short."
    )


@dataclass(frozen=True)
class GymConfig:
    """Any Gymnasium environment: the tasks gym_<environment id>."""

    size: tuple[int, int] = option(
        (64, 64), "[16, 512]", "Height and width that images are resized to."
    )
    repeat: int = option(
        1, "[1, 64]", "Environment steps that one action is repeated for."
    )


def _atari100k() -> AtariConfig:
    return AtariConfig(size=(64, 64), sticky=0.0, gray=False, actions="needed")


@dataclass(frozen=True)
class EnvConfig:
    """Of any task; below, a group per kind, picked by the task's prefix."""

    import_: tuple[str, ...] = option(
        (),
        "",
        "Modules to import first, which register environments of your own.",
    )
    atari: AtariConfig = field(default_factory=AtariConfig)
    atari100k: AtariConfig = field(default_factory=_atari100k)
    gym: GymConfig = field(default_factory=GymConfig)


@dataclass(frozen=True)
class RunConfig:
    """How long, how many environments, how much training."""

    steps: int = option(
        51_000_000,
        "[1, 1e15]",
        "Policy steps of the run, summed over all environments.",
        resume=True,
    )
    train_ratio: float = option(
        32.0,
        "[-1e6, 1e6]",
        "Time steps replayed per policy step (0: never train, negative: one"
        " update every policy step). `python -m dreamer.ratio` explains it.",
    )
    envs: int = option(16, "[1, 4096]", "Environments that step in parallel.")
    log_every: float = option(
        120.0, "(0, inf)", "Seconds between two lines of metrics.", resume=True
    )
    save_every: float = option(
        900.0, "(0, inf)", "Seconds between two checkpoints.", resume=True
    )
    report_every: float = option(
        600.0,
        "[0, inf)",
        "Seconds between two videos of predictions, not the report page"
        " (0: no videos).",
        resume=True,
    )
    disk_patience: float = option(
        1800.0,
        "[0, inf)",
        "Seconds that writing to the logdir may fail before the run ends.",
        resume=True,
    )
    env_timeout: float = option(
        300.0,
        "(0, inf)",
        "Seconds without an answer after which an environment has hung"
        " (of several: a single one runs in the run's own process).",
        resume=True,
    )
    env_restarts: int = option(
        10, "[0, 1e9]", "Failed environments that are replaced.", resume=True
    )
    nonfinite_limit: int = option(
        10,
        "[1, 1e9]",
        "Updates in a row without a finite loss that end the run.",
        resume=True,
    )


@dataclass(frozen=True)
class ReplayConfig:
    """The store of past experience."""

    size: int = option(
        5_000_000,
        "[1, 1e15]",
        "Time steps held at most; never more than the run's own steps.",
    )
    online: bool = option(
        True, "", "Serve every fresh window once before drawing uniformly."
    )
    exact: str = option(
        "auto",
        ("auto", "always", "never"),
        "Whether a checkpoint saves again all latents that updates refreshed,"
        " so that a run goes on to the bit; auto: if all take up to 4 GB.",
        resume=True,
    )


@dataclass(frozen=True)
class JaxConfig:
    """Where and in which precision the agent computes."""

    platform: str = option(
        "auto",
        ("auto", "cpu", "cuda", "gpu", "tpu"),
        "Device kind; auto takes an accelerator where there is one.",
        resume=True,
    )
    compute_dtype: str = option(
        "auto",
        ("auto", "bfloat16", "float32"),
        "Type of activations; auto is float32 on CPU, bfloat16 elsewhere.",
    )
    deterministic: bool = option(
        False,
        "",
        "Same seed, same bits on a GPU too, for some speed; CPUs always do.",
        resume=True,
    )
    devices: int = option(
        1,
        "[0, 65536]",
        "Devices of each process that compute updates together (0: all).",
        resume=True,
    )
    fsdp: bool = option(
        False,
        "",
        "Divide parameters and optimiser state among the devices, to save"
        " memory; acting keeps one whole copy of the parameters.",
        resume=True,
    )
    coordinator: str = option(
        "none",
        "",
        "host:port where several processes of one run meet; auto: as Slurm,"
        " Kubernetes, Open MPI or a TPU pod tell.",
        resume=True,
    )
    processes: int = option(
        1,
        "[1, 65536]",
        "Processes of the run, with a coordinator that is not auto.",
        resume=True,
    )
    process: int = option(
        0,
        "[0, 65535]",
        "Number of this process, from 0; 0 runs on the coordinator's host.",
        resume=True,
    )
    join_timeout: float = option(
        300.0,
        "(0, 1e6]",
        "Seconds to wait for the other processes.",
        resume=True,
    )


@dataclass(frozen=True)
class LoggerConfig:
    """Where metrics go."""

    outputs: tuple[str, ...] = option(
        ("jsonl", "tensorboard"),
        ("jsonl", "tensorboard", "wandb"),
        "Formats to write metrics in.",
        resume=True,
    )


@dataclass(frozen=True)
class Config:
    """One run, from the first frame to the last."""

    task: str = option(
        "atari_pong",
        "",
        "atari_<game>, atari100k_<game> or gym_<environment id>.",
    )
    logdir: str = option(
        "~/logdir/dreamer/{timestamp}",
        "",
        "Folder of the run's files; {timestamp}, {task} and {seed} in it are"
        " filled in.",
        resume=True,
    )
    seed: int = option(0, "[0, 4294967295]", "Seed of all random numbers.")
    batch_size: int = option(16, "[1, 65536]", "Sequences B in a batch.")
    batch_length: int = option(
        64, "[2, 65536]", "Time steps T trained on in each sequence."
    )
    replay_context: int = option(
        1,
        "[1, 65536]",
        "Time steps K replayed before each sequence; only the latents of the"
        " last one are used, as in the paper's code (it is 1 there).",
    )
    env: EnvConfig = field(default_factory=EnvConfig)
    run: RunConfig = field(default_factory=RunConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    jax: JaxConfig = field(default_factory=JaxConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)

    @property
    def batch_steps(self) -> int:
        """Time steps that one update trains on, B * T."""
        return self.batch_size * self.batch_length

    @property
    def suite(self) -> str:
        """'atari', 'atari100k' or 'gym': the task's prefix."""
        return self.task.partition("_")[0]

    @property
    def task_name(self) -> str:
        """The game or environment id: the task without its prefix."""
        return self.task.partition("_")[2]

    @property
    def action_repeat(self) -> int:
        """Frames per policy step."""
        return getattr(self.env, self.suite).repeat
