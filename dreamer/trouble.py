"""Errors that a retry may fix, unlike settings that are wrong.

Whoever starts runs tries again after the one, and gives up after the other:
`dreamer.train` has an exit code for each.
"""

import errno

from dreamer.options import ConfigError

# Of a disk that is full, ill or away, and of a machine that is overloaded.
PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE}
PASSING |= {errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN}
PASSING |= {errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN}


class PassingError(ConfigError):
    """What hinders a start now, such as a full disk; one line."""


def may_pass(error: OSError) -> bool:
    """Whether an error of the file system may be over the next time."""
    return error.errno in PASSING
