"""Logdirs as runs leave them, without a run."""

import json

import numpy as np

from dreamer.settings import load, save
from dreamer.video import Film

FRAMES = 400  # of the run that `whole` makes: 100 policy steps
START = {
    "time": "2026-01-02T03:04:05Z",
    "policy_steps": 0,
    "command": "python -m dreamer.train --configs atari100k debug --seed 3",
    "dreamer_version": "0.1.0",
    "git_revision": "0123456789abcdef",
    "git_uncommitted_changes": True,
    "cpu": "A processor",
    "devices": {"H200": 2},
    "jax_backend": "gpu",
    "nvidia_driver": None,
    "package_versions": {"jax": "0.10.2", "numpy": "2.4.6"},
}


def settings(folder, flags="--seed 3", steps=100):
    """A folder with settings alone."""
    folder.mkdir(parents=True, exist_ok=True)
    argv = f"--configs atari100k debug --run.steps {steps} {flags}".split()
    save(load([*argv, "--logdir", str(folder)]), folder / "config.yaml")
    return folder


def lines(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def metrics(updates):
    """Rows of metrics, one for every ten policy steps."""
    return [
        {
            "step": 40 * n,
            "train/loss/image": 1000.0 / n,
            "train/loss/rew": 2.0,
            "train/loss/policy": None if n == 2 else -0.5 * n,
            "train/opt/nonfinite": float(n == 3),
            "policy_steps": 10.0 * n,
            "updates": float(updates * n),
            "replay/replay_ratio": 3.9,
            "fps/policy": 0.5,
            "fps/waiting": 0.02,
        }
        for n in range(1, 11)
    ]


def evaluation(path, scores, checkpoint=100, video=None, **about):
    episodes = [{"score": x, "length": 9, "env": 0} for x in scores]
    if video:
        episodes[0]["video"] = video
    content = {
        "format": 1,
        "task": "atari100k_pong",
        "checkpoint": checkpoint,
        "mode": "sample",
        "seed": 0,
        "length": 108_000,
        "episodes": episodes,
        "ci95": [-3.5, 4.5],
        **about,
    }
    path.write_text(json.dumps(content))


def whole(folder, flags="--seed 3"):
    """A finished run with everything that a page can show."""
    settings(folder, flags)
    lines(folder / "starts.jsonl", [START, {**START, "policy_steps": 50}])
    lines(folder / "metrics.jsonl", metrics(3))
    scores = [
        {"step": 20 * n, "episode/score": n - 21.0} for n in range(1, 21)
    ]
    lines(folder / "scores.jsonl", scores)
    films(folder / "videos")
    evaluation(
        folder / "eval-100-sample.json",
        [1.0, -2.0, 4.0],
        video="videos/eval-100-sample-000.mp4",
    )
    (folder / "ckpt" / "100").mkdir(parents=True)
    (folder / "ckpt" / "100" / "state.arrays").write_bytes(bytes(2_500_000))
    (folder / "ckpt" / "90.tmp").mkdir()
    (folder / "nonfinite").mkdir()
    (folder / "nonfinite" / "update-9.npz").write_bytes(b"")
    return folder


def films(folder):
    """Two dreams, an older one, and an episode."""
    pictures = np.zeros((4, 32, 48, 3), np.uint8)
    pictures[:, :, :, 1] = np.arange(4)[:, None, None] * 60
    for name in (
        "open_loop-000000000200",
        "open_loop-000000000400",
        "imagined-000000000400",
        "eval-100-sample-000",
    ):
        with Film(folder / f"{name}.mp4", 10) as film:
            for picture in pictures:
                film.add(picture)
