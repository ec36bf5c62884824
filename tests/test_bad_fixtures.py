"""Bad fixtures for scripts/fixture.py: damaged, incomplete, malicious.

Each ends with one line, exit code 2 and no file, or is compared; nothing is
unpickled or written. The comparison itself: tests/test_parity.py.
"""

import contextlib
import functools
import io
import json
import os
import random
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from scripts import parity
from tests.refusals import outcome

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "tests" / "data" / "tiny.npz"


@pytest.fixture(scope="module", autouse=True)
def here(tmp_path_factory):
    """A current folder of our own."""
    folder = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


class Payload:
    """Leaves a file behind wherever it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("ran",))


@functools.cache
def members():
    """The files inside the archive of a fixture, by name."""
    with zipfile.ZipFile(TINY) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path, contents):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def npy(array, allow_pickle=False):
    """The file of an array."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


@pytest.fixture(scope="module")
def compared():
    """Function from argv to an exit code, of a parity that compiles nothing.

    Update and acting step return zeros in the right shapes.
    """

    @functools.cache
    def zeros(function, *shapes):
        shapes = jax.tree.unflatten(*shapes)
        found = jax.eval_shape(function, *shapes)
        return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), found)

    def stand_in(function):
        def call(*args):
            shapes = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), args
            )
            leaves, tree = jax.tree.flatten(shapes)
            return zeros(function, tree, tuple(leaves))

        return call

    made = parity.make_agent

    @functools.cache
    def agent_of(config):
        agent = made(parity.Fixture({}, dict(config), {}))
        agent.update = stand_in(agent.update)
        agent.policy = stand_in(agent.policy)
        shapes = agent.state_shapes
        agent.init = lambda seed: jax.tree.map(
            lambda x: np.zeros(x.shape, x.dtype), shapes
        )
        return agent

    def make_agent(fixture):
        config = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in fixture.config.items()
        }
        return agent_of(tuple(config.items()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "make_agent", make_agent)
        precision = jax.config.jax_default_matmul_precision
        yield lambda argv: {1: 0}.get(code := parity.main(argv), code)
        jax.config.update("jax_default_matmul_precision", precision)


def test_a_whole_fixture_is_compared(compared):
    """So the other tests end where they should, and not before."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert compared([str(TINY)]) == 0
    assert "parity FAILED" in out.getvalue()


def other_array(array, rng):
    """An array that is not what it was."""
    kind = rng.randrange(9)
    if kind == 0:
        return array[..., None]
    if kind == 1:
        return array.reshape(-1)[:1]
    if kind == 2:
        return np.zeros((0, *array.shape), array.dtype)
    if kind == 3:
        return array.astype(rng.choice(["c16", "S8", "U8", "M8[s]", "V4"]))
    if kind == 4:
        return array.astype(rng.choice(["f2", "f8", "i8", "u2", ">f4", "?"]))
    if kind == 5:
        return np.zeros(array.shape, [("a", "f4"), ("b", "i4")])
    if kind == 6:
        return np.full_like(array, np.nan if array.dtype.kind == "f" else 99)
    if kind == 7:
        return np.repeat(array[None], 3, 0)
    return array.T


NO_JSON = ["", "{", "[1]", "3", "null", "[" * 50_000, '{"config": 1}', "\0"]
ODD = [
    None,
    "",
    "64",
    -1,
    0,
    1.5,
    1e300,
    10**30,
    [],
    [64],
    {},
    True,
    "x" * 999,
]


def other_meta(rng):
    """The dimensions with something wrong in them."""
    if rng.random() < 0.3:
        return rng.choice(NO_JSON)
    with np.load(TINY) as archive:
        meta = json.loads(str(archive["meta"]))
    part = meta[rng.choice(["config", "config", "init_std"])]
    key = rng.choice(list(part))
    if rng.random() < 0.3:
        del part[key]
    else:
        part[key] = rng.choice(ODD)
    if rng.random() < 0.1:
        meta[rng.choice(["config", "init_std"])] = rng.choice(ODD)
    return json.dumps(meta)


def mutate_fixture(path, rng):
    """A fixture with something wrong in it, and often not much."""
    contents = dict(members())
    name = rng.choice(list(contents))
    kind = rng.randrange(10)
    if kind == 0:
        packed(path, contents)
        whole = bytearray(path.read_bytes())
        for _ in range(rng.randint(1, 3)):
            whole[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(whole[: rng.choice([None, None, -1, 100, 0])])
        return
    if kind == 1:
        del contents[name]
    elif kind == 2:
        odd = ["../../ran.npy", "/ran.npy", "ran", "params/x.npy", "a\n.npy"]
        contents[rng.choice(odd)] = contents[name]
    elif kind == 3:
        contents[name] = contents[name][: rng.randrange(200)]
    elif kind == 4:
        header = bytearray(contents[name])
        header[rng.randrange(min(len(header), 128))] = rng.randrange(256)
        contents[name] = bytes(header)
    elif kind == 5:
        array = np.array([Payload()], object)
        contents[name] = npy(array, allow_pickle=True)
    elif kind in (6, 7):
        contents["meta.npy"] = npy(np.array(other_meta(rng)))
    else:
        array = np.load(io.BytesIO(contents[name]))
        contents[name] = npy(other_array(array, rng))
    packed(path, contents)


def test_mutated_fixtures(here, compared):
    rng = random.Random(0)
    path = here / "mine.npz"
    refused = 0
    for _ in range(100):
        mutate_fixture(path, rng)
        refused += bool(outcome("parity", compared, [str(path)], here))
    path.unlink()
    assert 50 < refused < 100
    assert not (here / "ran").exists()


def test_a_fixture_that_unpacks_to_more_than_there_is(
    here, compared, monkeypatch
):
    """Zeros are small in an archive; the header alone may promise as much."""
    path = here / "mine.npz"
    header = npy(np.zeros(1))[:128].replace(b"(1,)", b"(9999999999999,)")
    contents = members() | {"params/x.npy": header}
    packed(path, contents)
    assert outcome("parity", compared, [str(path)], here)
    monkeypatch.setattr("fixture.LARGEST", 2**20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("params/x.npy", bytes(2**20 + 1))
    line = outcome("parity", compared, [str(path)], here)
    assert "expected at most" in line
    path.unlink()


@pytest.mark.parametrize(
    "argv", [[], ["a", "b"], [""], ["\0"], ["--x"], ["."]]
)
def test_words_after_parity(argv, here, compared):
    assert outcome("parity", compared, argv, here)
