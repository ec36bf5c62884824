import errno
import os

import pytest

from dreamer.options import ConfigError
from dreamer.run.logdir import explained
from dreamer.settings import load
from dreamer.trouble import PassingError


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
    config = load(["--logdir", "here"])
    with pytest.raises(ConfigError) as caught, explained(config):
        raise OSError(number, os.strerror(number))
    assert isinstance(caught.value, PassingError) == passing
    assert str(caught.value) == f"logdir=here: {os.strerror(number)}"
