"""Updates owed per policy step, and train_ratio in every unit."""

import json
import subprocess
import sys
from fractions import Fraction

import pytest

from dreamer.ratio import Ratio, main
from dreamer.settings import load
from dreamer.train_ratio import (
    UNITS,
    exact,
    expected_updates,
    first_full_step,
    schedule,
    updates_owed,
)


def flags(text):
    return load(text.split())


def program(text):
    main(text.split())


def recursion(ratio, steps):
    """The rule as it is stated, in rational arithmetic."""
    prev, given = None, []
    for step in steps:
        if prev is None:
            prev, owed = Fraction(step), 1
        else:
            owed = int((step - prev) * ratio)
            prev += owed / ratio
        given.append(owed)
    return given


def test_zero_never_trains():
    ratio = Ratio(0)
    assert [ratio(step) for step in range(5)] == [0] * 5


def test_negative_trains_once_at_every_call():
    ratio = Ratio(-3.5)
    assert [ratio(step) for step in (0, 0, 7, 100)] == [1, 1, 1, 1]


def test_below_one():
    ratio = Ratio(0.25)
    assert [ratio(s) for s in range(10, 20)] == [1, 0, 0, 0, 1, 0, 0, 0, 1, 0]


def test_one():
    ratio = Ratio(1)
    assert [ratio(step) for step in range(5)] == [1, 1, 1, 1, 1]


def test_above_one_and_gaps():
    ratio = Ratio(2.5)
    assert [ratio(step) for step in (0, 1, 2, 4, 4)] == [1, 2, 3, 5, 0]


def test_the_first_call_anchors():
    ratio = Ratio(0.5)
    assert ratio(1000) == 1
    assert [ratio(1001), ratio(1002)] == [0, 1]


@pytest.mark.parametrize(
    "value", [0.1, 1 / 3, 0.3, 0.7, 1e-4, 2.2, 32 / 1024, 3.141592653589793]
)
def test_a_million_steps_without_drift(value):
    ratio = Ratio(value)
    given = sum(ratio(step) for step in range(5, 1_000_006))
    simple = Fraction(value).limit_denominator(10**6)
    assert given == 1 + int(1_000_000 * simple)


@pytest.mark.parametrize("value", ["1/10", "1/3", "7/3", "3/1024", "1", "40"])
def test_equals_the_rule_in_rational_arithmetic(value):
    steps = [3, 4, 5, 5, 9, 10, 11, 12, *range(13, 3000), 10**7, 10**7 + 1]
    ratio = Ratio(float(Fraction(value)))
    asked = [ratio(step) for step in steps]
    assert asked == recursion(Fraction(value), steps)


@pytest.mark.parametrize("value", [0.0, -1.0, 0.1, 1 / 3, 1.0, 2.7])
@pytest.mark.parametrize("cut", [0, 1, 50])
def test_goes_on_after_a_checkpoint(value, cut):
    whole = Ratio(value)
    expected = [whole(step) for step in range(100)]
    first = Ratio(value)
    begun = [first(step) for step in range(cut)]
    second = Ratio(value)
    second.restore(json.loads(json.dumps(first.state())))
    assert begun + [second(step) for step in range(cut, 100)] == expected


def test_another_ratio_cannot_be_restored():
    with pytest.raises(ValueError, match=r"ratio=1/4.*is 1/8"):
        Ratio(0.25).restore(Ratio(0.125).state())
    for text in ("1/0", "1e99999999999", "x", None):
        with pytest.raises(ValueError, match=f"saved one is {text}"):
            Ratio(0.25).restore(Ratio(0.25).state() | {"ratio": text})


def test_steps_do_not_go_back():
    ratio = Ratio(1)
    ratio(5)
    ratio(9)
    with pytest.raises(ValueError, match="step=8"):
        ratio(8)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_ratio_is_finite(value):
    with pytest.raises(ValueError, match="finite"):
        Ratio(value)


def test_floats_stand_for_the_fractions_they_were_made_from():
    assert exact(0.1) == Fraction(1, 10)
    assert exact(-1 / 3) == Fraction(-1, 3)
    assert exact(256) == 256
    assert exact(1e-4) == Fraction(1, 10**4)
    for value in (0.1 + 0.2, 1e300, 5e-324, 123456.789, -0.0):
        assert float(exact(value)) == value


def test_updates_owed_of_the_benchmarks():
    assert updates_owed(256.0, 1024) == Fraction(1, 4)
    assert updates_owed(32.0, 1024) == Fraction(1, 32)
    assert updates_owed(0.1, 30) == Fraction(1, 300)


def test_first_full_step_is_when_there_are_enough_windows():
    def windows(steps, envs, window):
        return envs * max(0, steps // envs - window + 1)

    for envs, batch, window in ((1, 1024, 65), (16, 1024, 65), (3, 7, 4)):
        step = first_full_step(envs, batch, window)
        assert windows(step, envs, window) >= batch
        assert windows(step - envs, envs, window) < batch


@pytest.mark.parametrize("envs", [1, 3, 16])
@pytest.mark.parametrize("value", ["-1", "0", "1/3", "1", "5/2"])
def test_expected_updates_are_those_that_ratio_gives(envs, value):
    ratio, first = Ratio(Fraction(value)), 2 * envs + 1
    given, taken = 0, 0
    while taken < 1000:
        taken += envs
        asked = range(max(first, taken - envs + 1), taken + 1)
        given += sum(ratio(step) for step in asked)
    assert expected_updates(1000, envs, Fraction(value), first) == given


def test_expected_updates_of_a_run_that_ends_early():
    for ratio in (Fraction(-1), Fraction(0), Fraction(1)):
        assert expected_updates(100, 1, ratio, 101) == 0


def test_atari100k_in_every_unit():
    plan = schedule(load(["--configs", "atari100k"]))
    assert plan.updates_per_step == Fraction(1, 4)
    assert plan.updates_per_frame == Fraction(1, 16)
    assert plan.replay_ratio == 256
    assert plan.replay_ratio_frames == 64
    assert plan.first_step == 1024 + 64
    assert plan.total_updates == 1 + (110_000 - 1088) // 4


def test_atari200m_in_every_unit():
    plan = schedule(load(["--configs", "atari200m"]))
    assert plan.updates_per_step == Fraction(1, 32)
    assert plan.updates_per_frame == Fraction(1, 128)
    assert plan.replay_ratio_frames == 8
    # 16 streams of 64 windows each; the first of their 16 steps is asked for.
    assert plan.first_step == 16 * (64 + 64) - 15
    assert plan.total_updates == pytest.approx(51e6 / 32, rel=1e-4)


def test_negative_and_zero_ratios_in_every_unit():
    plan = schedule(flags("--configs atari100k --run.train_ratio -2"))
    assert plan.updates_per_step == 1
    assert plan.replay_ratio == 1024
    assert plan.total_updates == 110_000 - 1088 + 1
    plan = schedule(flags("--configs atari100k --run.train_ratio 0"))
    assert plan.replay_ratio == plan.updates_per_frame == 0
    assert plan.total_updates == 0


@pytest.mark.parametrize("unit", UNITS)
def test_units_convert_into_train_ratio(unit):
    plan = schedule(load(["--configs", "atari100k"]))
    names = {"train_ratio": "replay_ratio"}
    amount = Fraction(getattr(plan, names.get(unit, unit)))
    found = plan.train_ratio_for(unit, amount)
    assert float(found) == pytest.approx(256, rel=1e-4)


@pytest.mark.parametrize("total", [0, 1, 2, 777, 10_000, 27_229])
def test_total_updates_are_met_by_what_is_printed(total, capsys):
    main(["--configs", "atari100k", "--total_updates", str(total)])
    flag = capsys.readouterr().out.split("--run.train_ratio ")[1].strip()
    plan = schedule(
        load(["--configs", "atari100k", "--run.train_ratio", flag])
    )
    assert plan.total_updates == total


def test_what_is_printed_means_what_the_table_says(capsys):
    settings = ["--configs", "atari100k"]
    main([*settings, "--updates_per_step", "1/3"])
    out = capsys.readouterr().out
    flag = out.split("--run.train_ratio ")[1].strip()
    found = schedule(load([*settings, "--run.train_ratio", flag]))
    assert rows(out)["total updates"][0] == f"{found.total_updates:,}"


def rows(text):
    lines = [line.rsplit(maxsplit=2) for line in text.splitlines()]
    return {line[0].strip(): line[1:] for line in lines if len(line) == 3}


def test_program_explains_a_preset_beside_the_paper(capsys):
    main(["--configs", "atari100k"])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 79
    found = rows(out)
    assert found["train_ratio"] == ["256", "128"]
    assert found["replay ratio, in policy steps"] == ["256", "128"]
    assert found["replay ratio, in frames"] == ["64", "32"]
    assert found["updates per policy step"] == ["0.25", "0.125"]
    assert found["updates per frame"] == ["0.0625", "0.03125"]
    assert found["total updates"] == ["27,229", "13,615"]
    assert "one update every 4 policy steps = 16 frames" in " ".join(
        out.split()
    )


def test_program_takes_settings_and_units(capsys):
    program("--updates_per_frame=1/8 --configs atari100k --batch_size 8")
    out = capsys.readouterr().out
    assert rows(out)["train_ratio"] == ["256", "128"]
    assert rows(out)["updates per policy step"] == ["0.5", "0.25"]
    main(["--help"])
    out = capsys.readouterr().out
    assert all(f"--{unit} " in out for unit in UNITS)


def test_program_has_no_paper_for_other_tasks(capsys):
    program("--task gym_CartPole-v1 --run.train_ratio -1")
    out = capsys.readouterr().out
    assert "the paper\n" not in out
    assert "one update every policy step" in " ".join(out.split())


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        ("--updates_per_step x", "--updates_per_step=x: expected a number"),
        ("--updates_per_step", "--updates_per_step=: expected a number"),
        ("--updates_per_step -1", "expected a number >= 0"),
        ("--updates_per_step 1/0", "expected a number >= 0"),
        ("--updates_per_step 1 --total_updates 2", "besides"),
        ("--updates_per_step 1 --run.train_ratio=2", "besides"),
        ("--total_updates 1.5", "expected a whole number"),
        ("--total_updates 5 --run.steps 50", "total_updates=5: expected 0"),
        ("--update_per_step 1", "unknown setting"),
    ],
)
def test_program_refuses(argv, part, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv.split())
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert part in err


def test_program_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "dreamer.ratio", "--configs", "atari200m"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert rows(done.stdout)["train_ratio"] == ["32", "32"]
