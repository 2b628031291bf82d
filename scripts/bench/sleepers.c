/*
 * sleepers - many processes that sleep.
 *
 * Usage: sleepers COUNT [semop]
 * It starts COUNT processes, says so by a line, and ends them when its standard input ends. With semop each sleeps in
 * that, on one set, and the line comes when all do.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
	int semid = -1;
	struct sembuf take = {0, -1, 0};

	if (argc != 2 && (argc != 3 || strcmp(argv[2], "semop"))) {
		fprintf(stderr, "usage: %s COUNT [semop]\n", argv[0]);
		return 2;
	}
	if (argc == 3 && (semid = semget(IPC_PRIVATE, 1, 0600)) == -1) {
		perror("semget");
		return 1;
	}
	for (long n = atol(argv[1]); n > 0; n--) {
		switch (fork()) {
		case -1:
			perror("fork");
			return 1;
		case 0:
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (semid == -1)
				pause();
			else
				semop(semid, &take, 1);
			_exit(0);
		}
	}
	while (semid != -1 && semctl(semid, 0, GETNCNT) < atol(argv[1]))
		usleep(1000);
	puts("started");
	fflush(stdout);
	while (getchar() != EOF)
		;
	/* Those who sleep die of the end of this process. */
	if (semid != -1)
		semctl(semid, 0, IPC_RMID);
	return 0;
}
