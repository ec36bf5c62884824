import errno
import os
from dataclasses import replace

import pytest

from dreamer.options import ConfigError
from dreamer.run.logdir import explained, look
from dreamer.settings import load, save
from dreamer.trouble import PassingError

FILE = "config.yaml"


@pytest.mark.parametrize(
    ("number", "passing"),
    [
        (errno.ENOSPC, True),
        (errno.EDQUOT, True),
        (errno.EIO, True),
        (errno.ESTALE, True),
        (errno.EMFILE, True),
        (errno.EACCES, False),
        (errno.ENOTDIR, False),
        (errno.EROFS, False),
        (errno.ENAMETOOLONG, False),
    ],
)
def test_what_may_pass_is_told_from_what_will_not(number, passing):
    config = load(["--logdir", "/here"])
    with pytest.raises(ConfigError) as caught, explained(config):
        raise OSError(number, os.strerror(number))
    assert isinstance(caught.value, PassingError) == passing
    assert str(caught.value) == f"logdir=/here: {os.strerror(number)}"


def test_a_run_may_have_been_made_where_nobody_can_look(tmp_path):
    (tmp_path / "file").write_text("")
    gone = load(["--logdir", str(tmp_path / "run")])
    here = tmp_path / "run"
    here.mkdir()
    save(replace(gone, logdir=str(tmp_path / "file" / "run")), here / FILE)
    look(gone)
    with pytest.raises(ConfigError, match="seed"):
        look(load(["--logdir", str(here), "--seed", "1"]))
