/*
 * New connections, held connections and datagrams against one address; no retries, every failure counted.
 *
 *   connector new  --address A --port P [--concurrency 16] [--rate R] [--seconds 3] [--warmup 0] [--timeout-ms 3000]
 *                  [--close server|client|reset] [--sources A,B…]
 *   connector hold --address A --port P [--connections 100] [--interval-ms 100] [--seconds 0] [--timeout-ms 3000] [--sources …]
 *   connector udp  --address A --port P [--connected 0|1] [--window 32] [--rate R] [--size 64] [--seconds 3] [--warmup 0]
 *                  [--timeout-ms 200] [--sources …]
 *
 * `--seconds 0` runs until SIGTERM. Prints "ready" on standard error when traffic flows, one line of JSON at the end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

enum state { FREE, CONNECTING, ASKED, ANSWERED };

struct connection {
  int fd;
  enum state state;
  /* When it was started, and when it should have been: with a rate the latency counts from the latter. */
  uint64_t began, due;
  /* Neighbours in the order of their start, which is the order of their time limits. */
  struct connection *older, *newer;
};

static struct {
  int epoll;
  struct address target;
  struct sources sources;
  bool server_closes, reset;
  char question;
  uint64_t timeout, window_from, window_to;

  struct connection *all, *free, *oldest, *newest;
  uint64_t opened, completed, in_window;
  unsigned under_way;
  struct tally tally;
  struct histogram latency;
} run;

static void leave(struct connection *connection) {
  if (connection->fd >= 0) {
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    if (run.reset) setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close(connection->fd);
  }
  *(connection->older ? &connection->older->newer : &run.oldest) = connection->newer;
  *(connection->newer ? &connection->newer->older : &run.newest) = connection->older;
  connection->state = FREE;
  connection->newer = run.free;
  run.free = connection;
  run.under_way--;
}

static void fail(struct connection *connection, int error) {
  count_failure(&run.tally, error, connection->began);
  leave(connection);
}

static void complete(struct connection *connection) {
  run.completed++;
  leave(connection);
}

static void start(uint64_t now, uint64_t due) {
  struct connection *connection = run.free;
  run.free = connection->newer;
  run.under_way++;
  run.opened++;
  connection->state = CONNECTING;
  connection->began = now;
  connection->due = due;
  connection->newer = NULL;
  connection->older = run.newest;
  *(run.newest ? &run.newest->newer : &run.oldest) = connection;
  run.newest = connection;
  connection->fd = open_socket(&run.target, SOCK_STREAM, &run.sources);
  if (connection->fd < 0) {
    fail(connection, errno);
    return;
  }
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = connection};
  if (connect(connection->fd, (const struct sockaddr *)&run.target.storage, run.target.length) && errno != EINPROGRESS)
    fail(connection, errno);
  else if (epoll_ctl(run.epoll, EPOLL_CTL_ADD, connection->fd, &event))
    fail(connection, errno);
}

static void go_on(struct connection *connection) {
  if (connection->state == CONNECTING) {
    if (send(connection->fd, &run.question, 1, MSG_NOSIGNAL) != 1) {
      if (errno != EAGAIN) fail(connection, errno);
      return;
    }
    connection->state = ASKED;
    /* The answer's arrival is an edge of its own: reading now would mostly be in vain. */
    return;
  }
  char answer[16];
  for (;;) {
    ssize_t got = recv(connection->fd, answer, sizeof answer, 0);
    if (got < 0) {
      if (errno != EAGAIN) fail(connection, errno);
      return;
    }
    if (connection->state == ASKED) {
      if (got != 1) {
        fail(connection, got ? WRONG_ANSWER : CLOSED_EARLY);
        return;
      }
      uint64_t now = now_ns();
      count_answer(&run.tally, (unsigned char)answer[0], connection->began);
      if (now >= run.window_from && now < run.window_to) {
        run.in_window++;
        record(&run.latency, now - connection->due);
      }
      connection->state = ANSWERED;
      if (run.server_closes) continue;
      complete(connection);
    } else if (got) {
      fail(connection, WRONG_ANSWER);
    } else {
      complete(connection);
    }
    return;
  }
}

static struct timespec until(uint64_t now, uint64_t then) {
  uint64_t ns = then > now ? then - now : 0;
  return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

int run_connections(struct options *options) {
  const char *address = option_text(options, "address", NULL);
  uint16_t port = (uint16_t)option_number(options, "port", 0);
  unsigned concurrency = (unsigned)option_number(options, "concurrency", 16);
  double rate = option_number(options, "rate", 0);
  double seconds = option_number(options, "seconds", 3), warmup = option_number(options, "warmup", 0);
  run.timeout = (uint64_t)(option_number(options, "timeout-ms", 3000) * NS_PER_MS);
  const char *closing = option_text(options, "close", "server");
  parse_sources(&run.sources, option_text(options, "sources", NULL));
  check_options(options);
  errno = 0;
  if (!address || !port || !concurrency) die("--address, --port and a --concurrency above 0 are needed");
  run.target = parse_address(address, port);
  run.server_closes = !strcmp(closing, "server");
  run.reset = !strcmp(closing, "reset");
  if (!run.server_closes && !run.reset && strcmp(closing, "client")) die("--close is server, client or reset");
  run.question = run.server_closes ? PING_AND_CLOSE : PING;

  run.all = calloc(concurrency, sizeof *run.all);
  run.epoll = epoll_create1(EPOLL_CLOEXEC);
  if (!run.all || run.epoll < 0) die("cannot begin");
  for (unsigned at = 0; at < concurrency; at++) {
    run.all[at].newer = run.free;
    run.free = &run.all[at];
  }
  begin_load();
  say_ready();

  uint64_t from = now_ns(), now = from, planned = 0;
  uint64_t ends = seconds > 0 ? from + (uint64_t)((warmup + seconds) * NS_PER_S) : UINT64_MAX;
  run.window_from = from + (uint64_t)(warmup * NS_PER_S);
  run.window_to = ends;
  struct epoll_event events[256];
  while (now < ends && !stopping) {
    /* Each free place is used once a turn: a connection that fails at once must not keep the others from being heard. */
    uint64_t next = UINT64_MAX;
    for (unsigned budget = concurrency - run.under_way; budget && run.free; budget--) {
      uint64_t due = rate > 0 ? from + (uint64_t)((double)planned * NS_PER_S / rate) : now;
      if (due > now) break;
      planned++;
      start(now, due);
    }
    if (rate > 0 && run.free) next = from + (uint64_t)((double)planned * NS_PER_S / rate);
    if (run.oldest && run.oldest->began + run.timeout < next) next = run.oldest->began + run.timeout;
    if (!run.oldest && rate <= 0) next = now;
    if (next > ends) next = ends;
    /* Signals arrive between two turns at the latest. */
    if (next > now + 100 * NS_PER_MS) next = now + 100 * NS_PER_MS;
    struct timespec wait = until(now, next);
    int count = epoll_pwait2(run.epoll, events, sizeof events / sizeof *events, &wait, NULL);
    if (count < 0 && errno != EINTR) die("epoll");
    for (int at = 0; at < count; at++) go_on(events[at].data.ptr);
    now = now_ns();
    while (run.oldest && run.oldest->began + run.timeout <= now) fail(run.oldest, ETIMEDOUT);
  }
  uint64_t stopped = now < ends ? now : ends;
  if (stopped < run.window_to) run.window_to = stopped;
  while (run.oldest) {
    struct timespec wait = until(now, run.oldest->began + run.timeout);
    int count = epoll_pwait2(run.epoll, events, sizeof events / sizeof *events, &wait, NULL);
    if (count < 0 && errno != EINTR) die("epoll");
    for (int at = 0; at < count; at++) go_on(events[at].data.ptr);
    now = now_ns();
    while (run.oldest && run.oldest->began + run.timeout <= now) fail(run.oldest, ETIMEDOUT);
  }

  double window = stopped > run.window_from ? (double)(stopped - run.window_from) / NS_PER_S : 0;
  printf("{\"mode\":\"new\",\"seconds\":%.3f,\"opened\":%lu,\"completed\":%lu,\"rate\":%.1f", window, run.opened,
         run.completed, window > 0 ? (double)run.in_window / window : 0);
  print_tally(&run.tally);
  print_latency(&run.latency);
  printf("}\n");
  return 0;
}

int main(int count, char **words) {
  static const struct {
    const char *name;
    int (*run)(struct options *);
  } modes[] = {{"new", run_connections}, {"hold", run_hold}, {"udp", run_udp}};
  for (unsigned at = 0; count > 1 && at < sizeof modes / sizeof *modes; at++) {
    if (strcmp(words[1], modes[at].name)) continue;
    struct options options = {.count = count - 2, .words = words + 2};
    return modes[at].run(&options);
  }
  fprintf(stderr, "usage: connector new|hold|udp --address A --port P …\n");
  return 2;
}
