/* POSIX IPC as a C program uses it. Each line says what it does with the object that argv[2] names. */
#include <fcntl.h>
#include <mqueue.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHECK(call) do { if (!(call)) { perror(#call); exit(1); } } while (0)

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[1] : "", *name = argc > 2 ? argv[2] : "";
    if (!strcmp(what, "receive")) {         /* one message of a queue, with its priority */
        struct mq_attr attr;
        unsigned priority;
        mqd_t queue = mq_open(name, O_RDONLY);
        CHECK(queue != (mqd_t)-1 && !mq_getattr(queue, &attr));
        char *text = malloc(attr.mq_msgsize);
        ssize_t length = mq_receive(queue, text, attr.mq_msgsize, &priority);
        CHECK(length >= 0);
        printf("%u %.*s\n", priority, (int)length, text);
    } else if (!strcmp(what, "send")) {     /* argv[3] with priority argv[4] */
        mqd_t queue = mq_open(name, O_WRONLY | O_CREAT, 0600, NULL);
        CHECK(queue != (mqd_t)-1 && !mq_send(queue, argv[3], strlen(argv[3]), atoi(argv[4])));
    } else if (!strcmp(what, "wait")) {     /* for a semaphore, made with 0 */
        sem_t *sem = sem_open(name, O_CREAT, 0600, 0);
        CHECK(sem != SEM_FAILED && !sem_wait(sem));
        puts("had it");
    } else if (!strcmp(what, "post")) {
        sem_t *sem = sem_open(name, 0);
        CHECK(sem != SEM_FAILED && !sem_post(sem));
    } else if (!strcmp(what, "map")) {      /* print a shared memory's text, and put it in capitals */
        struct stat status;
        int fd = shm_open(name, O_RDWR, 0);
        CHECK(fd >= 0 && !fstat(fd, &status));
        char *text = mmap(NULL, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        CHECK(text != MAP_FAILED);
        printf("%.*s\n", (int)status.st_size, text);
        for (off_t at = 0; at < status.st_size; at++)
            text[at] -= 'a' <= text[at] && text[at] <= 'z' ? 'a' - 'A' : 0;
    } else {
        return 2;
    }
    return 0;
}
