/*
 * What fork(2) hands down, taken on by a process that another did not fork: proc(5).
 *
 * It is read of the forking process by the child itself, which is still the daemon's and as privileged. It can take its
 * time: nobody else waits for it. What cannot be read or taken on is refused, and never left out where that would give
 * the child more than its parent has: another pid or user namespace, a control group that it cannot be put into.
 * (A security label and a seccomp filter are confinement.py's.)
 */

#define _GNU_SOURCE
#include "heritage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Shells put the descriptors aside that a command is redirected over, from this number on, close-on-exec. */
#define PUT_ASIDE 10

char **inherited_environment;
long long inherited_files[2];

static const char **doing;

static const struct kind {
    const char *name;
    int flag; /* 0: no child from here can enter another */
} kinds[] = {
    { "pid", 0 }, { "user", 0 },
    { "mnt", CLONE_NEWNS }, { "cgroup", CLONE_NEWCGROUP }, { "uts", CLONE_NEWUTS },
    { "ipc", CLONE_NEWIPC }, { "net", CLONE_NEWNET }, { "time", 0x80 /* CLONE_NEWTIME */ },
};
#define KINDS (sizeof kinds / sizeof *kinds)

static struct {
    char *control_groups, namespaces[KINDS][64];
    unsigned long long permitted, bounding;
    struct statx root;
} own;

/* --- reading /proc --- */

static int open_proc(int pid, const char *name, int flags)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    return open(path, flags | O_CLOEXEC);
}

/* The whole of a file and a 0 behind it; NULL when it cannot be read. Whoever calls keeps it: a child is short-lived. */
static char *read_proc(int pid, const char *name, size_t *size)
{
    size_t room = 8192, have = 0;
    char *text = malloc(room + 1);
    int fd = open_proc(pid, name, O_RDONLY);
    ssize_t n = -1;

    while (fd >= 0 && text && (n = read(fd, text + have, room - have)) > 0)
        if ((have += n) == room)
            text = realloc(text, (room *= 2) + 1);
    if (fd >= 0)
        close(fd);
    if (fd < 0 || !text || n < 0)
        return NULL;
    text[have] = 0;
    if (size)
        *size = have;
    return text;
}

/* What a line of /proc/<pid>/status says; "" when the kernel has no such line. */
static const char *field(const char *status, const char *name)
{
    size_t size = strlen(name);

    for (const char *line = status; line; line = (line = strchr(line, '\n')) ? line + 1 : NULL)
        if (!strncmp(line, name, size) && line[size] == ':')
            return line + size + 1 + strspn(line + size + 1, " \t");
    return "";
}

static unsigned long long mask(const char *status, const char *name)
{
    return strtoull(field(status, name), NULL, 16);
}

/* --- what is taken on, in this order: what takes privilege comes before it is given up --- */

static int join_control_groups(int pid)
{
    char *theirs = read_proc(pid, "cgroup", NULL);
    char *line, *rest = theirs, name[PATH_MAX], same[PATH_MAX];

    *doing = "look at the control groups of the caller";
    if (!own.control_groups || !theirs)
        return -1;
    while ((line = strsep(&rest, "\n")) && *line) {
        char *controllers, *path;
        int fd, failed = 0;
        snprintf(same, sizeof same, "%s\n", line);
        if (strstr(own.control_groups, same))
            continue;
        strsep(&line, ":");
        controllers = strsep(&line, ":");
        path = line;
        if (!strncmp(controllers, "name=", 5))
            controllers += 5;
        if (!*controllers && access("/sys/fs/cgroup/cgroup.controllers", F_OK) < 0)
            controllers = "unified"; /* where systemd has version 2 beside version 1 */
        snprintf(name, sizeof name, "/sys/fs/cgroup%s%s%s/cgroup.procs", *controllers ? "/" : "", controllers,
                 strcmp(path, "/") ? path : "");
        *doing = "enter the control group of the caller";
        fd = open(name, O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, "0", 1) < 0)
            failed = errno;
        if (fd >= 0)
            close(fd);
        if (failed) {
            errno = failed;
            return -1;
        }
    }
    free(theirs);
    return 0;
}

/* Empty for a kind that the kernel does not have. */
static void read_namespace(int pid, const char *name, char found[64])
{
    char path[64];
    ssize_t size;

    snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, name);
    size = readlink(path, found, 63);
    found[size < 0 ? 0 : size] = 0;
}

static int enter_namespaces(const struct forker *forker, int *other_mounts)
{
    int flags = 0;

    for (size_t i = 0; i < KINDS; i++) {
        char theirs[64];
        read_namespace(forker->pid, kinds[i].name, theirs);
        if (!strcmp(theirs, own.namespaces[i]))
            continue;
        if (!kinds[i].flag) {
            *doing = "enter a pid or user namespace that is not the mount's; fork a child natively there";
            errno = EPERM;
            return -1;
        }
        flags |= kinds[i].flag;
    }
    *other_mounts = flags & CLONE_NEWNS;
    *doing = "enter the namespaces of the caller (setns)";
    return flags ? setns(forker->pidfd, flags) : 0;
}

static int is_our_root(int root)
{
    struct statx theirs;

    return statx(root, "", AT_EMPTY_PATH, STATX_INO | STATX_MNT_ID, &theirs) == 0
        && own.root.stx_ino == theirs.stx_ino && own.root.stx_mnt_id == theirs.stx_mnt_id
        && own.root.stx_dev_major == theirs.stx_dev_major && own.root.stx_dev_minor == theirs.stx_dev_minor;
}

static int enter_directories(int root, int directory, int other_mounts)
{
    *doing = "enter the root directory of the caller";
    if ((other_mounts || !is_our_root(root)) && (fchdir(root) < 0 || chroot(".") < 0))
        return -1;
    *doing = "enter the working directory of the caller";
    return fchdir(directory);
}

static int take_scheduling(int tid)
{
    struct sched_param ours, theirs;
    cpu_set_t our_set, their_set;
    int policy = sched_getscheduler(tid), nice;

    *doing = "take on the scheduling of the caller";
    if (policy < 0 || sched_getparam(tid, &theirs) < 0 || sched_getparam(0, &ours) < 0)
        return -1;
    policy &= ~SCHED_RESET_ON_FORK;
    if ((policy != sched_getscheduler(0) || ours.sched_priority != theirs.sched_priority)
        && sched_setscheduler(0, policy, &theirs) < 0)
        return -1;
    nice = getpriority(PRIO_PROCESS, tid);
    if (nice != getpriority(PRIO_PROCESS, 0) && setpriority(PRIO_PROCESS, 0, nice) < 0)
        return -1;
    if (sched_getaffinity(tid, sizeof their_set, &their_set) < 0 || sched_getaffinity(0, sizeof our_set, &our_set) < 0)
        return 0; /* more processors than a set holds: as the daemon then */
    return CPU_EQUAL(&our_set, &their_set) ? 0 : sched_setaffinity(0, sizeof their_set, &their_set);
}

/* Where the daemon has not the right to as much, its children have as much as it has. */
int set_limit(int which, long long soft, long long hard)
{
    struct rlimit ours, wanted = { soft < 0 ? RLIM_INFINITY : (rlim_t)soft, hard < 0 ? RLIM_INFINITY : (rlim_t)hard };

    if (getrlimit(which, &ours) < 0)
        return -1;
    if (ours.rlim_cur == wanted.rlim_cur && ours.rlim_max == wanted.rlim_max)
        return 0;
    if (setrlimit(which, &wanted) == 0)
        return 0;
    wanted.rlim_max = ours.rlim_max;
    if (wanted.rlim_cur > ours.rlim_max)
        wanted.rlim_cur = ours.rlim_max;
    return setrlimit(which, &wanted);
}

/* The lines of /proc/<pid>/limits are in the order of RLIMIT_*; a name fills 26 columns. */
static int take_limits(int pid)
{
    char *text = read_proc(pid, "limits", NULL), *rest = text, *line;

    *doing = "take on the limits of the caller";
    if (!text)
        return -1;
    strsep(&rest, "\n");
    for (int which = 0; which < RLIM_NLIMITS && (line = strsep(&rest, "\n")) && strlen(line) > 26; which++) {
        long long bounds[2]; /* "unlimited" for -1 */
        char *bound = line + 26;
        for (int i = 0; i < 2; i++) {
            bound += strspn(bound, " ");
            bounds[i] = *bound == 'u' ? -1 : strtoll(bound, NULL, 10);
            bound += strcspn(bound, " ");
        }
        if (which == RLIMIT_NOFILE)
            memcpy(inherited_files, bounds, sizeof bounds);
        else if (set_limit(which, bounds[0], bounds[1]) < 0)
            return -1;
    }
    free(text);
    return 0;
}

static int take_groups(const char *text)
{
    gid_t *theirs = NULL, *ours;
    int n = 0, have, result = 0;
    char *end;

    for (long id = strtol(text, &end, 10); end != text && *text != '\n'; id = strtol(text = end, &end, 10)) {
        if (n % 64 == 0 && !(theirs = realloc(theirs, (n + 64) * sizeof *theirs)))
            return -1;
        theirs[n++] = id;
        if (*end != ' ' || end[1] == '\n')
            break;
    }
    have = getgroups(0, NULL);
    ours = calloc(have + 1, sizeof *ours);
    if (!ours || have != n || getgroups(have, ours) != n || memcmp(ours, theirs, n * sizeof *ours))
        result = setgroups(n, theirs);
    free(ours);
    free(theirs);
    return result;
}

static int take_credentials(const char *status, unsigned long long lent)
{
    struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct data[2];
    unsigned long long sets[3], most, missing;
    unsigned uids[3], gids[3];
    uid_t own_uids[3];
    gid_t own_gids[3];

    *doing = "take on the credentials of the caller";
    if (sscanf(field(status, "Uid"), "%u %u %u", uids, uids + 1, uids + 2) != 3
        || sscanf(field(status, "Gid"), "%u %u %u", gids, gids + 1, gids + 2) != 3)
        return -1;
    missing = own.bounding & ~(mask(status, "CapBnd") & lent);
    for (int bit = 0; bit < 64; bit++)
        if (missing >> bit & 1 && prctl(PR_CAPBSET_DROP, bit, 0, 0, 0) < 0)
            return -1;
    if (take_groups(field(status, "Groups")) < 0)
        return -1;
    getresgid(&own_gids[0], &own_gids[1], &own_gids[2]);
    getresuid(&own_uids[0], &own_uids[1], &own_uids[2]);
    if (memcmp(gids, own_gids, sizeof gids) && setresgid(gids[0], gids[1], gids[2]) < 0)
        return -1;
    if (memcmp(uids, own_uids, sizeof uids) && setresuid(uids[0], uids[1], uids[2]) < 0)
        return -1;
    most = own.permitted & lent;
    sets[1] = mask(status, "CapPrm") & most;
    sets[0] = mask(status, "CapEff") & sets[1];
    sets[2] = mask(status, "CapInh") & most;
    for (int half = 0; half < 2; half++) {
        data[half].effective = sets[0] >> 32 * half;
        data[half].permitted = sets[1] >> 32 * half;
        data[half].inheritable = sets[2] >> 32 * half;
    }
    /* Else they went with the last uid 0. */
    if ((!uids[0] || !uids[1] || !uids[2]) && syscall(SYS_capset, &header, data) < 0)
        return -1;
    if (*field(status, "NoNewPrivs") == '1' && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -1;
    /* A change of ids makes a process root's to look into; this one is its new owner's, as any that he forks. */
    return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static void take_signals(const char *status)
{
    unsigned long long ignored = mask(status, "SigIgn"), blocked = mask(status, "SigBlk");
    sigset_t set;

    sigemptyset(&set);
    for (int number = 1; number < NSIG; number++) {
        if (ignored >> (number - 1) & 1)
            signal(number, SIG_IGN); /* not of those that are libc's own */
        if (blocked >> (number - 1) & 1)
            sigaddset(&set, number);
    }
    sigprocmask(SIG_SETMASK, &set, NULL);
}

static int take_environment(int pid)
{
    size_t size, n = 0;
    char *text = read_proc(pid, "environ", &size);

    *doing = "read the environment of the caller";
    if (!text)
        return -1;
    for (size_t i = 0; i < size; i++)
        n += !text[i];
    if (!(inherited_environment = calloc(n + 2, sizeof *inherited_environment)))
        return -1;
    n = 0;
    for (char *word = text; word < text + size; word += strlen(word) + 1)
        if (strchr(word, '='))
            inherited_environment[n++] = word;
    return 0;
}

/* --- the streams --- */

/* The very open file, as fork(2) shares it; not one of our own mount, where a descriptor that a child held would keep
 * whoever writes there waiting. */
static int borrow(const struct forker *forker, int number)
{
    char path[64];
    struct stat status;

    snprintf(path, sizeof path, "/proc/%d/fd/%d", forker->pid, number);
    if (stat(path, &status) < 0 || status.st_dev == forker->mount)
        return -1;
    return syscall(SYS_pidfd_getfd, forker->pidfd, number, 0);
}

/* While a builtin of a shell writes a request, the shell's output leads into the mount. What it has put aside meanwhile
 * is where the child's output goes: the first such descriptor that is close-on-exec, for zsh's is not, else the first. */
static int borrow_put_aside(const struct forker *forker, int is_input)
{
    char path[64];
    DIR *directory;
    struct dirent *entry;
    int best = INT_MAX, other = INT_MAX;

    snprintf(path, sizeof path, "/proc/%d/fd", forker->pid);
    if (!(directory = opendir(path)))
        return -1;
    while ((entry = readdir(directory))) {
        int number = atoi(entry->d_name);
        char name[64], *text;
        long flags;
        if (number < PUT_ASIDE || number >= best)
            continue;
        snprintf(name, sizeof name, "fdinfo/%d", number);
        if (!(text = read_proc(forker->pid, name, NULL)))
            continue;
        flags = strtol(field(text, "flags"), NULL, 8);
        free(text);
        if (((flags & O_ACCMODE) == O_RDONLY) == is_input && (flags & O_CLOEXEC || number < other)) {
            struct stat status;
            snprintf(path, sizeof path, "/proc/%d/fd/%d", forker->pid, number);
            if (stat(path, &status) == 0 && status.st_dev != forker->mount)
                *(flags & O_CLOEXEC ? &best : &other) = number;
        }
    }
    closedir(directory);
    best = best == INT_MAX ? other : best;
    return best == INT_MAX ? -1 : borrow(forker, best);
}

static int take_streams(const struct forker *forker, struct stream *streams, int nstreams, int high)
{
    *doing = "take on the streams of the caller";
    for (int i = 0; i < nstreams; i++) {
        int fd = borrow(forker, streams[i].number), kept;
        if (fd < 0)
            fd = borrow_put_aside(forker, streams[i].number == 0);
        if (fd < 0)
            fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        kept = fcntl(fd, F_DUPFD_CLOEXEC, high);
        if (kept < 0)
            return -1;
        close(fd);
        streams[i].fd = kept;
    }
    return 0;
}

void know_ourselves(void)
{
    char *status = read_proc(getpid(), "status", NULL);

    own.control_groups = read_proc(getpid(), "cgroup", NULL);
    own.permitted = status ? mask(status, "CapPrm") : 0;
    own.bounding = status ? mask(status, "CapBnd") : 0;
    for (size_t i = 0; i < KINDS; i++)
        read_namespace(getpid(), kinds[i].name, own.namespaces[i]);
    statx(AT_FDCWD, "/", 0, STATX_INO | STATX_MNT_ID, &own.root);
    free(status);
}

int inherit(const struct forker *forker, struct stream *streams, int nstreams, int high, const char **told)
{
    struct pollfd death = { forker->pidfd, POLLIN, 0 };
    int pid = forker->pid, tid = forker->tid, other_mounts = 0;
    int root = open_proc(pid, "root", O_PATH | O_DIRECTORY), directory = open_proc(pid, "cwd", O_PATH | O_DIRECTORY);
    char *status = read_proc(tid, "status", NULL);

    doing = told;
    *doing = "look at the caller";
    /* A thread's own, as fork(2) has it; the process's, where the thread that opened the session has ended. */
    if (!status || atoi(field(status, "Tgid")) != pid)
        status = read_proc(tid = pid, "status", NULL);
    if (root < 0 || directory < 0 || !status || take_streams(forker, streams, nstreams, high) < 0
        || take_environment(pid) < 0 || join_control_groups(pid) < 0 || take_scheduling(tid) < 0)
        return -1;
    if (take_limits(pid) < 0 || enter_namespaces(forker, &other_mounts) < 0)
        return -1;
    *doing = "look at the caller, who has ended";
    errno = ESRCH;
    if (poll(&death, 1, 0)) /* then some of it may have been another's */
        return -1;
    if (enter_directories(root, directory, other_mounts) < 0)
        return -1;
    umask(forker->umask < 0 ? strtol(field(status, "Umask"), NULL, 8) : forker->umask);
    forker->before_rights_go();
    if (take_credentials(status, forker->lent) < 0)
        return -1;
    take_signals(status);
    close(root);
    close(directory);
    free(status);
    return 0;
}
