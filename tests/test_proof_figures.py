"""The figure of the small tasks: which line is which, and legible."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import proof_figures  # noqa: E402
from prove import Result  # noqa: E402

from dreamer.options import ConfigError  # noqa: E402


@pytest.fixture
def figure(monkeypatch):
    """The figure that was drawn last."""
    drawn = []

    class Kept(proof_figures.Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            drawn.append(self)

    monkeypatch.setattr(proof_figures, "Figure", Kept)

    def draw(**seeds):
        found = {
            name: [
                proof_figures.Trained(
                    Result(name, seed, 1.0, 0.9, 1.1, 1.0),
                    100,
                    np.arange(1.0, 50.0),
                    np.full(49, float(seed)),
                )
                for seed in numbers
            ]
            for name, numbers in seeds.items()
        }
        assert proof_figures.learning_curves(found)[:4] == b"\x89PNG"
        return drawn[-1]

    return draw


def test_the_legend_names_the_line_of_each_seed(figure):
    found = figure(catch=[0, 1], doors=[1, 2])
    (legend,) = found.legends
    texts = [x.get_text() for x in legend.get_texts()]
    assert texts == ["seed 0", "seed 1", "seed 2"]
    colours = {
        text: line.get_color()
        for text, line in zip(texts, legend.get_lines(), strict=True)
    }
    assert len(set(colours.values())) == 3
    for panel in found.axes[:2]:
        for line in panel.lines:
            values = np.asarray(line.get_ydata())
            if len(values) > 2:  # a curve, whose scores are its seed
                assert line.get_color() == colours[f"seed {values[0]:.0f}"]


def test_no_label_lies_on_a_curve(figure):
    found = figure(catch=[0], doors=[1])
    for panel in found.axes[:2]:
        assert len(panel.texts) == 2
        right = panel.get_window_extent().x1
        for text in panel.texts:
            assert text.get_window_extent().x0 > right


def test_a_run_without_a_training_episode_has_a_dot_alone():
    none = np.empty(0)
    result = Result("catch", 0, 1.0, 0.9, 1.1, 1.0)
    empty = proof_figures.Trained(result, 100, none, none)
    full = proof_figures.Trained(result, 100, np.arange(1.0, 9), np.ones(8))
    for runs, right in (([empty], 1.0), ([full, empty], 8.0)):
        panel = Figure().subplots()
        proof_figures._panel(panel, "catch", runs)
        assert panel.get_xlim() == (0, right)
        dots = [x for x in panel.lines if x.get_marker() == "o"]
        assert [list(x.get_xdata()) for x in dots] == [[right]] * len(runs)
    image = proof_figures.learning_curves({"catch": [empty]})
    assert image[:4] == b"\x89PNG"


def test_other_evaluations_do_not_count(tmp_path):
    kept = ROOT / "results" / "proof" / "catch-0"
    run = shutil.copytree(kept, tmp_path / "catch-0")
    about = json.loads((run / "eval-proof.json").read_text())
    before = proof_figures.to_csv(proof_figures.read(tmp_path))
    about |= {"checkpoint": 10**9, "cut_short": 1}
    about["episodes"] = [{"score": -1.0}]
    (run / "eval-short.json").write_text(json.dumps(about))
    assert proof_figures.to_csv(proof_figures.read(tmp_path)) == before
    # Nor do films of the same agent take the place of a hundred episodes.
    about |= {"checkpoint": 14_000, "cut_short": 0}
    for number in range(10):
        (run / f"eval-{number}.json").write_text(json.dumps(about))
    assert proof_figures.to_csv(proof_figures.read(tmp_path)) == before
    for path in run.glob("eval-*.json"):
        path.write_text(json.dumps(about | {"cut_short": 1}))
    with pytest.raises(ConfigError, match="no evaluation"):
        proof_figures.read(tmp_path)
