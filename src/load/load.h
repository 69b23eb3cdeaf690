/* What the load generators share: time, options, a latency histogram, failures by errno, one line of JSON at the end. */
#ifndef SLUICE_LOAD_H
#define SLUICE_LOAD_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull

/* What a client sends. A server answers with its tag, one byte. */
#define PING '.'
/* The same, and the server then closes first. */
#define PING_AND_CLOSE '!'

/* CLOCK_MONOTONIC, nanoseconds: comparable between processes of one machine. */
uint64_t now_ns(void);

/* Prints `message` and what errno says, and exits with status 2. */
void die(const char *message) __attribute__((noreturn));

/* ---- options: `--name value` pairs ---- */

struct options {
  int count;
  char **words;
};
/* The value of `--name`, or `fallback`. Every option that is asked for counts as known; check_options() rejects the rest. */
const char *option_text(struct options *options, const char *name, const char *fallback);
double option_number(struct options *options, const char *name, double fallback);
void check_options(const struct options *options);

/* ---- addresses ---- */

struct address {
  struct sockaddr_storage storage;
  socklen_t length;
};
/* `10.0.0.1` or `fd00::1`; exits with status 2 for anything else. */
struct address parse_address(const char *text, uint16_t port);
bool same_address(const struct sockaddr_storage *a, const struct sockaddr_storage *b);

#define SOURCES_MAX 64
/* Source addresses, used in turn; ports are chosen by the kernel at connect. */
struct sources {
  unsigned count, next;
  struct address each[SOURCES_MAX];
};
void parse_sources(struct sources *sources, const char *list);
/* A non-blocking socket of the target's family, bound to the next source. -1 and errno when it cannot be made. */
int open_socket(const struct address *target, int type, struct sources *sources);

/* ---- results ---- */

/* Log-linear: 64 steps a power of two, so a value is off by 1.6 % at most. */
#define STEP_BITS 6
#define BUCKETS ((64 - STEP_BITS + 1) << STEP_BITS)
struct histogram {
  uint64_t count, sum, max;
  uint64_t buckets[BUCKETS];
};
void record(struct histogram *histogram, uint64_t value);
uint64_t quantile(const struct histogram *histogram, double share);

/* Not an errno: the peer closed instead of answering. */
#define CLOSED_EARLY 250
/* Not an errno: something else than expected came, or from somebody else. */
#define WRONG_ANSWER 251
#define ERRORS_MAX 256

struct tally {
  uint64_t failed;
  uint64_t errors[ERRORS_MAX];
  /* When the failed attempts began: the first and the last. */
  uint64_t first_failure, last_failure;
  /* By the tag of the server. Times are those at which the answered attempts began. */
  struct {
    uint64_t count, first, last;
  } answers[256];
};
void count_failure(struct tally *tally, int error, uint64_t began);
void count_answer(struct tally *tally, unsigned char tag, uint64_t began);

/* Members of the JSON object, each with a comma before it: "failed", "errors", "failures", "answers", "latencyUs". */
void print_tally(const struct tally *tally);
void print_latency(const struct histogram *histogram);

/* ---- running ---- */

/* Set by SIGTERM and SIGINT: begin nothing new, end what is under way, print the result. */
extern volatile bool stopping;
/* Installs the handlers, ignores SIGPIPE and lifts the limit of open files as far as it goes. */
void begin_load(void);
/* Tells the starter that traffic flows from now on. */
void say_ready(void);

int run_connections(struct options *options);
int run_hold(struct options *options);
int run_udp(struct options *options);

#endif
