/*
 * The other side of the load generators, TCP and UDP on the same ports:
 *
 *   server --ports 80[,81…] [--address ::] [--tag a] [--threads 1] [--body 16]
 *
 * TCP: `.` is answered with the tag, one byte; `!` too, and the server then closes first. Anything else is read as HTTP/1.1
 * requests without bodies, each answered with 200 and `--body` bytes, the first of which is the tag; keep-alive unless the
 * request says `Connection: close`.
 * UDP: a datagram comes back as it is, the tag in place of a leading `.`.
 * Each thread has sockets of its own (SO_REUSEPORT). Prints "ready" on standard error; ends on SIGTERM with one line of JSON.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "load.h"

#define PORTS_MAX 16
#define REQUEST_MAX 4096
/* What an epoll entry is, in the upper half of its data; the lower half is the descriptor. */
enum kind { LISTENER, DATAGRAMS, CONNECTION };

/* The beginning of a request whose end has not arrived yet; most connections never need one. */
struct partial {
  size_t length;
  char text[REQUEST_MAX];
};

static struct {
  char tag;
  const char *address;
  uint16_t ports[PORTS_MAX];
  unsigned port_count;
  char *response, *last_response;
  size_t response_length, last_response_length;
} server = {.tag = 'a'};

struct thread {
  pthread_t id;
  int epoll;
  struct partial **partials;
  size_t partial_count;
  uint64_t accepted, pings, requests, datagrams, aborted;
};

static void watch(int epoll, int fd, enum kind kind) {
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)kind << 32 | (uint32_t)fd};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
}

static int bound_socket(int type, uint16_t port) {
  struct address address = parse_address(server.address, port);
  int one = 1, zero = 0, room = 4 << 20;
  int fd = socket(address.storage.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one))
    die("setsockopt");
  if (address.storage.ss_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
  if (type == SOCK_DGRAM) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
  if (type == SOCK_STREAM) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (bind(fd, (const struct sockaddr *)&address.storage, address.length)) die("bind");
  if (type == SOCK_STREAM && listen(fd, 4096)) die("listen");
  return fd;
}

static struct partial **partial_of(struct thread *thread, int fd) {
  if ((size_t)fd >= thread->partial_count) {
    size_t count = (size_t)fd * 2 + 64;
    thread->partials = realloc(thread->partials, count * sizeof *thread->partials);
    if (!thread->partials) die("no memory");
    memset(thread->partials + thread->partial_count, 0, (count - thread->partial_count) * sizeof *thread->partials);
    thread->partial_count = count;
  }
  return &thread->partials[fd];
}

static void forget(struct thread *thread, int fd) {
  struct partial **partial = partial_of(thread, fd);
  free(*partial);
  *partial = NULL;
  close(fd);
}

/* Small answers: a socket that cannot take one belongs to a client that does not read. */
static bool say(int fd, const char *text, size_t length) {
  return send(fd, text, length, MSG_NOSIGNAL) == (ssize_t)length;
}

static bool wants_close(const char *request, size_t length) {
  static const char header[] = "\nConnection: close";
  for (const char *at = request; (at = memchr(at, '\n', length - (size_t)(at - request))); at++)
    if (length - (size_t)(at - request) >= sizeof header - 1 && !strncasecmp(at, header, sizeof header - 1)) return true;
  return false;
}

/* Answers every whole request in `text`; returns the bytes used, or -1 when the connection is over. */
static ssize_t answer_requests(struct thread *thread, int fd, const char *text, size_t length) {
  size_t used = 0;
  const char *end;
  while ((end = memmem(text + used, length - used, "\r\n\r\n", 4))) {
    size_t request = (size_t)(end - (text + used)) + 4;
    bool last = wants_close(text + used, request);
    thread->requests++;
    if (!say(fd, last ? server.last_response : server.response, last ? server.last_response_length : server.response_length) || last)
      return -1;
    used += request;
  }
  return (ssize_t)used;
}

/* False when the connection is over. */
static bool serve(struct thread *thread, int fd) {
  char text[REQUEST_MAX];
  struct partial **partial = partial_of(thread, fd);
  size_t before = *partial ? (*partial)->length : 0;
  if (before) memcpy(text, (*partial)->text, before);
  ssize_t got = recv(fd, text + before, sizeof text - before, 0);
  if (got < 0 && errno == EAGAIN) return true;
  if (got < 0) thread->aborted++;
  if (got <= 0) return false;
  size_t length = before + (size_t)got, at = 0;
  for (; at < length && (text[at] == PING || text[at] == PING_AND_CLOSE); at++) {
    thread->pings++;
    if (!say(fd, &server.tag, 1) || text[at] == PING_AND_CLOSE) return false;
  }
  ssize_t used = at < length ? answer_requests(thread, fd, text + at, length - at) : 0;
  if (used < 0) return false;
  size_t rest = length - at - (size_t)used;
  if (rest == sizeof text) return false;
  if (!rest && !*partial) return true;
  if (!*partial && !(*partial = malloc(sizeof **partial))) die("no memory");
  memcpy((*partial)->text, text + length - rest, rest);
  (*partial)->length = rest;
  return true;
}

static void accept_all(struct thread *thread, int listener) {
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    thread->accepted++;
    /* The question is often there already; a connection that ends with it never enters the epoll set. */
    if (serve(thread, fd))
      watch(thread->epoll, fd, CONNECTION);
    else
      forget(thread, fd);
  }
}

static void echo(struct thread *thread, int fd) {
  static __thread char data[65536];
  for (;;) {
    struct sockaddr_storage from;
    socklen_t length = sizeof from;
    ssize_t got = recvfrom(fd, data, sizeof data, MSG_DONTWAIT, (struct sockaddr *)&from, &length);
    if (got < 0) return;
    thread->datagrams++;
    if (got > 0 && data[0] == PING) data[0] = server.tag;
    /* A datagram that cannot be sent is lost, as datagrams are; the client counts it. */
    sendto(fd, data, (size_t)got, MSG_DONTWAIT, (const struct sockaddr *)&from, length);
  }
}

static void *work(void *argument) {
  struct thread *thread = argument;
  struct epoll_event events[256];
  while (!stopping) {
    int count = epoll_wait(thread->epoll, events, sizeof events / sizeof *events, 100);
    if (count < 0 && errno != EINTR) die("epoll_wait");
    for (int at = 0; at < count; at++) {
      int fd = (int)(uint32_t)events[at].data.u64;
      enum kind kind = (enum kind)(events[at].data.u64 >> 32);
      if (kind == LISTENER)
        accept_all(thread, fd);
      else if (kind == DATAGRAMS)
        echo(thread, fd);
      else if (!serve(thread, fd))
        forget(thread, fd);
    }
  }
  return NULL;
}

static void make_responses(size_t body) {
  char *text = malloc(body + 1);
  if (!text) die("no memory");
  memset(text, '-', body);
  if (body) text[0] = server.tag;
  text[body] = 0;
  int length = asprintf(&server.response, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", body, text);
  int last = asprintf(&server.last_response, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", body, text);
  if (length < 0 || last < 0) die("no memory");
  server.response_length = (size_t)length;
  server.last_response_length = (size_t)last;
  free(text);
}

static void parse_ports(const char *list) {
  for (const char *at = list; at && *at; at += strcspn(at, ","), at += *at == ',') {
    unsigned long port = strtoul(at, NULL, 10);
    if (!port || port > 65535 || server.port_count == PORTS_MAX) die("--ports takes 1 to 16 ports: 80,8080");
    server.ports[server.port_count++] = (uint16_t)port;
  }
}

int main(int count, char **words) {
  struct options options = {.count = count - 1, .words = words + 1};
  parse_ports(option_text(&options, "ports", NULL));
  server.address = option_text(&options, "address", NULL);
  const char *tag = option_text(&options, "tag", "a");
  unsigned threads = (unsigned)option_number(&options, "threads", 1);
  size_t body = (size_t)option_number(&options, "body", 16);
  check_options(&options);
  errno = 0;
  if (!server.port_count || !threads) die("--ports and a number of --threads above 0 are needed");
  if (strlen(tag) != 1 || *tag <= ' ' || *tag > '~' || *tag == '"' || *tag == '\\') die("--tag is one printable character");
  server.tag = *tag;
  make_responses(body);
  begin_load();
  if (!server.address) {
    /* Both families, or IPv4 alone where the kernel has no other. */
    int probe = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    server.address = probe < 0 ? "0.0.0.0" : "::";
    if (probe >= 0) close(probe);
  }

  struct thread *all = calloc(threads, sizeof *all);
  if (!all) die("no memory");
  for (unsigned at = 0; at < threads; at++) {
    all[at].epoll = epoll_create1(EPOLL_CLOEXEC);
    if (all[at].epoll < 0) die("epoll_create1");
    for (unsigned port = 0; port < server.port_count; port++) {
      int listener = bound_socket(SOCK_STREAM, server.ports[port]), datagrams = bound_socket(SOCK_DGRAM, server.ports[port]);
      if (listener < 0 || datagrams < 0) die("socket");
      watch(all[at].epoll, listener, LISTENER);
      watch(all[at].epoll, datagrams, DATAGRAMS);
    }
  }
  for (unsigned at = 1; at < threads; at++)
    if (pthread_create(&all[at].id, NULL, work, &all[at])) die("pthread_create");
  say_ready();
  work(&all[0]);

  struct thread sum = {0};
  for (unsigned at = 0; at < threads; at++) {
    if (at) pthread_join(all[at].id, NULL);
    sum.accepted += all[at].accepted;
    sum.pings += all[at].pings;
    sum.requests += all[at].requests;
    sum.datagrams += all[at].datagrams;
    sum.aborted += all[at].aborted;
  }
  printf("{\"accepted\":%lu,\"pings\":%lu,\"requests\":%lu,\"datagrams\":%lu,\"aborted\":%lu}\n", sum.accepted, sum.pings,
         sum.requests, sum.datagrams, sum.aborted);
  return 0;
}
