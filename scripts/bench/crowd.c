/*
 * crowd - many processes that take part: each has made one call, in a session that stays open.
 *
 * Usage: crowd FILE <COMMANDS
 * A line "N" starts N processes, each of which opens FILE, writes a request to it and reads the reply; a line "-N" kills
 * the N that were started last, all at once. A line is answered when that has been done, with the microseconds it took.
 * All end with this program.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 100000, REPLY_SIZE = 4096 };

static pid_t pids[MOST];
static int living, opened[2];

static long long now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000LL + ts.tv_nsec / 1000;
}

static void take_part(const char *path)
{
	static const char request[] = "getpid\n";
	char reply[REPLY_SIZE], token = '.';
	const int fd = open(path, O_RDWR);

	if (fd < 0 || write(fd, request, sizeof request - 1) < 0 || read(fd, reply, sizeof reply) <= 0) {
		perror(path);
		token = '!';
	}
	if (write(opened[1], &token, 1) == 1)
		for (;;)
			pause();
	_exit(1);
}

int main(int argc, char *argv[])
{
	char line[64], token;

	if (argc != 2 || pipe(opened) != 0) {
		fprintf(stderr, "usage: %s FILE\n", argv[0]);
		return 2;
	}
	while (fgets(line, sizeof line, stdin) != NULL) {
		const int count = atoi(line), target = living + count;
		const long long began = now_us();

		if (target < 0 || target > MOST)
			return 2;
		while (living < target) {
			pids[living] = fork();
			if (pids[living] < 0) {
				perror("fork");
				return 1;
			}
			if (pids[living] == 0) {
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				take_part(argv[1]);
			}
			living++;
			if (read(opened[0], &token, 1) != 1 || token != '.')
				return 1;
		}
		for (int dead = target; dead < living; dead++)
			kill(pids[dead], SIGKILL);
		while (living > target)
			waitpid(pids[--living], NULL, 0);
		printf("%lld\n", now_us() - began);
		fflush(stdout);
	}
	return 0;
}
