/*
 * What the BPF programs attached to a cgroup cost: runs and nanoseconds of each, between the start and SIGTERM. The kernel
 * keeps these statistics only while somebody holds BPF_ENABLE_STATS, so they end with this process.
 *
 *   hooks --cgroup DIR
 *
 * Prints "ready" on standard error, and at the end one line: {"programs":[{"id":7,"hook":"connect4","name":"…","runs":1,"ns":1}]}
 * The equivalent: sysctl kernel.bpf_stats_enabled=1; bpftool cgroup show DIR; bpftool prog show id N
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "load.h"

#define PROGRAMS_MAX 128

static const struct {
  const char *name;
  enum bpf_attach_type type;
} HOOKS[] = {
    {"connect4", BPF_CGROUP_INET4_CONNECT},
    {"connect6", BPF_CGROUP_INET6_CONNECT},
    {"sendmsg4", BPF_CGROUP_UDP4_SENDMSG},
    {"sendmsg6", BPF_CGROUP_UDP6_SENDMSG},
    {"recvmsg4", BPF_CGROUP_UDP4_RECVMSG},
    {"recvmsg6", BPF_CGROUP_UDP6_RECVMSG},
    {"getpeername4", BPF_CGROUP_INET4_GETPEERNAME},
    {"getpeername6", BPF_CGROUP_INET6_GETPEERNAME},
    {"bind4", BPF_CGROUP_INET4_BIND},
    {"bind6", BPF_CGROUP_INET6_BIND},
    {"sock_release", BPF_CGROUP_INET_SOCK_RELEASE},
};

struct program {
  uint32_t id;
  int fd;
  const char *hook;
  char name[BPF_OBJ_NAME_LEN];
  uint64_t runs, ns;
};

static int bpf(enum bpf_cmd command, union bpf_attr *attr) {
  return (int)syscall(SYS_bpf, command, attr, sizeof *attr);
}

static void look(struct program *program, uint64_t *runs, uint64_t *ns) {
  struct bpf_prog_info info = {0};
  union bpf_attr attr = {.info = {.bpf_fd = (uint32_t)program->fd, .info_len = sizeof info, .info = (uint64_t)&info}};
  if (bpf(BPF_OBJ_GET_INFO_BY_FD, &attr)) die("BPF_OBJ_GET_INFO_BY_FD");
  memcpy(program->name, info.name, sizeof program->name);
  *runs = info.run_cnt;
  *ns = info.run_time_ns;
}

/* The programs attached to this very cgroup: those of its ancestors, which run there too, are somebody else's. */
static unsigned find(int cgroup, struct program *programs) {
  unsigned count = 0;
  for (unsigned hook = 0; hook < sizeof HOOKS / sizeof *HOOKS; hook++) {
    uint32_t ids[PROGRAMS_MAX];
    union bpf_attr query = {.query = {.target_fd = (uint32_t)cgroup,
                                      .attach_type = HOOKS[hook].type,
                                      .prog_ids = (uint64_t)ids,
                                      .prog_cnt = PROGRAMS_MAX}};
    if (bpf(BPF_PROG_QUERY, &query)) die("BPF_PROG_QUERY");
    for (unsigned at = 0; at < query.query.prog_cnt; at++) {
      if (count == PROGRAMS_MAX) die("more than 128 programs");
      union bpf_attr open = {.prog_id = ids[at]};
      int fd = bpf(BPF_PROG_GET_FD_BY_ID, &open);
      if (fd < 0) die("BPF_PROG_GET_FD_BY_ID");
      programs[count++] = (struct program){.id = ids[at], .fd = fd, .hook = HOOKS[hook].name};
    }
  }
  return count;
}

int main(int count, char **words) {
  struct options options = {.count = count - 1, .words = words + 1};
  const char *path = option_text(&options, "cgroup", NULL);
  check_options(&options);
  errno = 0;
  if (!path) die("--cgroup is needed");
  int cgroup = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (cgroup < 0) die(path);
  static struct program programs[PROGRAMS_MAX];
  unsigned found = find(cgroup, programs);
  union bpf_attr stats = {.enable_stats = {.type = BPF_STATS_RUN_TIME}};
  if (bpf(BPF_ENABLE_STATS, &stats) < 0) die("BPF_ENABLE_STATS");
  for (unsigned at = 0; at < found; at++) look(&programs[at], &programs[at].runs, &programs[at].ns);
  /* Blocked and waited for: a signal between a test of `stopping` and pause() would be slept through. */
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  sigprocmask(SIG_BLOCK, &ends, NULL);
  say_ready();
  int signal;
  sigwait(&ends, &signal);
  printf("{\"programs\":[");
  for (unsigned at = 0; at < found; at++) {
    uint64_t runs, ns;
    look(&programs[at], &runs, &ns);
    printf("%s{\"id\":%u,\"hook\":\"%s\",\"name\":\"%s\",\"runs\":%lu,\"ns\":%lu}", at ? "," : "", programs[at].id,
           programs[at].hook, programs[at].name, runs - programs[at].runs, ns - programs[at].ns);
  }
  printf("]}\n");
  return 0;
}
