"""What goes into the log: on one line each, and the same thing once a second at most.

Messages repeat what callers wrote (names, paths), and callers can make the daemon say a thing as often as they like.
"""

import logging
import time

from synosfs.errors import printable

#: So many different messages are remembered.
_MOST = 256


class Sober(logging.Filter):
    """For a handler. What is said again within ``quiet_s`` is left out, and how often that was stands behind it when it
    is said next. Messages are the same when their text is before the arguments are put in.
    """

    def __init__(self, quiet_s: float = 1.0) -> None:
        super().__init__()
        self._quiet_s = quiet_s
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.name, str(record.msg))
        now = time.monotonic()
        last, left_out = self._said.get(key, (-self._quiet_s, 0))
        if now - last < self._quiet_s:
            self._said[key] = last, left_out + 1
            return False
        if len(self._said) >= _MOST:
            self._said.clear()
        self._said[key] = now, 0
        again = f" ({left_out} more since it was last said)" if left_out else ""
        record.msg, record.args = printable(record.getMessage()) + again, ()
        return True
