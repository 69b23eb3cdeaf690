#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

volatile bool stopping;

uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * NS_PER_S + (uint64_t)time.tv_nsec;
}

void die(const char *message) {
  if (errno)
    fprintf(stderr, "%s: %s\n", message, strerror(errno));
  else
    fprintf(stderr, "%s\n", message);
  exit(2);
}

/* ---- options ---- */

const char *option_text(struct options *options, const char *name, const char *fallback) {
  const char *value = fallback;
  for (int at = 0; at + 1 < options->count; at += 2) {
    const char *word = options->words[at];
    if (!word || strncmp(word, "--", 2) || strcmp(word + 2, name)) continue;
    value = options->words[at + 1];
    options->words[at] = NULL;
  }
  return value;
}

double option_number(struct options *options, const char *name, double fallback) {
  const char *text = option_text(options, name, NULL);
  if (!text) return fallback;
  char *end;
  double value = strtod(text, &end);
  if (*text && !*end && value >= 0) return value;
  fprintf(stderr, "--%s takes a number, not \"%s\"\n", name, text);
  exit(2);
}

void check_options(const struct options *options) {
  for (int at = 0; at < options->count; at += 2) {
    if (!options->words[at] && at + 1 < options->count) continue;
    fprintf(stderr, "unknown option, or one without a value: %s\n", options->words[at] ? options->words[at] : "");
    exit(2);
  }
}

/* ---- addresses ---- */

struct address parse_address(const char *text, uint16_t port) {
  struct address address = {0};
  struct sockaddr_in *v4 = (struct sockaddr_in *)&address.storage;
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address.storage;
  if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    address.length = sizeof *v4;
  } else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    address.length = sizeof *v6;
  } else {
    fprintf(stderr, "\"%s\" is no IP address\n", text);
    exit(2);
  }
  return address;
}

bool same_address(const struct sockaddr_storage *a, const struct sockaddr_storage *b) {
  if (a->ss_family != b->ss_family) return false;
  if (a->ss_family == AF_INET) {
    const struct sockaddr_in *x = (const void *)a, *y = (const void *)b;
    return x->sin_port == y->sin_port && x->sin_addr.s_addr == y->sin_addr.s_addr;
  }
  const struct sockaddr_in6 *x = (const void *)a, *y = (const void *)b;
  return x->sin6_port == y->sin6_port && !memcmp(&x->sin6_addr, &y->sin6_addr, sizeof x->sin6_addr);
}

void parse_sources(struct sources *sources, const char *list) {
  memset(sources, 0, sizeof *sources);
  if (!list) return;
  char *copy = strdup(list), *rest = copy, *word;
  if (!copy) die("no memory");
  while ((word = strsep(&rest, ","))) {
    if (sources->count == SOURCES_MAX) die("too many source addresses");
    sources->each[sources->count++] = parse_address(word, 0);
  }
  free(copy);
}

int open_socket(const struct address *target, int type, struct sources *sources) {
  int fd = socket(target->storage.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0 || !sources->count) return fd;
  const struct address *source = &sources->each[sources->next++ % sources->count];
  int one = 1;
  /* The port is chosen at connect, when the whole tuple is known: else 28,000 ports would be all there are. */
  if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one) == 0 &&
      bind(fd, (const struct sockaddr *)&source->storage, source->length) == 0)
    return fd;
  int error = errno;
  close(fd);
  errno = error;
  return -1;
}

/* ---- results ---- */

static unsigned bucket_of(uint64_t value) {
  if (value < (1u << STEP_BITS)) return (unsigned)value;
  unsigned shift = 63 - STEP_BITS - (unsigned)__builtin_clzll(value);
  return ((shift + 1) << STEP_BITS) + (unsigned)(value >> shift) - (1u << STEP_BITS);
}

/* The middle of a bucket. */
static uint64_t value_of(unsigned bucket) {
  if (bucket < (1u << STEP_BITS)) return bucket;
  unsigned shift = (bucket >> STEP_BITS) - 1;
  uint64_t low = (uint64_t)((bucket & ((1u << STEP_BITS) - 1)) + (1u << STEP_BITS)) << shift;
  return low + ((1ull << shift) >> 1);
}

void record(struct histogram *histogram, uint64_t value) {
  histogram->count++;
  histogram->sum += value;
  if (value > histogram->max) histogram->max = value;
  histogram->buckets[bucket_of(value)]++;
}

uint64_t quantile(const struct histogram *histogram, double share) {
  uint64_t rank = (uint64_t)(share * (double)histogram->count), seen = 0;
  if (rank >= histogram->count) return histogram->max;
  for (unsigned bucket = 0; bucket < BUCKETS; bucket++) {
    seen += histogram->buckets[bucket];
    if (seen > rank) return value_of(bucket) < histogram->max ? value_of(bucket) : histogram->max;
  }
  return histogram->max;
}

void count_failure(struct tally *tally, int error, uint64_t began) {
  tally->failed++;
  tally->errors[error >= 0 && error < ERRORS_MAX ? error : 0]++;
  if (!tally->first_failure || began < tally->first_failure) tally->first_failure = began;
  if (began > tally->last_failure) tally->last_failure = began;
}

void count_answer(struct tally *tally, unsigned char tag, uint64_t began) {
  if (!tally->answers[tag].count++ || began < tally->answers[tag].first) tally->answers[tag].first = began;
  if (began > tally->answers[tag].last) tally->answers[tag].last = began;
}

static const char *error_name(int error) {
  if (error == CLOSED_EARLY) return "closed";
  if (error == WRONG_ANSWER) return "wrong";
  const char *name = strerrorname_np(error);
  return name ? name : "unknown";
}

static double milliseconds(uint64_t ns) { return (double)ns / NS_PER_MS; }

void print_tally(const struct tally *tally) {
  printf(",\"failed\":%lu,\"errors\":{", tally->failed);
  const char *comma = "";
  for (int error = 0; error < ERRORS_MAX; error++) {
    if (!tally->errors[error]) continue;
    printf("%s\"%s\":%lu", comma, error_name(error), tally->errors[error]);
    comma = ",";
  }
  printf("},\"failures\":");
  if (tally->failed)
    printf("{\"firstMs\":%.3f,\"lastMs\":%.3f}", milliseconds(tally->first_failure), milliseconds(tally->last_failure));
  else
    printf("null");
  printf(",\"answers\":{");
  comma = "";
  for (int tag = 0; tag < 256; tag++) {
    if (!tally->answers[tag].count) continue;
    /* Tags are checked to be printable and no quote where servers are started; a foreign server may say anything. */
    if (tag > ' ' && tag < 127 && tag != '"' && tag != '\\')
      printf("%s\"%c\":", comma, tag);
    else
      printf("%s\"\\u%04x\":", comma, tag);
    printf("{\"count\":%lu,\"firstMs\":%.3f,\"lastMs\":%.3f}", tally->answers[tag].count,
           milliseconds(tally->answers[tag].first), milliseconds(tally->answers[tag].last));
    comma = ",";
  }
  printf("}");
}

void print_latency(const struct histogram *histogram) {
  printf(",\"latencyUs\":");
  if (!histogram->count) {
    printf("null");
    return;
  }
  printf("{\"mean\":%.1f,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}",
         (double)histogram->sum / (double)histogram->count / 1000, (double)quantile(histogram, 0.5) / 1000,
         (double)quantile(histogram, 0.9) / 1000, (double)quantile(histogram, 0.99) / 1000,
         (double)quantile(histogram, 0.999) / 1000, (double)histogram->max / 1000);
}

/* ---- running ---- */

static void on_signal(int signal) {
  (void)signal;
  stopping = true;
}

void begin_load(void) {
  struct sigaction action = {.sa_handler = on_signal};
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGINT, &action, NULL);
  action.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &action, NULL);
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files)) die("getrlimit");
  files.rlim_cur = files.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &files)) die("setrlimit");
}

void say_ready(void) {
  fprintf(stderr, "ready\n");
  fflush(stderr);
}
