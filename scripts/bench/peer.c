/*
 * peer - the least a FUSE server can do, as the yardstick for the daemon's own cost per call.
 *
 * One file, `/syscall`, that accepts any write and answers the next read with a short fixed reply, then end-of-file:
 * the two requests that a call on an open descriptor costs, with nothing behind them. One thread blocked in
 * read(/dev/fuse), direct I/O, no splicing and no locks. What it takes is the price of crossing FUSE twice on this host.
 *
 * Usage: peer MOUNTPOINT [-o options]. It stays in the foreground; unmounting or SIGTERM ends it.
 */
#define FUSE_USE_VERSION 312

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GATE = FUSE_ROOT_ID + 1 };

static const char gate_name[] = "syscall";
static const char reply[] = "4242\n";
static const double cached_for_s = 3600;

static struct stat attributes_of(fuse_ino_t ino)
{
	struct stat st = {.st_ino = ino, .st_nlink = 1};

	st.st_mode = ino == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0666;
	return st;
}

static void peer_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = {.ino = GATE, .attr_timeout = cached_for_s, .entry_timeout = cached_for_s};

	if (parent != FUSE_ROOT_ID || strcmp(name, gate_name) != 0) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	entry.attr = attributes_of(GATE);
	fuse_reply_entry(req, &entry);
}

static void peer_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st = attributes_of(ino);

	(void)fi;
	fuse_reply_attr(req, &st, cached_for_s);
}

/* `echo > syscall` truncates: the new size is accepted and means nothing. */
static void peer_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *wanted, int to_set, struct fuse_file_info *fi)
{
	(void)wanted;
	(void)to_set;
	peer_getattr(req, ino, fi);
}

static void peer_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	char *answer_due;

	if (ino != GATE) {
		fuse_reply_err(req, EISDIR);
		return;
	}
	answer_due = calloc(1, 1);
	if (answer_due == NULL) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	fi->direct_io = 1;
	fi->fh = (uintptr_t)answer_due;
	if (fuse_reply_open(req, fi) != 0)
		free(answer_due);
}

static void peer_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
		       struct fuse_file_info *fi)
{
	(void)ino;
	(void)data;
	(void)offset;
	*(char *)(uintptr_t)fi->fh = 1;
	fuse_reply_write(req, size);
}

static void peer_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	char *answer_due = (char *)(uintptr_t)fi->fh;
	size_t length = *answer_due ? sizeof(reply) - 1 : 0;

	(void)ino;
	(void)offset;
	*answer_due = 0;
	fuse_reply_buf(req, reply, length < size ? length : size);
}

static void peer_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	free((void *)(uintptr_t)fi->fh);
	fuse_reply_err(req, 0);
}

static const struct fuse_lowlevel_ops operations = {
	.lookup = peer_lookup,
	.getattr = peer_getattr,
	.setattr = peer_setattr,
	.open = peer_open,
	.write = peer_write,
	.read = peer_read,
	.release = peer_release,
};

int main(int argc, char *argv[])
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct fuse_cmdline_opts options;
	struct fuse_session *session;
	int status = 1;

	if (fuse_parse_cmdline(&args, &options) != 0)
		return 1;
	if (options.mountpoint == NULL) {
		fprintf(stderr, "usage: %s MOUNTPOINT [-o options]\n", argv[0]);
		return 2;
	}
	session = fuse_session_new(&args, &operations, sizeof(operations), NULL);
	if (session == NULL)
		return 1;
	if (fuse_set_signal_handlers(session) == 0) {
		if (fuse_session_mount(session, options.mountpoint) == 0) {
			status = fuse_session_loop(session) < 0;
			fuse_session_unmount(session);
		}
		fuse_remove_signal_handlers(session);
	}
	fuse_session_destroy(session);
	free(options.mountpoint);
	fuse_opt_free_args(&args);
	return status;
}
