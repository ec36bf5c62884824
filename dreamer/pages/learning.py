"""The parts of a page on learning: what the model dreams, and its losses.

The losses are those of "Mastering diverse control tasks through world models"
(arXiv 2301.04104v2), equations 4 to 11, as `dreamer/agent/` names them. Read
next: `page.py`.
"""

from pathlib import Path

from dreamer.pages.charts import Line, chart
from dreamer.pages.elements import Html, join, section, tag
from dreamer.pages.films import films
from dreamer.pages.read import Logdir
from dreamer.scores.table import short

DREAMS = {
    "open_loop": (
        "Prediction without seeing, after {frames} frames of training: what"
        " happened (top), what the model predicts from the first, green frames"
        " and the actions alone (middle), and the difference (bottom)."
    ),
    "imagined": (
        "Imagination under the agent's own policy, after {frames} frames of"
        " training, with the reward and value that it expects: no such game"
        " was played."
    ),
}
LOSS = "train/loss/"
ACTING = {
    f"{LOSS}policy": "Actor",
    f"{LOSS}value": "Critic",
    f"{LOSS}repval": "Critic on replayed states",
}
MODEL = {
    f"{LOSS}image": "Image",
    f"{LOSS}rew": "Reward",
    f"{LOSS}con": "Continue",
    f"{LOSS}dyn": "Dynamics, KL in nats",
    f"{LOSS}rep": "Representation, KL in nats",
}
OTHERS = {
    "train/ent/action": "Entropy of the policy, in nats",
    "train/rew": "Imagined reward",
    "train/ret": "Imagined return, normalised",
    "train/opt/grad_norm": "Norm of the gradient",
}
SIGNED = ("train/rew", "train/ret")


def dreams(found: Logdir) -> Html:
    """The newest films of what the world model predicts."""
    title = "Dreams of the world model"
    if not found.dreams:
        words = (
            "There is no video yet. A run of dreamer.train makes some while it"
            " trains (run.report_every) and when it ends, if its observations"
            " have images."
        )
        if not found.config.run.report_every:
            words = "There is no video, as run.report_every is 0."
        return section(title, tag("p", words))
    shown = [(x, _caption(x, y)) for x, y in found.dreams.items()]
    words = f"{found.older} older ones are in videos/." if found.older else ""
    older = tag("p", words, class_="soft") if words else None
    return section(title, films(shown), older)


def _caption(path: Path, frames: int) -> str:
    kind = next(x for x in DREAMS if path.name.startswith(x))
    return DREAMS[kind].format(frames=f"{frames:,}")


def losses(found: Logdir) -> Html:
    """Small charts of every loss, and of what tells whether it goes well."""
    title = "Losses"
    names = dict.fromkeys(
        k for x in found.metrics for k in x if k.startswith(LOSS)
    )
    if not any(len(found.series(x)[1]) for x in names):
        return section(title, tag("p", _without(found)))
    ours = {k: k.removeprefix(LOSS) for k in names if k not in ACTING}
    model = {k: MODEL.get(k, f"Observation {x}") for k, x in ours.items()}
    order = sorted(model, key=lambda x: ([*MODEL, x].index(x), x))
    groups = {
        "World model": {k: model[k] for k in order},
        "Actor and critic": ACTING,
        "Behaviour and gradient": OTHERS,
    }
    return section(
        title,
        *(
            join([tag("h3", group), _charts(found, panels)])
            for group, panels in groups.items()
            if any(len(found.series(x)[1]) for x in panels)
        ),
    )


def _without(found: Logdir) -> str:
    """Why there is no loss to be shown."""
    if "jsonl" not in found.config.logger.outputs:
        return (
            "No update is in metrics.jsonl, which dreamer.train writes with"
            " jsonl among logger.outputs."
        )
    updates = found.last("updates")
    if updates:
        return f"None of {updates:,.0f} updates has a finite loss."
    return "No update is in metrics.jsonl."


def _charts(found: Logdir, panels: dict[str, str]) -> Html:
    figures = []
    for key, title in panels.items():
        frames, values = found.series(key)
        if len(values):
            described = (
                f"Line chart. {title}: {values[0]:.4g} at"
                f" {short(frames[0])} frames, {values[-1]:.4g} at"
                f" {short(frames[-1])}; lowest {values.min():.4g}, highest"
                f" {values.max():.4g}."
            )
            line = Line(title, frames, values)
            last = float(found.metrics[-1]["step"]) or 1.0
            log = panels is not ACTING and key not in SIGNED
            figures.append(
                chart(title, described, [line], last, small=True, log=log)
            )
    return tag("div", *figures, class_="charts")
