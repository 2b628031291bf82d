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
 * An order is words, each ended by a byte 0, numbers in decimal. They are the message, behind an 'i'; or a file in
 * memory, the first of its descriptors, behind an 'm': they can be as long as a command line can.
 *
 * Orders come from the daemon and are well formed; nothing else reaches a child. After "become" a child is its user's,
 * who may do with it as with any process of theirs: the daemon believes none of its answers.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ORDERS 0
#define EVENTS 1

/* SCM_MAX_FD is 253. */
#define MOST_FDS 250
#define MOST_BYTES 65536

/* No number that a SynOS process has is higher: process/descriptors.py. */
#define MOST_DESCRIPTORS 1024

struct event {
    int serial, pid, code, status;
    struct rusage usage;
};

struct answer {
    int failed, value;
    char doing[248];
};

/* --- orders --- */

static struct {
    char bytes[MOST_BYTES + 1];
    char *next, *end;
    int fds[MOST_FDS + 1], nfds;
    void *mapped;
    size_t size;
} order;

/* Whether there was one: not when the other end is closed. */
static int receive(int connection)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int) * (MOST_FDS + 1))];
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
static struct { int number, fd; } streams[MOST_DESCRIPTORS];
static int nstreams;

/* Of "descriptors", which come before the order that says what they are for: "become" and "execute". */
static int received[MOST_DESCRIPTORS];
static int nreceived;

static void answer(int failed, int value)
{
    struct answer it = { failed, value, "" };
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

static int place_streams(void)
{
    close_range(0, high - 1, 0);
    for (int i = 0; i < nstreams; i++)
        if (dup2(streams[i].fd, streams[i].number) == -1)
            return -1;
    return 0;
}

static int write_to(const char *name, const char *text)
{
    int fd = open(name, O_WRONLY | O_CLOEXEC), failed = 0;

    if (fd == -1)
        return -1;
    if (write(fd, text, strlen(text)) == -1)
        failed = errno;
    close(fd);
    errno = failed;
    return failed ? -1 : 0;
}

static int schedule(void)
{
    int policy = number(), priority = number(), nice = number(), n = number();
    struct sched_param now, param = { priority };
    cpu_set_t own, theirs;

    CPU_ZERO(&theirs);
    while (n--) {
        int cpu = number();
        if (cpu < CPU_SETSIZE)
            CPU_SET(cpu, &theirs);
    }
    if (sched_getparam(0, &now) == -1)
        return -1;
    if ((policy != sched_getscheduler(0) || priority != now.sched_priority) && sched_setscheduler(0, policy, &param) == -1)
        return -1;
    if (nice != getpriority(PRIO_PROCESS, 0) && setpriority(PRIO_PROCESS, 0, nice) == -1)
        return -1;
    if (sched_getaffinity(0, sizeof own, &own) == 0 && !CPU_EQUAL(&own, &theirs))
        return sched_setaffinity(0, sizeof theirs, &theirs);
    return 0;
}

static int take_groups(void)
{
    int n = number(), same = 1, have;
    gid_t *theirs = calloc(n + 1, sizeof *theirs), *own;

    for (int i = 0; i < n; i++)
        theirs[i] = number();
    have = getgroups(0, NULL);
    own = calloc(have + 1, sizeof *own);
    same = have == n && getgroups(have, own) == n && memcmp(own, theirs, n * sizeof *own) == 0;
    have = same ? 0 : setgroups(n, theirs);
    free(own);
    free(theirs);
    return have;
}

/* What takes privilege comes before it is given up. */
static int take_credentials(void)
{
    struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct data[2];
    uid_t uids[3], own_uids[3];
    gid_t gids[3], own_gids[3];
    int n = number(), no_new_privs;

    while (n--)
        if (prctl(PR_CAPBSET_DROP, number(), 0, 0, 0) == -1)
            return -1;
    if (take_groups() == -1)
        return -1;
    for (int i = 0; i < 3; i++)
        gids[i] = number();
    for (int i = 0; i < 3; i++)
        uids[i] = number();
    getresgid(&own_gids[0], &own_gids[1], &own_gids[2]);
    getresuid(&own_uids[0], &own_uids[1], &own_uids[2]);
    if (memcmp(gids, own_gids, sizeof gids) && setresgid(gids[0], gids[1], gids[2]) == -1)
        return -1;
    if (memcmp(uids, own_uids, sizeof uids) && setresuid(uids[0], uids[1], uids[2]) == -1)
        return -1;
    for (int i = 0; i < 3; i++) {
        unsigned long long set = strtoull(word(), NULL, 10);
        for (int half = 0; half < 2; half++, set >>= 32)
            *(i == 0 ? &data[half].effective : i == 1 ? &data[half].permitted : &data[half].inheritable) = set;
    }
    /* Else they went with the last uid 0. */
    if ((!uids[0] || !uids[1] || !uids[2]) && syscall(SYS_capset, &header, data) == -1)
        return -1;
    no_new_privs = number();
    if (no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1)
        return -1;
    /* A change of ids makes a process root's to look into; this one is its new owner's, as any that he forks. */
    return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

/* Take on what fork(2) hands down. Each thing stands in the order as it is read here. */
static int become(void)
{
    int fds[3];
    long long namespaces;
    sigset_t masked;

    for (int i = 0; i < 3; i++)
        if ((fds[i] = up(order.fds[i])) == -1)
            return -1;
    for (int files = number(); files--;) {
        char *name = word();
        doing = name;
        if (write_to(name, word()) == -1)
            return -1;
    }
    namespaces = number();
    doing = "enter the namespaces (setns)";
    if (namespaces && setns(fds[0], namespaces) == -1)
        return -1;
    doing = "enter the root directory";
    if (number() && (fchdir(fds[1]) == -1 || chroot(".") == -1))
        return -1;
    doing = "enter the working directory";
    if (fchdir(fds[2]) == -1)
        return -1;
    umask(number());
    doing = "take on scheduling";
    if (schedule() == -1)
        return -1;
    doing = "take on credentials";
    if (take_credentials() == -1)
        return -1;
    for (int ignored = number(); ignored--;)
        signal(number(), SIG_IGN);
    sigemptyset(&masked);
    for (int blocked = number(); blocked--;)
        sigaddset(&masked, number());
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    nstreams = number();
    for (int i = 0; i < nstreams; i++) {
        streams[i].number = number();
        streams[i].fd = received[i];
    }
    nreceived = 0;
    doing = "take on the streams";
    if (place_streams() == -1)
        return -1;
    return sigprocmask(SIG_SETMASK, &masked, NULL);
}

static int take_descriptors(void)
{
    for (int i = 0; i < order.nfds && nreceived < MOST_DESCRIPTORS; i++)
        if ((received[nreceived++] = up(order.fds[i])) == -1)
            return -1;
    return 0;
}

static char **words(void)
{
    int n = number();
    char **found = calloc(n + 1, sizeof *found);

    for (int i = 0; found && i < n; i++)
        found[i] = word();
    return found;
}

/* Where the daemon has not the right to as much, its children have as much as it has. */
static int limit(int which, long long soft, long long hard)
{
    struct rlimit own, wanted = { soft < 0 ? RLIM_INFINITY : (rlim_t)soft, hard < 0 ? RLIM_INFINITY : (rlim_t)hard };

    if (getrlimit(which, &own) == -1)
        return -1;
    if (own.rlim_cur == wanted.rlim_cur && own.rlim_max == wanted.rlim_max)
        return 0;
    if (setrlimit(which, &wanted) == 0)
        return 0;
    wanted.rlim_max = own.rlim_max;
    if (wanted.rlim_cur > own.rlim_max)
        wanted.rlim_cur = own.rlim_max;
    return setrlimit(which, &wanted);
}

/* execve(2). Comes back only by an error, and then the child waits as before. */
static int execute(void)
{
    char *path = word(), **argv = words(), **environment = words(), *directory;
    int failed, at = order.nfds ? up(order.fds[0]) : -1, n;

    if (!argv || !environment) {
        errno = ENOMEM;
        goto back;
    }
    umask(number());
    directory = word();
    doing = "chdir";
    if (at >= 0 && fchdir(at) == -1)
        goto back;
    if (*directory && (doing = directory, chdir(directory)) == -1)
        goto back;
    doing = path;
    close_range(0, high - 1, 0);
    for (n = number(); n--;) {
        int target = number(), source = number();
        int fd = source >= 0 ? received[source] : -1;
        for (int i = 0; source < 0 && i < nstreams; i++)
            if (streams[i].number == ~source)
                fd = streams[i].fd;
        if (dup2(fd, target) == -1)
            goto back;
    }
    /* Last, for they hold for what is done here too. */
    for (n = 0; n < RLIM_NLIMITS; n++) {
        long long soft = number(), hard = number();
        if (limit(n, soft, hard) == -1)
            goto back;
    }
    execve(path, argv, environment);
back:
    failed = errno;
    free(argv);
    free(environment);
    if (at >= 0)
        close(at);
    while (nreceived)
        close(received[--nreceived]);
    place_streams();
    errno = failed;
    return -1;
}

static void live(int theirs)
{
    doing = "fork";
    connection = fcntl(theirs, F_DUPFD_CLOEXEC, high);
    if (connection == -1)
        _exit(1);
    close_range(0, high - 1, 0);
    answer(0, getpid());
    while (receive(connection)) {
        char *what = word();
        int result = -1;
        doing = what;
        errno = EINVAL;
        if (!strcmp(what, "become"))
            result = become();
        else if (!strcmp(what, "descriptors"))
            result = take_descriptors();
        else if (!strcmp(what, "execute"))
            result = execute();
        else if (!strcmp(what, "exit"))
            _exit(number());
        else if (!strcmp(what, "setpgid"))
            result = setpgid(0, number());
        else if (!strcmp(what, "setsid"))
            result = setsid() == -1 ? -1 : 0;
        answer(result == -1 ? errno : 0, 0);
    }
    _exit(1); /* whoever forked it is gone */
}

/* --- the children, by the serial numbers that the daemon gives them: a pid may come to mean another --- */

enum state { LIVES, IS_LET_GO, ZOMBIE };

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
    event->pid = pid;
    event->code = info.si_code;
    event->status = info.si_status;
    return 1;
}

static void tell(struct event *event)
{
    if (send(EVENTS, event, sizeof *event, MSG_NOSIGNAL) == -1)
        exit(0); /* nobody listens: the daemon is gone */
}

static void forget(struct child *child)
{
    waitpid(child->pid, NULL, 0);
    *child = children[--nchildren];
}

static void look(void)
{
    for (int i = 0; i < nchildren; i++) {
        struct child *child = children + i;
        struct event event = { .serial = child->serial };
        if (child->state == ZOMBIE)
            continue;
        while (change(child->pid, WSTOPPED | WCONTINUED, &event))
            if (child->state == LIVES)
                tell(&event);
        if (!change(child->pid, WEXITED | WNOWAIT, &event))
            continue;
        if (child->state == IS_LET_GO) {
            forget(child);
            i--;
        } else {
            child->state = ZOMBIE;
            tell(&event);
        }
    }
}

static void fork_child(int serial, int theirs)
{
    struct answer failed = { .doing = "fork" };
    struct child *more = children;
    pid_t pid = -1;

    if (nchildren == room && (more = realloc(children, (room + 64) * sizeof *children))) {
        children = more;
        room += 64;
    }
    if (more && (pid = fork()) == 0)
        live(theirs);
    if (pid == -1) {
        failed.failed = errno;
        send(theirs, &failed, offsetof(struct answer, doing) + 4, MSG_NOSIGNAL);
    } else {
        children[nchildren++] = (struct child){ serial, pid, LIVES };
    }
    close(theirs);
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
            struct child *child;
            char *what;
            int serial;
            if (!receive(ORDERS))
                break;
            what = word();
            serial = number();
            child = find(serial);
            if (!strcmp(what, "fork"))
                fork_child(serial, order.fds[0]);
            else if (child && child->state == ZOMBIE) /* "reap", or "let_go" */
                forget(child);
            else if (child && !strcmp(what, "let_go")) {
                child->state = IS_LET_GO;
                look();
            }
        }
    }
    return 0;
}
