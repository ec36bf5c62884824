"""Films of dreams: made beside a run, and never in its way."""

import dataclasses
import functools
import io
from concurrent.futures import Future

import av
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dreamer.agent.dream import dream
from dreamer.config import Config
from dreamer.replay import Replay
from dreamer.run import dreams as dreams_module
from dreamer.run.dreams import Dreams, forget_after
from dreamer.run.driver import replay_fields
from tests.agent.tiny import BUTTONS, MIXED, VECTOR, awake, draw, tiny_agent
from tests.run.logs import events, make

LENGTH = 8
HIGH, WIDE = 6 * 16 + 4, 3 * 20  # of a GIF


@pytest.fixture(scope="module")
def agent():
    return tiny_agent(MIXED, BUTTONS)


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """One program serves all tests, and is compiled fast."""
    programs = {}
    quick = "jax_disable_most_optimizations"

    class Once:
        def __init__(self, *args):
            self.args = args

        def compile(self):
            agent = self.args[0]
            if agent not in programs:
                programs[agent] = dream.lower(*self.args).compile()
            return programs[agent]

    with pytest.MonkeyPatch.context() as patch:
        jitted = type("Jitted", (), {"lower": staticmethod(Once)})
        patch.setattr(dreams_module, "dream", jitted)
        jax.config.update(quick, True)
        yield
        jax.config.update(quick, False)


def filled(agent, steps=30):
    """A replay of random steps of two environments."""
    fields = replay_fields(agent.obs_spaces, agent.action_space)
    size = dict(envs=2, capacity=40, context=1, length=LENGTH, seed=0)
    replay = Replay(fields, agent.latents, **size)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        step = {k: draw(s, (2,), rng) for k, s in agent.obs_spaces.items()}
        step["action"] = draw(agent.action_space, (2,), rng)
        for key, (shape, dtype) in (fields | agent.latents).items():
            step.setdefault(key, np.zeros((2, *shape), dtype))
        replay.add(step)
    return replay


@functools.cache
def params_of(agent):
    return awake(agent.init(0).params)


class Studio:
    """A run's dreams, and what they are made of; films by the microsecond."""

    def __init__(self, agent, logdir, every=1e-6, seed=0, **replay):
        run = dataclasses.replace(Config().run, report_every=every)
        config = dataclasses.replace(
            Config(), logdir=str(logdir), seed=seed, run=run
        )
        logdir.mkdir(exist_ok=True)
        self.logdir = logdir
        self.logger = make(logdir, ("jsonl", "tensorboard"))
        self.params = jax.tree.map(jnp.array, params_of(agent))
        replay = filled(agent, **replay)
        self.dreams = Dreams(agent, replay, self.logger, config, updates=0)

    def last(self, updates, frames=0):
        self.dreams.last(self.params, updates, frames)

    def turn(self, updates, frames=0):
        self.dreams.turn(self.params, updates, frames)

    def films(self):
        return sorted(x.name for x in self.logdir.glob("videos/*"))

    def images(self):
        """What TensorBoard gets: (step, tag, image)."""
        return [
            (event.step, value.tag, value.image)
            for event in events(self.logdir)
            for value in event.summary.value
            if value.HasField("image")
        ]


def test_both_films_in_the_logdir_and_in_tensorboard(agent, tmp_path):
    studio = Studio(agent, tmp_path)
    studio.last(updates=3, frames=1200)
    names = ["imagined-000000001200.mp4", "open_loop-000000001200.mp4"]
    assert studio.films() == names
    for name in names:
        with av.open(str(tmp_path / "videos" / name)) as film:
            assert len(list(film.decode(video=0))) == LENGTH
    images = {tag: image for step, tag, image in studio.images()}
    assert {step for step, _, _ in studio.images()} == {1200}
    assert images.keys() == {
        "report/openloop/camera+depth",
        "report/imagined/camera+depth",
    }
    image = images["report/openloop/camera+depth"]
    with Image.open(io.BytesIO(image.encoded_image_string)) as gif:
        assert gif.format == "GIF"
        assert gif.size == (image.width, image.height) == (WIDE, HIGH)
        assert gif.n_frames == LENGTH
    assert not (tmp_path / "metrics.jsonl").exists()
    assert studio.dreams.reports == []


def test_numbers_below_the_images_are_short():
    captions = [
        dreams_module._caption(*x)
        for x in ((0.126, -1e-9, 0.5), (-999.99, 23695.5, 1), (1e6, -4.9e8, 0))
    ]
    assert captions == [
        "reward +0.13\nvalue +0.00\nends 50%",
        "reward -999.99\nvalue +23696\nends 100%",
        "reward +1.0e+06\nvalue -4.9e+08\nends 0%",
    ]


def test_seed_and_updates_decide_what_is_filmed(agent, tmp_path):
    def gif(name, seed, updates):
        studio = Studio(agent, tmp_path / name, seed=seed)
        studio.last(updates)
        return [image.encoded_image_string for _, _, image in studio.images()]

    first = gif("a", 0, 5)
    assert gif("b", 0, 5) == first
    assert gif("c", 0, 6) != first
    assert gif("d", 1, 5) != first


def test_turns_do_not_wait(agent, tmp_path, monkeypatch):
    """Neither for a compiler nor for the film."""
    started = []

    def start(name, function, *args):
        started.append((name, function, args, Future()))
        return started[-1][-1]

    monkeypatch.setattr(dreams_module.threads, "start", start)
    studio = Studio(agent, tmp_path)
    studio.turn(0)
    assert started == []  # no update yet
    for _ in range(3):
        studio.turn(1, frames=4)
    for number in range(2):
        assert [x[0] for x in started] == ["compile", "dream"][: number + 1]
        _, function, args, future = started[number]
        future.set_result(function(*args))
        for _ in range(3):
            studio.turn(1, frames=4)
    assert len(started) == 2  # and no film of the same parameters again
    assert [step for step, _, _ in studio.images()] == [4, 4]
    studio.turn(2, frames=8)
    assert len(started) == 3


def test_parameters_may_be_given_away_at_once(agent, tmp_path):
    studio, other = (Studio(agent, tmp_path / x) for x in "ab")
    for one in (studio, other):
        one.turn(1)
        one.dreams._program.result()
        one.turn(1)
        if one is studio:
            jax.jit(
                lambda x: jax.tree.map(lambda y: 0 * y, x), donate_argnums=0
            )(one.params)
        one.dreams.close()
        one.turn(1)
    seen = [
        [x.encoded_image_string for _, _, x in one.images()]
        for one in (studio, other)
    ]
    assert len(seen[0]) == 2
    assert seen[0] == seen[1]


@pytest.mark.parametrize("every", [0, 1e9])
def test_never_before_it_is_time(agent, tmp_path, every):
    studio = Studio(agent, tmp_path, every)
    studio.turn(1)
    assert studio.dreams._program is None
    studio.last(1)
    assert bool(studio.films()) == (every > 0)
    assert studio.dreams.reports == []


def test_nothing_new_to_film(agent, tmp_path):
    studio = Studio(agent, tmp_path)
    studio.last(0)
    studio.turn(0)
    empty = Studio(agent, tmp_path, steps=LENGTH)
    empty.last(1)
    assert studio.films() == []
    assert studio.dreams.reports == empty.dreams.reports == []


def test_without_images_it_says_so_once(tmp_path):
    studio = Studio(tiny_agent(VECTOR), tmp_path)
    studio.last(1)
    studio.last(2)
    assert studio.films() == []
    (line,) = studio.dreams.reports
    assert "no observation is an image" in line
    assert Studio(tiny_agent(VECTOR), tmp_path, 0).dreams.reports == []


def test_a_disk_that_fails_is_said_once(agent, tmp_path):
    studio = Studio(agent, tmp_path)
    (tmp_path / "videos").write_bytes(b"a file in the way")
    studio.last(1)
    studio.last(2)
    (line,) = studio.dreams.reports
    assert line.startswith("No video this time: ")
    assert "\n" not in line
    assert studio.images() == []
    (tmp_path / "videos").unlink()
    studio.last(3)
    assert len(studio.films()) == 2
    (tmp_path / "videos").rename(tmp_path / "elsewhere")
    (tmp_path / "videos").write_bytes(b"again")
    studio.last(4)
    assert len(studio.dreams.reports) == 2


def test_a_compiler_that_fails_is_said_once(agent, tmp_path, monkeypatch):
    class Broken:
        @staticmethod
        def lower(*args):
            raise RuntimeError("RESOURCE_EXHAUSTED:\n out of memory")

    monkeypatch.setattr(dreams_module, "dream", Broken)
    studio = Studio(agent, tmp_path)
    studio.last(1)
    studio.last(2)
    assert studio.dreams.reports == [
        "No video this time: RESOURCE_EXHAUSTED: out of memory"
    ]


def test_a_resumed_run_forgets_later_films(tmp_path):
    videos = tmp_path / "videos"
    forget_after(tmp_path, 0)  # nothing there yet
    videos.mkdir()
    kept = [
        "open_loop-000000000040.mp4",
        "imagined-000000000040.mp4",
        "eval-000000000099-sample-000.mp4",
        "my_open_loop-000000000099.mp4",
        "open_loop-best.mp4",
    ]
    gone = [
        "open_loop-000000000041.mp4",
        "imagined-1000000000000.mp4",
        "imagined-000000000040.mp4.partial",
    ]
    for name in (*kept, *gone):
        (videos / name).touch()
    forget_after(tmp_path, 40)
    assert sorted(x.name for x in videos.iterdir()) == sorted(kept)
