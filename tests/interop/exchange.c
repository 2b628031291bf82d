/* Send or receive one message by one of three ways: the host's own call, the gate, or the queue's file.
 *
 * usage: exchange native|gate|file send|receive WHERE MSQID TYPE [TEXT]      WHERE: the mount point
 * A receiver prints the type (0 where a file does not tell it), a blank and the text.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <unistd.h>

static void must(int ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "%s: %s\n", what, strerror(errno));
		exit(errno ? errno : 255);
	}
}

int main(int argc, char **argv)
{
	struct { long type; char text[8192]; } message;
	char path[4096], request[8300], reply[8300] = "";

	must(argc >= 6, "usage");
	const char *way = argv[1], *where = argv[3], *text = argc > 6 ? argv[6] : "";
	int sends = !strcmp(argv[2], "send"), id = atoi(argv[4]);
	long type = atol(argv[5]);

	if (!strcmp(way, "native")) {
		if (sends) {
			message.type = type;
			strcpy(message.text, text);
			must(msgsnd(id, &message, strlen(text), 0) == 0, "msgsnd");
		} else {
			ssize_t length = msgrcv(id, &message, sizeof message.text, type, 0);
			must(length >= 0, "msgrcv");
			printf("%ld %.*s\n", message.type, (int)length, message.text);
		}
	} else if (!strcmp(way, "gate")) {
		snprintf(path, sizeof path, "%s/syscall", where);
		int fd = open(path, O_RDWR);
		must(fd >= 0, "open");
		if (sends)
			snprintf(request, sizeof request, "msgsnd %d %ld \"%s\"\n", id, type, text);
		else
			snprintf(request, sizeof request, "msgrcv %d 8192 %ld\n", id, type);
		must(write(fd, request, strlen(request)) == (ssize_t)strlen(request), "write");
		must(read(fd, reply, sizeof reply - 1) > 0, "read");
		if (!sends) {
			long length, got;
			must(sscanf(reply, "%ld mtype=%ld", &length, &got) == 2, reply);
			printf("%ld %.*s\n", got, (int)length, strchr(reply, '\n') + 1);
		}
	} else {
		snprintf(path, sizeof path, "%s/msgq/sysv/%d@%ld", where, id, type);
		int fd = open(path, sends ? O_WRONLY : O_RDWR);
		must(fd >= 0, "open");
		if (sends) {
			must(write(fd, text, strlen(text)) == (ssize_t)strlen(text), "write");
		} else {
			ssize_t length = read(fd, reply, sizeof reply);
			must(length >= 0, "read");
			printf("0 %.*s\n", (int)length, reply);
		}
	}
	return 0;
}
