/*
 * blocked - many processes, each blocked in one request.
 *
 * Usage: blocked COUNT REQUEST FILE
 * It starts COUNT processes, each of which opens FILE and writes REQUEST to it, and ends when all of them have been
 * answered, whatever the answer.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
	if (argc != 4) {
		fprintf(stderr, "usage: %s COUNT REQUEST FILE\n", argv[0]);
		return 2;
	}
	int opened[2];
	char token = 0;

	if (pipe(opened) != 0) {
		perror("pipe");
		return 1;
	}
	for (long n = atol(argv[1]); n > 0; n--) {
		switch (fork()) {
		case -1:
			perror("fork");
			return 1;
		case 0:
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			const int fd = open(argv[3], O_WRONLY);

			if (fd < 0)
				perror(argv[3]);
			_exit(write(opened[1], &token, 1) != 1 || write(fd, argv[2], strlen(argv[2])) < 0);
		}
		/* One at a time: names that the kernel may not remember are looked up by all who open them at once, again and
		 * again until each has won, and that is not what is to be measured. */
		if (read(opened[0], &token, 1) != 1)
			return 1;
	}
	while (wait(NULL) > 0)
		;
	return 0;
}
