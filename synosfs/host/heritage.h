/* What a child of fork(2) has from the process that forked it. See heritage.c. */

#ifndef HERITAGE_H
#define HERITAGE_H

#include <sys/types.h>

struct forker {
    int pidfd, pid, tid;
    int umask;                  /* -1: the process's own */
    unsigned long long lent;    /* capabilities that may be handed down */
    dev_t mount;                /* the device number of our mount */
    void (*before_rights_go)(void);
};

/* A stream that is shared, and where it belongs. */
struct stream {
    int number, fd;
};

/* Learn, once for all children, what they are before they inherit. */
void know_ourselves(void);

/* Make the calling process what the forker is; nothing of it stays but descriptors from ``high`` on. -1 and errno when
 * that cannot be; *doing says what was being done. The streams' numbers are given, and their descriptors found. */
int inherit(const struct forker *forker, struct stream *streams, int nstreams, int high, const char **doing);

/* What the forker's environment was, and its RLIMIT_NOFILE, which the child takes on when it needs no more numbers. */
extern char **inherited_environment;
extern long long inherited_files[2];

int set_limit(int which, long long soft, long long hard);

#endif
