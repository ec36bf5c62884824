import socket
import zlib

import jax
import numpy as np
import pytest

from dreamer.options import ConfigError
from dreamer.run.peers import ALONE, Peers
from dreamer.settings import load


def config(*flags):
    return load(["--configs", "atari100k", "--run.envs", "4", *flags])


def test_alone_everything_is_as_it_was(tmp_path):
    whole = config()
    assert ALONE.leads
    assert ALONE.share(whole) is whole
    assert str(ALONE.folder(tmp_path)) == str(tmp_path)
    assert ALONE.any(True, False) == [True, False]
    np.testing.assert_array_equal(ALONE.gather(np.array([3])), [[3]])


def test_a_share_is_a_part_of_everything(tmp_path):
    whole = config()
    shares = [Peers(index, 2).share(whole) for index in range(2)]
    for share in shares:
        assert share.run.envs == 2
        assert share.batch_size == 8
        assert share.run.steps == whole.run.steps // 2
        assert share.replay.size == whole.replay.size // 2
        assert share.agent == whole.agent
    assert shares[0].seed == whole.seed != shares[1].seed
    assert Peers(1, 2).share(whole) == shares[1]
    folders = {Peers(index, 2).folder(tmp_path) for index in range(2)}
    assert folders == {tmp_path, tmp_path / "processes" / "1"}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--run.envs", "5"], "run.envs=5: expected a multiple of the 3"),
        (
            ["--run.envs", "3", "--batch_size", "16"],
            "batch_size=16: expected a multiple of the 3",
        ),
    ],
)
def test_what_cannot_be_divided(flags, said):
    whole = load(["--configs", "atari100k", *flags])
    with pytest.raises(ConfigError, match=said):
        Peers(1, 3).share(whole)


class Three(Peers):
    """Of three; the others' values are given."""

    def gather(self, values):
        others = [np.resize(x, values.shape) for x in self.others]
        return np.stack([values, *others])


@pytest.fixture
def three():
    return Three(0, 3)


def with_others(peers, *others):
    object.__setattr__(peers, "others", [np.array(x) for x in others])
    return peers


def test_rows_of_all_come_together(three):
    nothing = [[np.nan, np.nan]] * 2
    peers = with_others(three, nothing, [[1.5, 7.0], [np.nan, np.nan]])
    assert peers.concatenate([(-2.25, 3)], 2) == [(-2.25, 3), (1.5, 7)]
    assert ALONE.concatenate([(-2.25, 3)], 2) == [(-2.25, 3)]


def test_the_newest_checkpoint_that_all_have(three):
    # One was killed before it had written its last.
    peers = with_others(three, [100, 200], [200, 300])
    assert peers.common([200, 300], began=True) == [200]
    assert peers.common({300, 200, 100}, began=True) == [200]
    assert with_others(three, [-1, -1], [-1, -1]).common([], began=True) == []
    assert ALONE.common([100, 300, 200], began=True) == [300, 200, 100]
    assert ALONE.common([], began=True) == []


def test_checkpoints_of_fewer_processes_are_refused(three):
    peers = with_others(three, [100, 200], [-1, -1])
    with pytest.raises(ConfigError) as error:
        peers.common([100, 200], began=True)
    assert str(error.value) == (
        "jax.processes=3: process 2 has no checkpoint, though others have; go"
        " on with as many processes as began and the same logdir, or use"
        " another one"
    )


def test_no_checkpoint_in_common_is_refused_by_what_there_is(three):
    peers = with_others(three, [154, 216], [216, 340])
    with pytest.raises(ConfigError) as error:
        peers.common([468, 340], began=True)
    assert str(error.value) == (
        "jax.processes=3: no checkpoint is of all processes (process 0: 340,"
        " 468; process 1: 154, 216; process 2: 216, 340); use another logdir"
    )


def test_each_process_draws_with_a_key_of_its_own():
    key = jax.random.key(3)
    assert ALONE.own_key(key) is key
    keys = [Peers(index, 3).own_key(key) for index in range(3)]
    assert len({tuple(jax.random.key_data(x).tolist()) for x in keys}) == 3


def test_processes_of_one_host_share_its_ram(three, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "a")
    here, there = zlib.crc32(b"a"), zlib.crc32(b"b")
    assert with_others(three, here, there).sharing() == 2
    assert with_others(three, there, there).sharing() == 1
    assert ALONE.sharing() == 1


def test_who_has_a_flag_up(three):
    assert with_others(three, False, True).who(False) == [2]
    assert ALONE.who(False) == []
    assert ALONE.who(True) == [0]
