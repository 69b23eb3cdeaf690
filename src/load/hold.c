/* Connections that stay open, each asked something every so often: those that break are counted, and never opened again. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

enum state { UNOPENED, CONNECTING, IDLE, ASKED, GONE };

struct held {
  int fd;
  enum state state;
  bool answered_once;
  uint64_t opened, asked;
};

static struct {
  int epoll;
  struct address target;
  struct sources sources;
  uint64_t timeout;
  unsigned opened, settled, broken, open;
  uint64_t pings, answered;
  struct tally tally;
  struct histogram latency;
} run;

static void lose(struct held *held, int error) {
  if (held->answered_once) {
    run.broken++;
    run.open--;
  } else {
    run.settled++;
  }
  count_failure(&run.tally, error, held->asked ? held->asked : held->opened);
  if (held->fd >= 0) close(held->fd);
  held->state = GONE;
}

static void ask(struct held *held, uint64_t now) {
  const char question = PING;
  if (send(held->fd, &question, 1, MSG_NOSIGNAL) != 1) {
    if (errno != EAGAIN) lose(held, errno);
    return;
  }
  held->state = ASKED;
  held->asked = now;
  run.pings++;
}

static void open_one(struct held *held, uint64_t now) {
  held->opened = now;
  held->state = CONNECTING;
  held->fd = open_socket(&run.target, SOCK_STREAM, &run.sources);
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = held};
  if (held->fd < 0)
    lose(held, errno);
  else if (connect(held->fd, (const struct sockaddr *)&run.target.storage, run.target.length) && errno != EINPROGRESS)
    lose(held, errno);
  else if (epoll_ctl(run.epoll, EPOLL_CTL_ADD, held->fd, &event))
    lose(held, errno);
}

static void hear(struct held *held) {
  if (held->state == GONE) return;
  if (held->state == CONNECTING) {
    ask(held, now_ns());
    return;
  }
  char answer[16];
  for (;;) {
    ssize_t got = recv(held->fd, answer, sizeof answer, 0);
    if (got < 0) {
      if (errno != EAGAIN) lose(held, errno);
      return;
    }
    if (got != 1 || held->state != ASKED) {
      lose(held, got ? WRONG_ANSWER : CLOSED_EARLY);
      return;
    }
    uint64_t now = now_ns();
    record(&run.latency, now - held->asked);
    count_answer(&run.tally, (unsigned char)answer[0], held->asked);
    run.answered++;
    held->state = IDLE;
    if (held->answered_once) continue;
    held->answered_once = true;
    run.opened++;
    run.open++;
    run.settled++;
  }
}

/* One connection's turn: opened at the first, asked at each, given up when the last question is out for too long. */
static void turn(struct held *held, uint64_t now) {
  switch (held->state) {
    case UNOPENED:
      open_one(held, now);
      break;
    case IDLE:
      ask(held, now);
      break;
    case CONNECTING:
      if (now - held->opened > run.timeout) lose(held, ETIMEDOUT);
      break;
    case ASKED:
      if (now - held->asked > run.timeout) lose(held, ETIMEDOUT);
      break;
    case GONE:
      break;
  }
}

int run_hold(struct options *options) {
  const char *address = option_text(options, "address", NULL);
  uint16_t port = (uint16_t)option_number(options, "port", 0);
  unsigned connections = (unsigned)option_number(options, "connections", 100);
  double interval = option_number(options, "interval-ms", 100) * NS_PER_MS;
  double seconds = option_number(options, "seconds", 0);
  run.timeout = (uint64_t)(option_number(options, "timeout-ms", 3000) * NS_PER_MS);
  parse_sources(&run.sources, option_text(options, "sources", NULL));
  check_options(options);
  errno = 0;
  if (!address || !port || !connections || interval < 1) die("--address, --port, --connections and --interval-ms are needed");
  run.target = parse_address(address, port);
  struct held *all = calloc(connections, sizeof *all);
  run.epoll = epoll_create1(EPOLL_CLOEXEC);
  if (!all || run.epoll < 0) die("cannot begin");
  begin_load();

  uint64_t from = now_ns(), now = from, turns = 0;
  uint64_t ends = seconds > 0 ? from + (uint64_t)(seconds * NS_PER_S) : UINT64_MAX;
  /* What was asked last is waited for: a connection that broke silently counts as broken. */
  uint64_t gives_up = UINT64_MAX;
  double step = interval / connections;
  bool told = false;
  struct epoll_event events[256];
  for (;;) {
    uint64_t due = from + (uint64_t)((double)turns * step);
    bool ending = now >= ends || stopping;
    if (ending && gives_up == UINT64_MAX) gives_up = now + run.timeout;
    for (; !ending && due <= now; due = from + (uint64_t)((double)turns * step)) turn(&all[turns++ % connections], now);
    if (!told && run.settled == connections) {
      told = true;
      say_ready();
    }
    if (ending) {
      unsigned waiting = 0;
      for (unsigned at = 0; at < connections; at++) waiting += all[at].state == ASKED || all[at].state == CONNECTING;
      if (!waiting) break;
      if (now >= gives_up) {
        for (unsigned at = 0; at < connections; at++)
          if (all[at].state == ASKED || all[at].state == CONNECTING) lose(&all[at], ETIMEDOUT);
        break;
      }
      due = now + 10 * NS_PER_MS;
    }
    uint64_t ns = due > now ? due - now : 0;
    if (ns > 100 * NS_PER_MS) ns = 100 * NS_PER_MS;
    struct timespec wait = {.tv_nsec = (long)ns};
    int count = epoll_pwait2(run.epoll, events, sizeof events / sizeof *events, &wait, NULL);
    if (count < 0 && errno != EINTR) die("epoll");
    for (int at = 0; at < count; at++) hear(events[at].data.ptr);
    now = now_ns();
  }

  printf("{\"mode\":\"hold\",\"seconds\":%.3f,\"connections\":%u,\"opened\":%u,\"open\":%u,\"broken\":%u,\"pings\":%lu,\"answered\":%lu",
         (double)(now - from) / NS_PER_S, connections, run.opened, run.open, run.broken, run.pings, run.answered);
  print_tally(&run.tally);
  print_latency(&run.latency);
  printf("}\n");
  return 0;
}
