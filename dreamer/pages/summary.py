"""What a run is called, how far it is and how good: for page and index.

Read next: `page.py`.
"""

import math
from dataclasses import dataclass

from dreamer.options import settings
from dreamer.pages.read import Logdir, is_number
from dreamer.scores.published import (
    BENCHMARKS,
    Benchmark,
    Reference,
    game_name,
    references,
)
from dreamer.scores.runs import model
from dreamer.scores.table import percent

UNKNOWN = "–"
RECENT = 10  # episodes, whose mean is the score of a run so far


@dataclass(frozen=True)
class Summary:
    """What a reader asks first.

    Attributes:
      title: Title of the game or environment.
      suite: Title of the benchmark, or source of the environment.
      model: Preset of the model's size, or size of its recurrent state.
      benchmark: Benchmark with published scores; None if there is none.
      game: Name of the game, as in `dreamer.envs.games`; '' for other tasks.
      reference: Random and human scores, where they are known.
      policy_steps: Policy steps done so far, as far as files say.
      frames: Frames emulated in these policy steps.
      updates: Updates made so far; None if no row of metrics says so.
      share: Share of all policy steps that is done, at most 1.
      seconds: Time in the training loop; 0 if not known.
      recent: Mean score of the last episodes; None without any.
    """

    title: str
    suite: str
    model: str
    benchmark: Benchmark | None
    game: str
    reference: Reference | None
    policy_steps: int
    frames: int
    updates: int | None
    share: float
    seconds: float
    recent: float | None

    @property
    def finished(self) -> bool:
        """Whether all policy steps are done."""
        return self.share >= 1

    @property
    def done(self) -> str:
        """The share in percent; 100% is finished, and not almost."""
        most = 1 if self.finished else 0.99
        return f"{min(self.share, most):.0%}"

    def normalised(self, score: float) -> str:
        """A score between random and human, in percent, where known."""
        if self.reference is None:
            return UNKNOWN
        return percent(float(self.reference.normalised(score)))


def summarise(found: Logdir) -> Summary:
    """The summary of a run that was read."""
    config = found.config
    benchmark = next(
        (x for x in BENCHMARKS.values() if x.prefix == config.suite), None
    )
    game = game_name(config.task_name) if benchmark else ""
    frames = max(found.frames, default=0)
    state = found.state
    steps = max(
        state.policy_steps if state else 0,
        int(found.last("policy_steps") or 0),
        int(frames) // config.action_repeat,
        *(x.policy_steps for x in found.checkpoints),
        # Of a copy without checkpoints, only these may say it.
        *(
            x.checkpoint
            for x in found.evaluations
            if x.checkpoint <= config.run.steps
        ),
    )
    updates = found.last("updates")
    if state and state.updates is not None:
        updates = max(updates or 0, state.updates)
    recent = found.scores[-RECENT:]
    return Summary(
        title=game.replace("_", " ").title() or config.task_name,
        suite=benchmark.title if benchmark else "Gymnasium",
        model=_model(found),
        benchmark=benchmark,
        game=game,
        reference=references().get(game),
        policy_steps=steps,
        frames=steps * config.action_repeat,
        updates=None if updates is None else int(updates),
        share=min(steps / config.run.steps, 1),
        seconds=_seconds(found),
        recent=float(recent.mean()) if len(recent) else None,
    )


def _model(found: Logdir) -> str:
    known = {k: x.value for k, x in settings(found.config).items()}
    deter = found.config.agent.dyn.rssm.deter
    return model(known) or f"recurrent state of {deter}"


def _seconds(found: Logdir) -> float:
    """Time in the training loop: policy steps by their speed, row by row."""
    seconds, before = 0.0, 0.0
    for row in found.metrics:
        steps, speed = row.get("policy_steps"), row.get("fps/policy")
        if is_number(steps) and is_number(speed) and speed > 0:
            seconds += max(steps - before, 0) / speed
            before = steps
    return seconds if math.isfinite(seconds) else 0.0
