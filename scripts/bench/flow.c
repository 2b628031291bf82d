/*
 * flow - times bytes that go through files, several of them in turn.
 *
 * Usage: flow fifo|read|write BLOCKS MIB PIECE_KIB FILE...
 * A turn moves MIB mebibytes, PIECE_KIB kibibytes a call: through a FIFO from this process to a child, or from the
 * front of an open file to MIB. In a block each file has two turns, in an order and in its reverse, so that neither
 * a noisy moment of the machine nor what the turn before left in the caches is one file's alone.
 * It prints a line a block: the 10^6 bytes per second of each file, in the order given. The first block warms up and
 * is not printed; before a read, the file is written, so that all of its pages are there.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FILES = 16 };

static size_t total, piece;
static char *buffer;

static long long now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void fail(const char *path)
{
	fprintf(stderr, "%s: %s\n", path, errno ? strerror(errno) : "fewer bytes than there should be");
	exit(1);
}

static int opened(const char *path, int flags)
{
	const int fd = open(path, flags);

	if (fd < 0)
		fail(path);
	return fd;
}

static void move(int fd, const char *path, int writing)
{
	size_t done = 0;

	while (done < total) {
		errno = 0;
		const ssize_t n = writing ? write(fd, buffer, piece) : read(fd, buffer, piece);

		if (n <= 0)
			fail(path);
		done += n;
	}
}

static void rewound(int fd, const char *path)
{
	if (lseek(fd, 0, SEEK_SET) != 0)
		fail(path);
}

static long long through_fifo(const char *path)
{
	const pid_t reader = fork();
	int status;

	if (reader < 0)
		fail(path);
	if (reader == 0) {
		move(opened(path, O_RDONLY), path, 0);
		_exit(0);
	}
	const int fd = opened(path, O_WRONLY);
	const long long start = now_ns();

	move(fd, path, 1);
	if (waitpid(reader, &status, 0) != reader || status != 0)
		exit(1);
	const long long end = now_ns();

	close(fd);
	return end - start;
}

static long long through_file(int fd, const char *path, int writing)
{
	rewound(fd, path);
	const long long start = now_ns();

	move(fd, path, writing);
	return now_ns() - start;
}

int main(int argc, char *argv[])
{
	const int files = argc - 5;
	char **paths = argv + 5;
	int fds[MAX_FILES];

	if (files < 1 || files > MAX_FILES) {
		fprintf(stderr, "usage: %s fifo|read|write BLOCKS MIB PIECE_KIB FILE...\n", argv[0]);
		return 2;
	}
	const int fifo = strcmp(argv[1], "fifo") == 0, writing = strcmp(argv[1], "write") == 0;
	const long blocks = atol(argv[2]);

	total = (size_t)atol(argv[3]) << 20;
	piece = (size_t)atol(argv[4]) << 10;
	buffer = malloc(piece);
	if (!buffer)
		return 1;
	memset(buffer, 'b', piece);
	for (int i = 0; i < files && !fifo; i++) {
		fds[i] = opened(paths[i], O_RDWR);
		move(fds[i], paths[i], 1);
	}
	for (long block = 0; block <= blocks; block++) {
		long long ns[MAX_FILES] = {0};

		for (int n = 0; n < 2 * files; n++) {
			const int i = n < files ? n : 2 * files - 1 - n;

			ns[i] += fifo ? through_fifo(paths[i]) : through_file(fds[i], paths[i], writing);
		}
		for (int i = 0; i < files && block > 0; i++)
			printf("%.1f%c", 2 * total * 1e3 / ns[i], i + 1 < files ? ' ' : '\n');
	}
	return 0;
}
