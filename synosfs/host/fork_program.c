/*
 * The program whose children wait to become others: fork(2) and execve(2) for SynOS processes.
 *
 * process/forks.py starts one for each user and orders from it. It is a program of its own because the daemon has
 * threads: what such a process forks may do next to nothing (fork(2), NOTES). It is small, and in C, because a fork
 * copies what the forking process has: this one's children cost a fifth of an interpreter's.
 *
 * On its standard input, a socket, it is told what to do, an order a message; on its standard output it tells what
 * becomes of its children (struct event). Each child has a socket of its own to the daemon, and answers each order there
 * (struct answer, and what it was doing). To become another program has no answer but the end of the socket, which is
 * close-on-exec. When the daemon is gone, however it went, all sockets end, and with them this program and every child
 * that still waits.
 *
 * The order to fork has three descriptors: the child's end of that socket, the pidfd of the process that forks, and an
 * eventfd where the child leaves its pid. It says what the child is to become, and goes on with its first order: it has
 * all that it needs when it is born. Without a first order it answers that it has become that.
 *
 * An order is words, each ended by a byte 0, numbers in decimal. They are the message, behind an 'i'; or a file in
 * memory, the first of its descriptors, behind an 'm': they can be as long as a command line can.
 *
 * Orders come from the daemon and are well formed; nothing else reaches a child. Once it has become that, a child is its
 * user's, who may do with it as with any process of theirs: the daemon believes none of its answers.
 */

#define _GNU_SOURCE
#include "heritage.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ORDERS 0
#define EVENTS 1

/* SCM_MAX_FD: those of an order, what comes with the order to fork, and the file of a long one. */
#define MOST_FDS 253
#define MOST_BYTES 65536

/* No number that a SynOS process has is higher: process/descriptors.py. */
#define MOST_DESCRIPTORS 1024

/* With no code (CLD_*) it answers an order that has a number of its own for that: the serial. */
struct event {
    int serial, is_reaped, code, status;
    struct rusage usage;
};

struct answer {
    int failed;
    char doing[252];
};

/* --- orders --- */

static struct {
    char bytes[MOST_BYTES + 1];
    char *next, *end;
    int fds[MOST_FDS], nfds;
    void *mapped;
    size_t size;
} order;

/* Whether there was one: not when the other end is closed. */
static int receive(int connection)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int) * MOST_FDS)];
    } control;
    struct iovec part = { order.bytes, MOST_BYTES };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
    struct cmsghdr *header;
    struct stat status;
    ssize_t size;
    int first = 0;

    if (order.mapped)
        munmap(order.mapped, order.size);
    order.mapped = NULL;
    order.nfds = 0;
    do
        size = recvmsg(connection, &message, MSG_CMSG_CLOEXEC);
    while (size == -1 && errno == EINTR);
    if (size <= 0)
        return 0;
    for (header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header))
        if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
            order.nfds = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            memcpy(order.fds, CMSG_DATA(header), order.nfds * sizeof(int));
        }
    order.next = order.bytes + 1;
    order.end = order.bytes + size;
    if (order.bytes[0] == 'm') {
        first = order.fds[0];
        if (fstat(first, &status) == -1)
            return 0;
        order.size = status.st_size + 1; /* what is behind the end reads as 0 */
        order.mapped = mmap(NULL, order.size, PROT_READ, MAP_PRIVATE, first, 0);
        close(first);
        if (order.mapped == MAP_FAILED) {
            order.mapped = NULL;
            return 0;
        }
        memmove(order.fds, order.fds + 1, --order.nfds * sizeof(int));
        order.next = order.mapped;
        order.end = order.next + status.st_size;
    }
    return 1;
}

static char *word(void)
{
    char *found = order.next;

    if (found >= order.end)
        _exit(126); /* never: the daemon says how many there are */
    order.next += strlen(found) + 1;
    return found;
}

static long long number(void)
{
    return strtoll(word(), NULL, 10);
}

/* --- a child --- */

static int connection, high;
static const char *doing = "";

/* The streams that the child shares with the process that forked it: where they belong, and where they are kept. */
static struct stream streams[MOST_DESCRIPTORS];
static int nstreams;

/* What the program to come is to have: "execute" says under which numbers. */
static int received[MOST_DESCRIPTORS];
static int nreceived;

static void answer(int failed)
{
    struct answer it = { failed, "" };
    size_t size = strnlen(doing, sizeof it.doing);

    memcpy(it.doing, doing, size);
    if (send(connection, &it, offsetof(struct answer, doing) + size, MSG_NOSIGNAL) == -1)
        _exit(1);
}

/* Out of the way of the numbers that programs have. */
static int up(int fd)
{
    int found = fcntl(fd, F_DUPFD_CLOEXEC, high);
    int failed = errno;

    close(fd);
    errno = failed;
    return found;
}

/* Nothing else is below ``high`` by now. */
static int place_streams(void)
{
    for (int i = 0; i < nstreams; i++)
        if (dup2(streams[i].fd, streams[i].number) == -1)
            return -1;
    return 0;
}

/* An eventfd that is written to once, while the child has the daemon's rights: what it says is believed. */
static int birth;

static void tell_pid(void)
{
    unsigned long long pid = getpid();

    if (write(birth, &pid, sizeof pid) != sizeof pid)
        _exit(1);
    close(birth);
}

/* Become what the process is that forks, and wait. */
static int become(int pidfd)
{
    struct forker forker;

    forker.pidfd = pidfd;
    forker.pid = number();
    forker.tid = number();
    forker.lent = strtoull(word(), NULL, 10);
    forker.umask = number();
    forker.mount = number();
    forker.before_rights_go = tell_pid;
    nstreams = number();
    for (int i = 0; i < nstreams; i++)
        streams[i].number = number();
    if (forker.pidfd < 0 || inherit(&forker, streams, nstreams, high, &doing) < 0)
        return -1;
    close(forker.pidfd);
    doing = "place the streams";
    return place_streams();
}

static void take_descriptors(void)
{
    for (int i = 0; i < order.nfds && nreceived < MOST_DESCRIPTORS; i++)
        received[nreceived++] = up(order.fds[i]); /* -1 is found when it is to be used */
}

static char **words(void)
{
    int n = number();
    char **found = calloc(n + 1, sizeof *found);

    for (int i = 0; found && i < n; i++)
        found[i] = word();
    return found;
}

/* What the program finds: words NAME=value, all of them behind a 1, else changes to what was inherited; a name alone
 * takes it out. */
static char **changed_environment(void)
{
    int is_whole = number(), n = number(), have = 0, i;
    char **found;

    while (!is_whole && inherited_environment[have])
        have++;
    if (!(found = calloc(have + n + 1, sizeof *found)))
        return NULL;
    memcpy(found, inherited_environment, have * sizeof *found);
    while (n--) {
        char *change = word();
        size_t size = strcspn(change, "=");
        for (i = 0; i < have; i++)
            if (!strncmp(found[i], change, size) && found[i][size] == '=')
                break;
        if (change[size]) {
            found[i] = change;
            have += i == have;
        } else if (i < have) {
            memmove(found + i, found + i + 1, (have-- - i) * sizeof *found);
        }
    }
    return found;
}

/* The environment, into a file that comes with the order. */
static int tell_environment(void)
{
    for (char **variable = inherited_environment; *variable; variable++) {
        size_t size = strlen(*variable) + 1;
        if (write(order.fds[0], *variable, size) != (ssize_t)size)
            return -1;
    }
    close(order.fds[0]);
    return 0;
}

/* execveat(2). Comes back only by an error, and then the child waits as before. */
static int execute(void)
{
    char *path = word(), **argv = words(), **environment = changed_environment(), *directory;
    int failed, at = order.nfds ? up(order.fds[0]) : -1, mask, n, source, flags;

    if (!argv || !environment) {
        errno = ENOMEM;
        goto back;
    }
    if ((mask = number()) >= 0)
        umask(mask);
    directory = word();
    doing = "chdir";
    if (at >= 0 && fchdir(at) == -1)
        goto back;
    if (*directory && (doing = directory, chdir(directory)) == -1)
        goto back;
    doing = path;
    source = number();
    flags = number();
    for (int i = 0; i < nstreams; i++)
        close(streams[i].number);
    for (n = number(); n--;) {
        int target = number(), from = number();
        int fd = from >= 0 ? received[from] : -1;
        for (int i = 0; from < 0 && i < nstreams; i++)
            if (streams[i].number == ~from)
                fd = streams[i].fd;
        if (dup2(fd, target) == -1)
            goto back;
    }
    if (order.next < order.end) {
        inherited_files[0] = number();
        inherited_files[1] = number();
    }
    if (set_limit(RLIMIT_NOFILE, inherited_files[0], inherited_files[1]) == 0)
        syscall(SYS_execveat, source < 0 ? AT_FDCWD : received[source], path, argv, environment, flags);
back:
    failed = errno;
    free(argv);
    free(environment);
    if (at >= 0)
        close(at);
    while (nreceived)
        close(received[--nreceived]);
    close_range(0, high - 1, 0);
    place_streams();
    errno = failed;
    return -1;
}

/* prlimit(2), by the real ids that no thread of the daemon has. */
static int limit_other(void)
{
    int pid = number(), which = number();
    long long soft = number(), hard = number();
    struct rlimit wanted = { soft < 0 ? RLIM_INFINITY : (rlim_t)soft, hard < 0 ? RLIM_INFINITY : (rlim_t)hard };

    doing = "prlimit";
    return prlimit(pid, which, &wanted, NULL);
}

/* Do what is ordered, and answer. */
static void obey(void)
{
    char *what = word();
    int result = -1;

    doing = what;
    errno = EINVAL;
    if (!strcmp(what, "descriptors")) {
        take_descriptors();
        return; /* "execute" tells whether that went well */
    } else if (!strcmp(what, "environment"))
        result = tell_environment();
    else if (!strcmp(what, "execute"))
        result = execute();
    else if (!strcmp(what, "exit"))
        _exit(number());
    else if (!strcmp(what, "prlimit"))
        result = limit_other();
    else if (!strcmp(what, "setpgid"))
        result = setpgid(0, number());
    else if (!strcmp(what, "setsid"))
        result = setsid() == -1 ? -1 : 0;
    answer(result == -1 ? errno : 0);
}

/* The order that made it goes on with what it is to become, and what to do then. */
static void live(void)
{
    int pidfd;

    doing = "fork";
    /* What the maker has goes first: it takes longer once there are numbers from ``high`` on. */
    for (int i = 0; i < order.nfds; i++)
        dup2(order.fds[i], i); /* they ascend, and begin behind the maker's own */
    close_range(order.nfds, ~0U, 0);
    for (int i = 0; i < order.nfds; i++)
        order.fds[i] = up(i);
    connection = order.fds[0];
    pidfd = order.fds[1];
    birth = order.fds[2];
    memmove(order.fds, order.fds + 3, (order.nfds -= 3) * sizeof *order.fds);
    if (connection == -1)
        _exit(1);
    if (become(pidfd) == -1) {
        answer(errno);
        _exit(1); /* and does nothing with what rights it has now */
    }
    if (order.next < order.end)
        obey();
    else
        answer(0);
    while (receive(connection))
        obey();
    _exit(1); /* whoever forked it is gone */
}

/* --- the children, by the serial numbers that the daemon gives them: a pid may come to mean another --- */

/* One that is collected is waited for just now: it is no zombie when it ends, but reaped at once. */
enum state { LIVES, IS_COLLECTED, IS_LET_GO, ZOMBIE };

static struct child {
    int serial, pid;
    enum state state;
} *children;
static int nchildren, room;

static struct child *find(int serial)
{
    for (int i = 0; i < nchildren; i++)
        if (children[i].serial == serial)
            return children + i;
    return NULL;
}

/* waitid(2) as the kernel has it, with the usage that libc leaves out. */
static int change(int pid, int kinds, struct event *event)
{
    siginfo_t info = { 0 };

    if (syscall(SYS_waitid, P_PID, pid, &info, kinds | WNOHANG, &event->usage) == -1 || !info.si_pid)
        return 0;
    event->code = info.si_code;
    event->status = info.si_status;
    return 1;
}

static void tell(struct event *event)
{
    if (send(EVENTS, event, sizeof *event, MSG_NOSIGNAL) == -1)
        exit(0); /* nobody listens: the daemon is gone */
}

/* Its pid is free, and then that is told, if it is to be. */
static void reap(struct child *child, struct event *event)
{
    waitpid(child->pid, NULL, 0);
    *child = children[--nchildren];
    if (event)
        tell(event);
}

static void look(void)
{
    for (int i = 0; i < nchildren; i++) {
        struct child *child = children + i;
        struct event event = { .serial = child->serial };
        if (child->state == ZOMBIE)
            continue;
        while (change(child->pid, WSTOPPED | WCONTINUED, &event))
            if (child->state != IS_LET_GO)
                tell(&event);
        if (!change(child->pid, WEXITED | WNOWAIT, &event))
            continue;
        if (child->state == LIVES) {
            child->state = ZOMBIE;
            tell(&event);
            continue;
        }
        event.is_reaped = 1;
        reap(child, child->state == IS_COLLECTED ? &event : NULL);
        i--;
    }
}

/* An order about a child. NULL: it is gone already. */
static void attend(const char *what, struct child *child)
{
    enum state state = child ? child->state : IS_LET_GO;

    if (!strcmp(what, "collect")) {
        if (state == LIVES)
            child->state = IS_COLLECTED;
    } else if (!strcmp(what, "keep")) {
        if (state == IS_COLLECTED)
            child->state = LIVES;
    } else if (state == ZOMBIE) { /* "reap", or "let_go" */
        reap(child, NULL);
    } else if (child && !strcmp(what, "let_go")) {
        child->state = IS_LET_GO;
        look();
    }
    if (order.next < order.end) {
        struct event done = { .serial = number() };
        tell(&done);
    }
}

static void fork_child(int serial)
{
    struct answer failed = { .doing = "fork" };
    struct child *more = children;
    pid_t pid = -1;

    if (nchildren == room && (more = realloc(children, (room + 64) * sizeof *children))) {
        children = more;
        room += 64;
    }
    if (more && (pid = fork()) == 0)
        live();
    if (pid == -1) {
        failed.failed = errno;
        send(order.fds[0], &failed, offsetof(struct answer, doing) + 4, MSG_NOSIGNAL);
    } else {
        children[nchildren++] = (struct child){ serial, pid, LIVES };
    }
    while (order.nfds)
        close(order.fds[--order.nfds]);
}

int main(void)
{
    struct rlimit files;
    struct pollfd polled[2] = { { ORDERS, POLLIN, 0 }, { -1, POLLIN, 0 } };
    struct signalfd_siginfo died;
    sigset_t ended;

    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    high = files.rlim_max > 3 * MOST_DESCRIPTORS ? MOST_DESCRIPTORS : (int)files.rlim_max / 3;
    for (int i = 1; i < NSIG; i++)
        signal(i, SIG_DFL);
    know_ourselves();
    /* The daemon's keys are not for its children. */
    syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, NULL);
    sigemptyset(&ended);
    sigaddset(&ended, SIGCHLD);
    sigprocmask(SIG_SETMASK, &ended, NULL);
    polled[1].fd = signalfd(-1, &ended, SFD_CLOEXEC | SFD_NONBLOCK);

    while (poll(polled, 2, -1) > 0 || errno == EINTR) {
        if (polled[1].revents && read(polled[1].fd, &died, sizeof died) > 0)
            look();
        if (polled[0].revents) {
            char *what;
            int serial;
            if (!receive(ORDERS))
                break;
            what = word();
            serial = number();
            if (!strcmp(what, "fork"))
                fork_child(serial);
            else
                attend(what, find(serial));
        }
    }
    return 0;
}
