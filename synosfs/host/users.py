"""Users by name: passwd(5), or whatever else the host has for it (nsswitch.conf(5))."""

import pwd
from errno import EINVAL

from synosfs.errors import SynosError, shown


def uid_blocking(name: str) -> int:
    """The id of a user. EINVAL: there is none of the name. The host may ask a server."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise SynosError(EINVAL, f"no user is named {shown(name)}") from None
