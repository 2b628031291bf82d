/*
 * caller - times one call on an open descriptor, a write and the read of its reply, on several files in turn.
 *
 * Usage: caller BLOCKS CALLS FILE... <REQUEST
 * Each call writes what standard input held, as it is. The files take turns, CALLS calls each, BLOCKS times over, so
 * that a noisy moment of the machine meets all of them.
 * It prints a line a block: the nanoseconds per call of each file, in the order given. The first block warms up and
 * is not printed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FILES = 16, REQUEST_SIZE = 4096, REPLY_SIZE = 4096 };

static long long now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void call(int fd, const char *request, size_t length, const char *path)
{
	char reply[REPLY_SIZE];

	if (write(fd, request, length) != (ssize_t)length || read(fd, reply, sizeof(reply)) <= 0) {
		fprintf(stderr, "%s: no answer: %s\n", path, strerror(errno));
		exit(1);
	}
}

int main(int argc, char *argv[])
{
	int fds[MAX_FILES], files = argc - 3;
	char **paths = argv + 3, request[REQUEST_SIZE];

	if (files < 1 || files > MAX_FILES) {
		fprintf(stderr, "usage: %s BLOCKS CALLS FILE... <REQUEST\n", argv[0]);
		return 2;
	}
	const long blocks = atol(argv[1]), calls = atol(argv[2]);
	const size_t length = fread(request, 1, sizeof(request), stdin);

	for (int i = 0; i < files; i++) {
		fds[i] = open(paths[i], O_RDWR);
		if (fds[i] < 0) {
			perror(paths[i]);
			return 1;
		}
	}
	for (long block = 0; block <= blocks; block++) {
		for (int i = 0; i < files; i++) {
			const long long start = now_ns();

			for (long n = 0; n < calls; n++)
				call(fds[i], request, length, paths[i]);
			if (block > 0)
				printf("%.0f%c", (double)(now_ns() - start) / calls, i + 1 < files ? ' ' : '\n');
		}
	}
	return 0;
}
