"""The system calls that the gate answers: one row a call, in the order of their x86-64 numbers, then those without.

Number, name, handler, parameters (``name:kind``, ``=default``, ``?`` optional), whether it may block, and a line of
help. ``help`` and the documentation are printed from this table.
"""

import errno

from synosfs.errors import SynosError
from synosfs.syscall_gate import (
    sys_file,
    sys_mq,
    sys_msg,
    sys_pipe,
    sys_poll,
    sys_posix_sem,
    sys_posix_shm,
    sys_process,
    sys_sem,
    sys_shm,
)
from synosfs.syscall_gate.kinds import shown, suggestion
from synosfs.syscall_gate.numbers import NAMES, NUMBERS
from synosfs.syscall_gate.spec import Row, row

# fmt: off
ROWS: tuple[Row, ...] = (
    row(0, "read", sys_file.sys_read, "fd:int size:size", blocks=True,
        help="up to size bytes of a pipe, FIFO, socket, file, or of 0, the caller's own input; 0 is end-of-file"),
    row(1, "write", sys_file.sys_write, "fd:int data:data", blocks=True,
        help="write all of it; EPIPE when nobody reads; with O_NONBLOCK what there is room for"),
    row(2, "open", sys_file.sys_open, "path:path flags:open_flags=0 mode:mode=0666", blocks=True,
        help="a FIFO of pipes/ by its name, else a path with a slash: ./data; a FIFO waits for its other end"),
    row(3, "close", sys_file.sys_close, "fd:int", help="give a descriptor back"),
    row(7, "poll", sys_poll.sys_poll, "what:polled", blocks=True,
        help="wait for any of 3:POLLIN msgq/0[@type]:POLLIN|POLLOUT sem/3.0:POLLIN; revents of each; 0 after timeout="),
    row(8, "lseek", sys_file.sys_lseek, "fd:int offset:long whence:whence=SEEK_SET", help="move a file's offset"),
    row(16, "ioctl", sys_file.sys_ioctl, "fd:int request:ioctl_request", help="FIONREAD: value= bytes to be read"),
    row(17, "pread64", sys_file.sys_pread64, "fd:int size:size offset:long", help="read at an offset"),
    row(18, "pwrite64", sys_file.sys_pwrite64, "fd:int data:data offset:long", help="write at an offset"),
    row(22, "pipe", sys_pipe.sys_pipe2, "flags:open_flags=0", help="a pipe: read= and write= are its two ends"),
    row(29, "shmget", sys_shm.sys_shmget, "key:key size:size flags:shm_get_flags=0",
        help="find or make a segment of memory; IPC_CREAT|IPC_EXCL|SHM_HUGETLB|SHM_NORESERVE|mode"),
    row(30, "shmat", sys_shm.sys_shmat, "shmid:int addr:address=0 flags:shm_flags=0",
        help="attach it to the caller: the address, see proc/<pid>/mem; SHM_RDONLY SHM_RND SHM_REMAP"),
    row(31, "shmctl", sys_shm.sys_shmctl, "shmid:int cmd:shm_command uid:uid? gid:uid? mode:mode?",
        help="IPC_STAT IPC_SET IPC_RMID IPC_INFO SHM_INFO SHM_STAT SHM_STAT_ANY SHM_LOCK SHM_UNLOCK"),
    row(32, "dup", sys_file.sys_dup, "fd:int", help="the lowest free number for the same open file"),
    row(33, "dup2", sys_file.sys_dup2, "fd:int newfd:int", help="this number for it, closing what newfd was"),
    row(35, "nanosleep", sys_process.sys_nanosleep, "tv_sec:seconds tv_nsec:long=0", blocks=True,
        help="sleep; tv_sec may have a fraction"),
    row(39, "getpid", sys_process.sys_getpid, help="the caller's process id"),
    row(53, "socketpair", sys_pipe.sys_socketpair, "flags:socket_flags=0",
        help="two ends, first= and second=, each to read and to write; SOCK_CLOEXEC SOCK_NONBLOCK"),
    row(63, "uname", sys_process.sys_uname, help="the names of the system"),
    row(64, "semget", sys_sem.sys_semget, "key:key nsems:int flags:get_flags=0 init:values?",
        help="find or make a set; init=1,2,3 gives the values of a new one, without a race"),
    row(65, "semop", sys_sem.sys_semop, "semid:int ops:operations", blocks=True,
        help="0:-1 takes, 0:+1 gives, 0:0 waits for zero; 0:-1:SEM_UNDO|IPC_NOWAIT; all ops or none"),
    row(66, "semctl", sys_sem.sys_semctl,
        "semid:int semnum:int cmd:sem_command value:values? uid:uid? gid:uid? mode:mode?",
        help="GETVAL SETVAL GETALL SETALL GETPID GETNCNT GETZCNT IPC_STAT IPC_SET IPC_RMID IPC_INFO SEM_INFO SEM_STAT"
        " SEM_STAT_ANY"),
    row(67, "shmdt", sys_shm.sys_shmdt, "addr:address", help="detach what is attached at this address"),
    row(68, "msgget", sys_msg.sys_msgget, "key:key flags:get_flags=0",
        help="find or make a message queue; flags IPC_CREAT|IPC_EXCL|mode"),
    row(69, "msgsnd", sys_msg.sys_msgsnd, "msqid:int mtype:long data:data flags:msg_flags=0", blocks=True,
        help="send a message; IPC_NOWAIT: EAGAIN when full"),
    row(70, "msgrcv", sys_msg.sys_msgrcv, "msqid:int size:size mtype:long=0 flags:msg_flags=0", blocks=True,
        help="receive; IPC_NOWAIT MSG_NOERROR MSG_EXCEPT MSG_COPY"),
    row(71, "msgctl", sys_msg.sys_msgctl, "msqid:int cmd:msg_command uid:uid? gid:uid? mode:mode? qbytes:long?",
        help="IPC_STAT IPC_SET IPC_RMID IPC_INFO MSG_INFO MSG_STAT MSG_STAT_ANY"),
    row(72, "fcntl", sys_file.sys_fcntl, "fd:int cmd:fcntl_command arg:fcntl_argument=0",
        help="F_DUPFD F_DUPFD_CLOEXEC F_GETFD F_SETFD F_GETFL F_SETFL F_GETPIPE_SZ F_SETPIPE_SZ"),
    row(77, "ftruncate", sys_posix_shm.sys_ftruncate, "fd:int length:long", help="set the size of a file or memory"),
    row(87, "unlink", sys_pipe.sys_unlink, "path:path", help="remove a FIFO of pipes/ by its name, else a path"),
    row(102, "getuid", sys_process.sys_getuid, help="the caller's real user id"),
    row(104, "getgid", sys_process.sys_getgid, help="the caller's real group id"),
    row(107, "geteuid", sys_process.sys_geteuid, help="the caller's effective user id"),
    row(108, "getegid", sys_process.sys_getegid, help="the caller's effective group id"),
    row(110, "getppid", sys_process.sys_getppid, help="the caller's parent"),
    row(115, "getgroups", sys_process.sys_getgroups, help="the caller's supplementary groups"),
    row(133, "mknod", sys_pipe.sys_mknod, "path:path mode:node_mode=S_IFIFO|0666 dev:long=0",
        help="make a FIFO; see mkfifo"),
    row(186, "gettid", sys_process.sys_gettid, help="the thread that opened the gate"),
    row(220, "semtimedop", sys_sem.sys_semtimedop, "semid:int ops:operations timeout:timeout?", blocks=True,
        help="semop, and EAGAIN after timeout= seconds"),
    row(228, "clock_gettime", sys_process.sys_clock_gettime, "clockid:clock", help="CLOCK_REALTIME, CLOCK_MONOTONIC"),
    row(240, "mq_open", sys_mq.sys_mq_open,
        "name:name flags:posix_flags=O_RDONLY mode:mode=0600 maxmsg:long? msgsize:long?",
        help="open /name; O_RDONLY O_WRONLY O_RDWR O_CREAT O_EXCL O_NONBLOCK; the most messages, the bytes of each"),
    row(241, "mq_unlink", sys_mq.sys_mq_unlink, "name:name", help="remove the name; who has it open goes on"),
    row(242, "mq_timedsend", sys_mq.sys_mq_timedsend,
        "mqd:object data:data priority:uid=0 abs_sec:long? abs_nsec:long?", blocks=True,
        help="mq_send, and ETIMEDOUT at abs_sec=, abs_nsec= of CLOCK_REALTIME, or after timeout="),
    row(243, "mq_timedreceive", sys_mq.sys_mq_timedreceive,
        "mqd:object size:size? abs_sec:long? abs_nsec:long?", blocks=True,
        help="mq_receive, and ETIMEDOUT at abs_sec=, abs_nsec= of CLOCK_REALTIME, or after timeout="),
    row(244, "mq_notify", sys_mq.sys_mq_notify, "mqd:object sigev_notify:notification=SIGEV_THREAD",
        help="event=N can be read once a message has come to the empty queue; SIGEV_NONE; NULL ends it"),
    row(245, "mq_getsetattr", sys_mq.sys_mq_getsetattr, "mqd:object mq_flags:posix_flags?",
        help="the attributes; mq_flags sets O_NONBLOCK, or clears it when 0"),
    row(292, "dup3", sys_file.sys_dup3, "fd:int newfd:int flags:open_flags=0", help="dup2 with O_CLOEXEC"),
    row(293, "pipe2", sys_pipe.sys_pipe2, "flags:open_flags=0", help="O_CLOEXEC O_NONBLOCK O_DIRECT (packets)"),
    row(None, "mkfifo", sys_pipe.sys_mkfifo, "path:path mode:mode=0666",
        help="make a FIFO in pipes/ by a name, or elsewhere by a path with a slash"),
    row(None, "mq_send", sys_mq.sys_mq_send, "mqd:object data:data priority:uid=0", blocks=True,
        help="send a message of a priority from 0 to 32767"),
    row(None, "mq_receive", sys_mq.sys_mq_receive, "mqd:object size:size?", blocks=True,
        help="receive the oldest message of the highest priority; size is at least msgsize"),
    row(None, "mq_getattr", sys_mq.sys_mq_getattr, "mqd:object", help="flags, maxmsg, msgsize, curmsgs"),
    row(None, "mq_setattr", sys_mq.sys_mq_getsetattr, "mqd:object mq_flags:posix_flags",
        help="set O_NONBLOCK, or clear it when 0; answers what was before"),
    row(None, "sem_open", sys_posix_sem.sys_sem_open, "name:name flags:posix_flags=0 mode:mode=0600 value:uid=0",
        help="open the semaphore /name; O_CREAT O_EXCL"),
    row(None, "sem_close", sys_posix_sem.sys_sem_close, "sem:int", help="close it"),
    row(None, "sem_unlink", sys_posix_sem.sys_sem_unlink, "name:name", help="remove the name; who has it open goes on"),
    row(None, "sem_wait", sys_posix_sem.sys_sem_wait, "sem:object", blocks=True, help="take one, waiting for it"),
    row(None, "sem_trywait", sys_posix_sem.sys_sem_trywait, "sem:object", help="take one, or EAGAIN"),
    row(None, "sem_timedwait", sys_posix_sem.sys_sem_timedwait,
        "sem:object abs_sec:long? abs_nsec:long?", blocks=True,
        help="sem_wait, and ETIMEDOUT at abs_sec=, abs_nsec= of CLOCK_REALTIME, or after timeout="),
    row(None, "sem_post", sys_posix_sem.sys_sem_post, "sem:object", help="give one"),
    row(None, "sem_getvalue", sys_posix_sem.sys_sem_getvalue, "sem:object", help="how many there are now"),
    row(None, "shm_open", sys_posix_shm.sys_shm_open, "name:name flags:posix_flags=O_RDONLY mode:mode=0600",
        help="open the shared memory /name; O_RDONLY O_RDWR O_CREAT O_EXCL O_TRUNC; then ftruncate, read, write"),
    row(None, "shm_unlink", sys_posix_shm.sys_shm_unlink, "name:name", help="remove the name; who has it open goes on"),
    row(None, "ftok", sys_shm.sys_ftok, "path:data id:int",
        help="a key made of a file, by a path as the caller sees it, and a number"),
)
# fmt: on

#: The calls whose business is interprocess communication, for ``ipc_calls`` in ``stats``.
IPC_HANDLERS = tuple(
    family.__name__ for family in (sys_mq, sys_msg, sys_pipe, sys_posix_sem, sys_posix_shm, sys_sem, sys_shm, sys_file)
)

_BY_NAME = {row.name: row for row in ROWS}
_BY_CALL: dict[str | int, Row] = {key: row for row in ROWS for key in (row.name, row.number) if key is not None}


def find(call: str | int) -> Row:
    """The row of a call by name or number. ENOSYS, by name, for what is unknown or not built."""
    try:
        return _BY_CALL[call]
    except KeyError:
        raise SynosError(errno.ENOSYS, _unknown(call)) from None


def is_ipc(row: Row) -> bool:
    return row.handler.__module__ in IPC_HANDLERS


def _unknown(call: str | int) -> str:
    if isinstance(call, int):
        name = NAMES.get(call)
        return f"{name} ({call}) is not built" if name else f"no call has number {call}"
    if call in NUMBERS:
        return f"{call} is not built; cat help lists the calls that are"
    return f"no call is named {shown(call)}{suggestion(call, _BY_NAME)}"
