// SPDX-License-Identifier: Apache-2.0
/*
 * inside ROOT DIR PROGRAM [ARG…]: runs a static program of the host with ROOT as its root directory and DIR in it as its working directory.
 * The program is opened before and executed by its descriptor, so the root need not hold it, nor a /proc; and whatever symbolic links
 * are in there lead nowhere else.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fail(const char *what, const char *name) {
	fprintf(stderr, "%s %s: %s\n", what, name, strerror(errno));
	return errno == ENOENT || errno == ENOTDIR ? 127 : 125;
}

int main(int argc, char **argv) {
	char *none[] = {NULL};
	if (argc < 4) {
		fputs("usage: inside ROOT DIR PROGRAM [ARG...]\n", stderr);
		return 125;
	}
	int program = open(argv[3], O_PATH | O_CLOEXEC);
	if (program < 0) return fail("open", argv[3]);
	if (chroot(argv[1]) || chdir("/")) return fail("enter", argv[1]);
	if (chdir(argv[2])) return fail("enter", argv[2]);
	syscall(SYS_execveat, program, "", argv + 3, none, AT_EMPTY_PATH);
	return fail("execute", argv[3]);
}
