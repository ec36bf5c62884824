import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dreamer.replay import Positions, Replay, guard
from tests.replay.slow import (
    FIELDS,
    LATENTS,
    contents,
    fill,
    make_replay,
    random_arrays,
    random_step,
    same,
    save,
)


def pairs(positions):
    return list(
        zip(positions.env.tolist(), positions.start.tolist(), strict=True)
    )


def test_uniform_over_all_start_positions_of_all_environments():
    replay = make_replay(envs=3, capacity=13, online=False)
    fill(replay, 30)
    draws = 30_000
    counts = Counter(pairs(replay.draw(draws)))
    starts = [(env, start) for env in range(3) for start in range(17, 27)]
    assert sorted(counts) == starts
    expected = draws / len(starts)
    chi2 = sum((n - expected) ** 2 / expected for n in counts.values())
    assert chi2 < 58.3  # 29 degrees of freedom: exceeded once in 1000


def test_each_online_window_is_served_once_as_soon_as_it_is_complete():
    replay = make_replay(envs=2, capacity=100, length=3)
    served = []
    for time in range(1, 81):
        fill(replay, 1)
        if time % 4 == 0:
            served += pairs(replay.draw(2))
            assert sorted(served[-2:]) == [(0, time - 4), (1, time - 4)]
    assert len(set(served)) == len(served) == 40
    # The queue is empty: many draws now look like anything but the queue.
    assert len({start % 4 for _, start in pairs(replay.draw(50))}) == 4


def test_a_batch_larger_than_the_queue_is_completed_uniformly():
    replay = make_replay(envs=1, capacity=100)
    fill(replay, 9)
    drawn = pairs(replay.draw(200))
    assert drawn[:2] == [(0, 0), (0, 4)]
    assert {start for _, start in drawn[2:]} == set(range(6))


def test_overwritten_online_windows_are_dropped():
    replay = make_replay(envs=1, capacity=6)
    fill(replay, 13)  # steps 7..12 are held, window 8..11 alone of the queue
    drawn = pairs(replay.draw(5))
    assert drawn[0] == (0, 8)
    assert {start for _, start in drawn[1:]} <= {7, 8, 9}


def test_offline_draws_never_come_from_a_queue():
    twins = [make_replay(online=flag, seed=3) for flag in (True, False)]
    for twin in twins:
        fill(twin, 12)
    twins[0]._queue.clear()
    assert pairs(twins[0].draw(9)) == pairs(twins[1].draw(9))


def test_a_look_leaves_no_trace():
    replay, alone = make_replay(), make_replay()
    for twin in (replay, alone):
        fill(twin, 33)  # the ring has wrapped, windows wait in the queue
    positions = replay._uniform(500, np.random.default_rng(5))
    starts = {(env, start) for env in range(2) for start in range(13, 30)}
    assert set(pairs(positions)) == starts
    seen = replay.look(500, np.random.default_rng(5))
    same(seen, alone.gather(positions))
    for _ in range(3):
        drawn = [twin.draw(4) for twin in (replay, alone)]
        assert pairs(drawn[0]) == pairs(drawn[1])
        replay.gather(drawn[0])
    fill(replay, 20)  # nothing waits for what was looked at


def flags(is_first, is_last):
    """Batch flags of a one-window replay holding these steps."""
    replay = make_replay(envs=1, capacity=len(is_first), length=4)
    for first, last in zip(is_first, is_last, strict=True):
        step = random_step(1, 0)
        step["is_first"][:] = first
        step["is_last"][:] = last
        replay.add(step)
    batch = replay.gather(replay.draw(1))
    return batch["is_first"][0].tolist(), batch["is_last"][0].tolist()


def test_abandoned_episode_gets_is_last_in_the_batch():
    assert flags([0, 0, 0, 1, 0], [0] * 5) == (
        [True, False, False, True, False],
        [False, False, True, False, False],
    )


def test_finished_episode_and_first_step_are_as_they_were():
    assert flags([1, 0, 1, 0, 0], [0, 1, 0, 0, 1]) == (
        [True, False, True, False, False],
        [False, True, False, False, True],
    )


def test_corrections_stay_in_the_batch():
    replay = make_replay(envs=1, capacity=4)
    step = random_step(1, 0)
    step["is_first"][:], step["is_last"][:] = False, False
    for _ in range(2):
        replay.add(step)
    replay.add(step | {"is_first": np.array([True])})
    replay.add(step)
    replay.gather(replay.draw(1))
    stored = replay._fields.arrays
    assert stored["is_first"].tolist() == [[False, False, True, False]]
    assert not stored["is_last"].any()


def test_carry_is_the_latent_of_the_last_context_step():
    replay = make_replay(envs=1, capacity=6, context=3, length=2)
    for time in range(6):
        step = random_step(1, time)
        step["stoch"][:] = time
        replay.add(step)
    positions = Positions(np.array([0, 0]), np.array([0, 1]))
    batch = replay.gather(positions)
    np.testing.assert_array_equal(batch["stoch"], [[2] * 3, [3] * 3])
    fresh = random_arrays(LATENTS, (2, 2), 0)
    fresh["stoch"][:] = np.array([[[30], [40]], [[41], [51]]])
    replay.write_back(positions, fresh)
    stored = replay._latents.arrays["stoch"][0, :, 0]
    np.testing.assert_array_equal(stored, [0, 1, 2, 30, 41, 51])


def test_write_back_skips_overwritten_steps_one_by_one():
    replay = make_replay(envs=1, capacity=6, context=1, length=4)
    fill(replay, 5)
    positions = replay.draw(1)
    replay.gather(positions)
    fill(replay, 4, first_seed=5)  # steps 3..8 are held, window was 0..4
    before = replay._latents.arrays["stoch"][0].copy()
    fresh = random_arrays(LATENTS, (1, 4), 99)
    replay.write_back(positions, fresh)
    after = replay._latents.arrays["stoch"][0]
    np.testing.assert_array_equal(after[3:5], fresh["stoch"][0, 2:])
    np.testing.assert_array_equal(after[[0, 1, 2, 5]], before[[0, 1, 2, 5]])


@pytest.fixture
def full():
    """A full replay and a drawn window that holds its oldest step."""
    replay = make_replay(envs=1, capacity=4)
    fill(replay, 4)
    return replay, replay.draw(1)


def test_add_refuses_to_overwrite_a_draw_nobody_gathers(full, monkeypatch):
    replay, _ = full
    monkeypatch.setattr(guard, "WAIT_SECONDS", 0.0)
    with pytest.raises(RuntimeError, match=r"drawn .* and not gathered"):
        fill(replay, 1)


def test_add_goes_on_after_a_gather(full, monkeypatch):
    replay, positions = full
    monkeypatch.setattr(guard, "WAIT_SECONDS", 0.0)
    replay.gather(positions)
    fill(replay, 1)
    assert replay._oldest == 1
    with pytest.raises(
        ValueError, match=r"at time 0 is gone; the oldest .* 1"
    ):
        replay.gather(positions)


def test_add_waits_for_a_gather_in_flight(full, monkeypatch):
    replay, positions = full
    reading, go_on = threading.Event(), threading.Event()
    take = replay._fields.take

    def slow_take(env, time):
        reading.set()
        assert go_on.wait(30)
        return take(env, time)

    monkeypatch.setattr(replay._fields, "take", slow_take)
    expected = replay._fields.arrays["image"].copy()
    with ThreadPoolExecutor(2) as threads:
        batch = threads.submit(replay.gather, positions)
        assert reading.wait(30)
        with monkeypatch.context() as patch:
            patch.setattr(guard, "WAIT_SECONDS", 0.0)
            with pytest.raises(RuntimeError):
                fill(replay, 1)
        added = threads.submit(fill, replay, 1, 50)
        go_on.set()
        added.result(30)
        image = batch.result(30)["image"]
    np.testing.assert_array_equal(image, expected)
    newest = replay._fields.arrays["image"][0, 0]
    np.testing.assert_array_equal(newest, random_step(1, 50)["image"][0])


def test_a_failed_gather_does_not_block_add(full, monkeypatch):
    replay, positions = full
    with monkeypatch.context() as patch:
        patch.setattr(replay._fields, "take", lambda env, time: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            replay.gather(positions)
    monkeypatch.setattr(guard, "WAIT_SECONDS", 0.0)
    fill(replay, 1)


def test_gathering_while_adding_never_tears_a_window():
    fields = FIELDS | {"image": ((64, 64, 3), np.dtype(np.uint8))}
    replay = Replay(fields, LATENTS, 2, 2 * 40, 1, 15, seed=0)
    step = random_arrays({**fields, **LATENTS}, (2,), 0)
    pending = []
    with ThreadPoolExecutor(2) as threads:
        for time in range(1500):
            step["image"][:] = time % 251
            step["action"][:] = [time, -time]
            replay.add(step)
            if replay.windows:
                positions = replay.draw(4)
                pending.append(
                    (positions, threads.submit(replay.gather, positions))
                )
            if len(pending) > 6:
                check_window(*pending.pop(0))


def check_window(positions, future):
    batch = future.result(30)
    times = positions.start[:, None] + np.arange(16)
    sign = np.where(positions.env, -1, 1)[:, None]
    np.testing.assert_array_equal(batch["action"], times * sign)
    expected = np.broadcast_to(
        (times % 251)[..., None, None, None], batch["image"].shape
    )
    np.testing.assert_array_equal(batch["image"], expected)


def test_latents_are_not_torn_by_a_concurrent_write_back():
    latents = {"deter": ((200_000,), np.dtype(np.uint8))}
    replay = Replay(FIELDS, latents, 1, 8, 1, 3, seed=0, online=False)
    spec = {**FIELDS, **latents}
    for _ in range(8):
        replay.add(random_arrays(spec, (1,), 0) | {"deter": zeros(1)})
    everything = Positions(np.zeros(5, np.int64), np.arange(5))
    done = threading.Event()

    def refresh():
        for value in range(200):
            fresh = np.full((5, 3, 200_000), value, np.uint8)
            replay.write_back(everything, {"deter": fresh})
        done.set()

    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(refresh)
        while not done.is_set():
            deter = replay.gather(everything)["deter"][1:]
            assert (deter == deter[0, 0]).all()
        future.result(30)


def zeros(envs):
    return np.zeros((envs, 200_000), np.uint8)


def test_bad_steps_are_refused_whole():
    replay = make_replay(envs=2)
    step = random_step(2, 0)
    bad = {
        "replay field reward: got float64": step | {"reward": np.zeros(2)},
        "replay has no field extra": step | {"extra": np.zeros(2)},
        "replay field stoch is missing": {
            k: v for k, v in step.items() if k != "stoch"
        },
    }
    for message, values in bad.items():
        with pytest.raises(ValueError, match=message):
            replay.add(values)
    assert len(replay) == 0
    assert not replay._fields.arrays["image"].any()


def test_draw_without_a_complete_window_says_what_is_missing():
    replay = make_replay(envs=2, length=3)
    fill(replay, 3)
    with pytest.raises(ValueError, match=r"3 steps per environment; .* 4"):
        replay.draw(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"envs": 0}, "replay envs=0 must be >= 1"),
        ({"context": 0}, "replay context=0 must be >= 1"),
        ({"length": 0}, "replay length=0 must be >= 1"),
        ({"capacity": 3}, "replay capacity=6 must be >= 8"),
        ({"fields": {}}, "replay field is_first must be a scalar bool"),
        (
            {"latents": {"reward": ((), np.dtype(bool))}},
            "replay field reward is also a latent",
        ),
    ],
)
def test_arguments_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        make_replay(**change)


def test_forgotten_steps_are_gone_for_every_environment():
    replay, other = make_replay(), make_replay()
    fill(replay, 17)
    fill(other, 17)
    replay.forget(2 * 9)
    assert len(replay) == 2 * 8
    windows = contents(other)
    kept = {k: x for k, x in windows.items() if k[1] >= 9}
    assert contents(replay) == kept != windows
    assert list(replay._queue) == [x for x in other._queue if x[1] >= 9]
    replay.forget(2 * 99)
    assert len(replay) == replay.windows == 0
    fill(replay, 4, first_seed=17)
    assert replay.windows == 2


def test_a_cleared_replay_loads_as_an_empty_one_does(tmp_path):
    saved, other, empty = make_replay(), make_replay(seed=1), make_replay()
    fill(saved, 9)
    manifest = save(saved, tmp_path)
    fill(other, 17, first_seed=100)
    save(other, tmp_path)
    other.clear()
    assert len(other) == 0
    assert other.load(tmp_path, manifest) == 0
    empty.load(tmp_path, manifest)
    assert contents(other) == contents(empty) == contents(saved)
    for _ in range(4):
        drawn = [x.draw(3) for x in (other, empty)]
        np.testing.assert_array_equal(drawn[0].start, drawn[1].start)
    assert save(other, tmp_path)["files"] == manifest["files"]
