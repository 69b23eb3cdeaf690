/*
 * Datagrams to an echo server, through one socket: so many under way, or so many a second. A datagram that is not answered in
 * time is lost; an answer that comes from elsewhere than the address asked is wrong.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

struct flight {
  bool out;
  uint32_t serial;
  uint64_t sent, due;
};

/* Little enough to be in every datagram; the server puts its tag in the place of `ping`. */
struct __attribute__((packed)) message {
  char ping;
  uint32_t place, serial;
};
#define SIZE_MAX_UDP 65507

static struct {
  int fd;
  bool connected;
  struct address target;
  unsigned window, out, at;
  size_t size;
  uint64_t timeout, window_from, window_to;
  struct flight *flights;
  char *buffer;
  uint64_t sent, received, in_window, late;
  struct tally tally;
  struct histogram latency;
} run;

static void give_up(struct flight *flight, int error) {
  count_failure(&run.tally, error, flight->sent);
  flight->out = false;
  run.out--;
}

/* What the kernel reports without saying of which datagram: laid to the oldest that is under way. */
static bool blame_oldest(int error) {
  struct flight *oldest = NULL;
  for (unsigned at = 0; at < run.window; at++)
    if (run.flights[at].out && (!oldest || run.flights[at].sent < oldest->sent)) oldest = &run.flights[at];
  if (oldest) give_up(oldest, error);
  return oldest;
}

/* A place that nothing is under way in; the oldest are next in turn. */
static struct flight *free_place(void) {
  for (unsigned tries = 0; tries < run.window; tries++) {
    struct flight *flight = &run.flights[run.at++ % run.window];
    if (!flight->out) return flight;
  }
  return NULL;
}

/* False when nothing was sent (the queue is full, or an error of an earlier one was reported): it is sent a little later. */
static bool send_one(uint64_t now, uint64_t due) {
  struct flight *flight = free_place();
  if (!flight) return false;
  struct message *message = (struct message *)run.buffer;
  *message = (struct message){.ping = PING, .place = (uint32_t)(flight - run.flights), .serial = flight->serial + 1};
  ssize_t sent = run.connected ? send(run.fd, run.buffer, run.size, 0)
                               : sendto(run.fd, run.buffer, run.size, 0, (const struct sockaddr *)&run.target.storage,
                                        run.target.length);
  if (sent < 0 && (errno == EAGAIN || (run.connected && blame_oldest(errno)))) return false;
  flight->serial++;
  flight->out = true;
  flight->sent = now;
  flight->due = due;
  run.sent++;
  run.out++;
  if (sent < 0) give_up(flight, errno);
  return true;
}

static void receive_all(void) {
  static char buffer[SIZE_MAX_UDP];
  for (;;) {
    struct sockaddr_storage from = {0};
    socklen_t length = sizeof from;
    ssize_t got = recvfrom(run.fd, buffer, sizeof buffer, MSG_DONTWAIT, (struct sockaddr *)&from, &length);
    if (got < 0 && errno == EAGAIN) return;
    uint64_t now = now_ns();
    if (got < 0) {
      /* With nothing under way, the datagram that it is about has been counted as lost already. */
      blame_oldest(errno);
      return;
    }
    const struct message *message = (const struct message *)buffer;
    struct flight *flight = (size_t)got == run.size && message->place < run.window ? &run.flights[message->place] : NULL;
    if (!flight || !same_address(&from, &run.target.storage)) {
      count_failure(&run.tally, WRONG_ANSWER, now);
      continue;
    }
    if (!flight->out || flight->serial != message->serial) {
      run.late++;
      continue;
    }
    flight->out = false;
    run.out--;
    run.received++;
    count_answer(&run.tally, (unsigned char)message->ping, flight->sent);
    if (now < run.window_from || now >= run.window_to) continue;
    run.in_window++;
    record(&run.latency, now - flight->due);
  }
}

static void expire(uint64_t now) {
  for (unsigned at = 0; at < run.window; at++)
    if (run.flights[at].out && now - run.flights[at].sent > run.timeout) give_up(&run.flights[at], ETIMEDOUT);
}

int run_udp(struct options *options) {
  const char *address = option_text(options, "address", NULL);
  uint16_t port = (uint16_t)option_number(options, "port", 0);
  run.connected = option_number(options, "connected", 0) != 0;
  run.window = (unsigned)option_number(options, "window", 32);
  double rate = option_number(options, "rate", 0);
  run.size = (size_t)option_number(options, "size", 64);
  double seconds = option_number(options, "seconds", 3), warmup = option_number(options, "warmup", 0);
  run.timeout = (uint64_t)(option_number(options, "timeout-ms", 200) * NS_PER_MS);
  struct sources sources;
  parse_sources(&sources, option_text(options, "sources", NULL));
  check_options(options);
  errno = 0;
  if (!address || !port || !run.window) die("--address, --port and a --window above 0 are needed");
  if (run.size < sizeof(struct message) || run.size > SIZE_MAX_UDP) die("--size is from 9 to 65507 bytes");
  run.target = parse_address(address, port);
  run.flights = calloc(run.window, sizeof *run.flights);
  run.buffer = calloc(1, run.size);
  run.fd = open_socket(&run.target, SOCK_DGRAM, &sources);
  if (!run.flights || !run.buffer || run.fd < 0) die("cannot begin");
  int room = 4 << 20;
  setsockopt(run.fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
  if (run.connected && connect(run.fd, (const struct sockaddr *)&run.target.storage, run.target.length)) die("connect");
  begin_load();
  say_ready();

  uint64_t from = now_ns(), now = from, planned = 0, expired = from;
  uint64_t ends = seconds > 0 ? from + (uint64_t)((warmup + seconds) * NS_PER_S) : UINT64_MAX;
  run.window_from = from + (uint64_t)(warmup * NS_PER_S);
  run.window_to = ends;
  struct pollfd poll_fd = {.fd = run.fd, .events = POLLIN};
  uint64_t stopped = 0;
  for (;;) {
    if (!stopped && (now >= ends || stopping)) run.window_to = stopped = now < ends ? now : ends;
    uint64_t next = now + 10 * NS_PER_MS;
    while (!stopped && run.out < run.window) {
      uint64_t due = rate > 0 ? from + (uint64_t)((double)planned * NS_PER_S / rate) : now;
      if (due > now) {
        if (due < next) next = due;
        break;
      }
      if (!send_one(now, due)) break;
      planned++;
    }
    if (stopped && !run.out) break;
    struct timespec wait = {.tv_nsec = (long)(next - now)};
    if (ppoll(&poll_fd, 1, &wait, NULL) < 0 && errno != EINTR) die("poll");
    receive_all();
    now = now_ns();
    if (now - expired > 10 * NS_PER_MS) {
      expired = now;
      expire(now);
    }
  }

  double window = stopped > run.window_from ? (double)(stopped - run.window_from) / NS_PER_S : 0;
  printf("{\"mode\":\"udp\",\"seconds\":%.3f,\"sent\":%lu,\"received\":%lu,\"late\":%lu,\"rate\":%.1f", window, run.sent,
         run.received, run.late, window > 0 ? (double)run.in_window / window : 0);
  print_tally(&run.tally);
  print_latency(&run.latency);
  printf("}\n");
  return 0;
}
