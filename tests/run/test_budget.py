import json

import pytest

from dreamer.options import ConfigError
from dreamer.run.budget import UpdateBudget

BATCH = 16 * 64


@pytest.fixture
def budget():
    """An update per four policy steps, as in Atari 100K."""
    return UpdateBudget(256.0, BATCH)


def test_nothing_is_bought_before_there_is_a_batch(budget):
    budget.spend(8, windows=BATCH - 1)
    assert budget.owed == 0
    assert budget.realised(8, 0) == 0
    budget.spend(9, windows=BATCH)
    assert budget.owed == 1  # and nothing for the eight before


def test_what_is_not_paid_stays_owed(budget):
    for step in range(1, 14):
        budget.spend(step, windows=BATCH)
    assert budget.owed == 1 + 3  # at 1, 5, 9 and 13
    budget.owed -= 3
    budget.spend(17, windows=BATCH)
    assert budget.owed == 2


def test_steps_of_many_environments_buy_as_many_updates(budget):
    budget.spend(16, windows=BATCH)
    assert budget.owed == 1 + 15 // 4


def test_the_ratio_is_realised_from_the_first_update_on(budget):
    budget.spend(100, windows=0)
    budget.spend(101, windows=BATCH)
    assert budget.realised(101, 1) == 0
    assert budget.realised(105, 2) == 256.0
    assert budget.realised(109, 2) == 128.0


def test_another_budget_goes_on_where_this_one_stands(budget):
    budget.spend(50, windows=0)
    budget.spend(60, windows=BATCH)
    other = UpdateBudget(256.0, BATCH)
    other.restore(json.loads(json.dumps({**budget.state(), "score": 1.0})))
    assert other.owed == budget.owed == 1 + 9 // 4
    for one in (budget, other):
        one.spend(67, windows=BATCH)
    assert other.state() == budget.state()
    assert other.realised(67, 4) == budget.realised(67, 4) > 0


def test_a_budget_of_another_ratio_is_refused(budget):
    with pytest.raises(ConfigError, match="the checkpoint: ratio=1/8"):
        UpdateBudget(128.0, BATCH).restore(budget.state())


def test_a_replay_that_lost_its_steps_is_no_debt(budget):
    for step in range(1, 14):
        budget.spend(step, windows=BATCH)
    assert budget.owed == 1 + 3  # at 1, 5, 9 and 13
    for step in range(14, 100):
        budget.spend(step, windows=BATCH - 1)
        assert budget.owed == 0
    budget.spend(100, windows=BATCH)
    assert budget.owed == 0  # bought at 97, where it was too little
    budget.spend(101, windows=BATCH)
    assert budget.owed == 1


def test_of_many_environments_the_very_step_of_the_first_update_counts(
    budget,
):
    budget.spend(16, windows=BATCH)  # the first is bought at step 1
    assert budget.realised(17, 5) == 256.0
