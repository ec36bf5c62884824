"""The agents in results/ can be played by the program as it is now."""

from pathlib import Path

import numpy as np
import pytest

from dreamer.run.policy import load
from dreamer.settings import load as load_settings

RESULTS = Path(__file__).resolve().parent.parent / "results"
AGENTS = sorted(x.parent for x in RESULTS.glob("*/*/agent/meta.json"))


def test_there_are_agents():
    assert AGENTS


@pytest.mark.parametrize("folder", AGENTS, ids=lambda x: x.parent.name)
def test_an_agent_acts(folder):
    policy = load(folder)
    kept = load_settings(["--configs", str(folder.parent / "config.yaml")])
    assert policy.config.task == kept.task
    assert policy.policy_steps == policy.config.run.steps
    assert policy.updates > 1000
    env = policy.make_env()
    obs, _ = env.reset(seed=0)
    actions = set()
    for _ in range(40):
        action = policy(obs)
        actions.add(np.round(action, 1).tobytes())
        obs, *_ = env.step(action)
    env.close()
    assert len(actions) > 3  # neither untrained nor stuck
