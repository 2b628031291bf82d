"""What ``_msgwatch.c`` has."""

def await_message(msqid: int, mtype: int, flags: int, /) -> int:
    """Sleep until a message is there. 0: it still is; else the mtype of an empty one that was taken, and could not be
    sent back at once. OSError as of msgrcv(2).
    """
