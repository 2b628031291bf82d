/*
 * sleepers - many processes that sleep.
 *
 * Usage: sleepers COUNT
 * It starts COUNT processes, says so by a line, and ends them when its standard input ends.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
	if (argc != 2) {
		fprintf(stderr, "usage: %s COUNT\n", argv[0]);
		return 2;
	}
	for (long n = atol(argv[1]); n > 0; n--) {
		switch (fork()) {
		case -1:
			perror("fork");
			return 1;
		case 0:
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			pause();
			_exit(0);
		}
	}
	puts("started");
	fflush(stdout);
	while (getchar() != EOF)
		;
	/* Those who sleep die of the end of this process. */
	return 0;
}
