/* One link between two network namespaces, in user space: delay, loss, a rate with a queue in front of it, per direction.

   emulator NETNS_A NETNS_B DELAY_MS LOSS RATE_MBIT QUEUE_BYTES MTU SEED

   NETNS_* are paths such as /proc/123/ns/net. It makes a TUN device `link0` in each, says "ready", and forwards IP packets
   between the two until its standard input ends. DELAY_MS is one way; LOSS is a probability per packet and direction;
   RATE_MBIT 0 means no limit, and then no queue. Packets keep their order. Each second it prints one line per direction:

   direction packets lost overflowed queue_ms_mean queue_ms_max bytes

   where queue_ms is how long a packet waits for the packets before it at the rate. tests/netlab/link.py drives it.        */

#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 1 << 16, BATCH = 256, HEADROOM = 64 };
static const uint64_t SECOND_NS = 1000000000ull, WAIT_NS = 5000000ull;

struct packet { uint64_t due; uint32_t size; unsigned char bytes[]; };

struct direction {                 /* a ring of packets, in order of `due` */
  int from, to;
  unsigned char *ring;
  uint32_t head, tail;
  uint64_t link_free;              /* when the last packet will have left at the rate */
  uint64_t random;
  unsigned long packets, lost, overflowed, bytes;
  double queue_ms_sum, queue_ms_max;
};

static struct { uint64_t delay; double loss, bytes_per_ns; uint64_t queue_ns; int mtu; size_t slot; } config;

static void fail(const char *what) { perror(what); exit(1); }

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * SECOND_NS + (uint64_t)t.tv_nsec;
}

static double draw(struct direction *d) { /* xorshift64*: uniform in [0, 1) */
  d->random ^= d->random >> 12, d->random ^= d->random << 25, d->random ^= d->random >> 27;
  return (double)((d->random * 2685821657736338717ull) >> 11) / 9007199254740992.0;
}

static struct packet *slot(struct direction *d, uint32_t index) {
  return (struct packet *)(d->ring + (size_t)(index % SLOTS) * config.slot);
}

static int open_device(const char *namespace) {
  int netns = open(namespace, O_RDONLY);
  if (netns < 0) fail(namespace);
  if (setns(netns, CLONE_NEWNET)) fail("setns");
  close(netns);
  int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
  if (device < 0) fail("/dev/net/tun");
  struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
  strcpy(request.ifr_name, "link0");
  if (ioctl(device, TUNSETIFF, &request)) fail("TUNSETIFF");
  return device;
}

static void take(struct direction *d, uint64_t now) {
  for (int i = 0; i < BATCH; i++) {
    struct packet *p = slot(d, d->tail);
    ssize_t size = read(d->from, p->bytes, (size_t)config.mtu + HEADROOM);
    if (size <= 0) return;
    d->packets++;
    if (config.loss > 0 && draw(d) < config.loss) { d->lost++; continue; }
    uint64_t leaves = now;
    if (config.bytes_per_ns > 0) {
      if (d->link_free < now) d->link_free = now;
      double waits_ms = (double)(d->link_free - now) / 1e6;
      if (d->link_free - now > config.queue_ns) { d->overflowed++; continue; }
      d->queue_ms_sum += waits_ms;
      if (waits_ms > d->queue_ms_max) d->queue_ms_max = waits_ms;
      leaves = d->link_free += (uint64_t)((double)size / config.bytes_per_ns);
    }
    if (d->tail - d->head == SLOTS - 1) { d->overflowed++; continue; }
    d->bytes += (unsigned long)size;
    p->size = (uint32_t)size;
    p->due = leaves + config.delay;
    d->tail++;
  }
}

static uint64_t give(struct direction *d, uint64_t now, uint64_t wait) { /* returns how long until the next one is due */
  for (; d->head != d->tail; d->head++) {
    struct packet *p = slot(d, d->head);
    if (p->due > now) return p->due - now < wait ? p->due - now : wait;
    if (write(d->to, p->bytes, p->size) < 0) d->overflowed++;
  }
  return wait;
}

static void report(struct direction *d, const char *name) {
  unsigned long through = d->packets - d->lost;
  printf("%s %lu %lu %lu %.3f %.3f %lu\n", name, d->packets, d->lost, d->overflowed,
         through ? d->queue_ms_sum / (double)through : 0.0, d->queue_ms_max, d->bytes);
  d->packets = d->lost = d->overflowed = d->bytes = 0;
  d->queue_ms_sum = d->queue_ms_max = 0;
}

int main(int argc, char **argv) {
  if (argc != 9) { fprintf(stderr, "usage: see the head of emulator.c\n"); return 2; }
  prctl(PR_SET_TIMERSLACK, 1000ul);
  config.delay = (uint64_t)(atof(argv[3]) * 1e6);
  config.loss = atof(argv[4]);
  config.bytes_per_ns = atof(argv[5]) * 1e6 / 8 / 1e9;
  config.queue_ns = config.bytes_per_ns > 0 ? (uint64_t)(atof(argv[6]) / config.bytes_per_ns) : 0;
  config.mtu = atoi(argv[7]);
  config.slot = (sizeof(struct packet) + (size_t)config.mtu + HEADROOM + 7) & ~7ul;
  int a = open_device(argv[1]), b = open_device(argv[2]);
  uint64_t seed = strtoull(argv[8], NULL, 10) * 2 + 1;
  struct direction ways[2] = {{.from = a, .to = b, .random = seed}, {.from = b, .to = a, .random = seed ^ 0x9e3779b97f4a7c15ull}};
  for (int i = 0; i < 2; i++) if (!(ways[i].ring = malloc((size_t)SLOTS * config.slot))) fail("malloc");
  struct pollfd polls[3] = {{.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
  printf("ready\n");
  fflush(stdout);
  for (uint64_t reported = now_ns();;) {
    uint64_t now = now_ns(), wait = WAIT_NS;
    for (int i = 0; i < 2; i++) wait = give(&ways[i], now, wait);
    struct timespec timeout = {.tv_nsec = (long)wait};
    ppoll(polls, 3, &timeout, NULL);
    now = now_ns();
    for (int i = 0; i < 2; i++) if (polls[i].revents & POLLIN) take(&ways[i], now);
    if (polls[2].revents) return 0;
    if (now - reported > SECOND_NS) {
      reported = now;
      report(&ways[0], "a>b"), report(&ways[1], "b>a");
      fflush(stdout);
    }
  }
}
