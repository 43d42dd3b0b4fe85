"""Both ends of a fan-out in C, compiled when a benchmark runs: a sink that reads and counts, and the floor.

The floor is a loop of ``send()`` over connected sockets: the least that any server can do for one frame per client. The
sink is the reader of every server that is compared. Both are told what to do by lines on their standard input, and
answer by lines.
"""

import contextlib
import os
import resource
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

SINK_SOURCE = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>
/* sink PORT CLIENTS SETUP_FRAMES PATH REQUEST ACKS LATE_US RATE PAUSE_US: connect, send REQUEST (if any) in one masked
   frame, read and count. REQUEST may be lines: each client sends the next one.
   Prints "ready", then "round FRAMES READS" after every CLIENTS frames (with ACKS); for every line of standard input,
   and at its end, "lap FRAMES READS P50_US P99_US MAX_US LATE GAP_US OPEN" of the time since the last: latencies from
   "sent_us" of the first message of a read to that read; how often a client read nothing for longer than LATE_US, and
   the longest that one did; clients that are set up.
   After each round of reads it sleeps for PAUSE_US. With a RATE, so many clients a second connect from the first line
   on, until all have. */
struct peer { int fd, http, have, setup, pinged; size_t asked; unsigned char ask[125];
              uint64_t skip; unsigned char head[10]; int64_t read_us; };
static char buffer[1 << 18];
static uint64_t frames, reads;
static uint32_t *samples;
static size_t n_samples, max_samples = 4u << 20;
static int64_t late_us, late, longest_us;
static int n_open;
static int64_t clock_us(clockid_t id) {
    struct timespec now;
    clock_gettime(id, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}
static void mark(struct peer *p, int64_t now_us) {
    int64_t gap_us = now_us - p->read_us;
    if (gap_us > longest_us) longest_us = gap_us;
    late += gap_us > late_us;
    p->read_us = now_us;
}
static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}
static void sample(const char *data, size_t size) {
    const char *at = memmem(data, size, "\"sent_us\":", 10);
    if (!at || n_samples == max_samples || at + 30 > data + size) return;
    int64_t us = clock_us(CLOCK_REALTIME) - strtoll(at + 10, NULL, 10);
    samples[n_samples++] = us < 0 ? 0 : us;
}
static void pong(struct peer *p) {
    unsigned char answer[6 + sizeof p->ask] = {0x8a, 0x80 | p->asked};
    memcpy(answer + 6, p->ask, p->asked);
    send(p->fd, answer, 6 + p->asked, MSG_DONTWAIT | MSG_NOSIGNAL);
}
static int take(struct peer *p, const unsigned char *data, size_t size) {  /* how many frames begin in the data */
    static const char end[] = "\r\n\r\n";
    int n = 0;
    size_t i = 0;
    while (p->http < 4 && i < size) { p->http = data[i] == end[p->http] ? p->http + 1 : data[i] == '\r'; i++; }
    while (i < size) {
        if (p->skip) {
            uint64_t step = size - i < p->skip ? size - i : p->skip;
            for (size_t k = 0; p->pinged && k < step && p->asked < sizeof p->ask; k++) p->ask[p->asked++] = data[i + k];
            p->skip -= step; i += step;
            if (p->pinged && !p->skip) pong(p);
            continue;
        }
        p->head[p->have++] = data[i++];
        int length = p->have < 2 ? 0 : p->head[1] & 127, need = length == 126 ? 4 : length == 127 ? 10 : 2;
        if (p->have < 2 || p->have < need) continue;
        uint64_t payload = length < 126 ? length : 0;
        for (int k = 2; k < need; k++) payload = payload << 8 | p->head[k];
        p->skip = payload; p->have = 0;
        p->pinged = p->head[0] == 0x89; p->asked = 0;
        n += !p->pinged;
    }
    return n;
}
static int receive(struct peer *p) {
    ssize_t size = recv(p->fd, buffer, sizeof buffer, 0);
    if (size <= 0) return -1;
    int n = take(p, (unsigned char *)buffer, size);
    reads++;
    int waits = p->setup > 0;
    if (!waits) { frames += n; sample(buffer, size); }
    if (late_us && !waits) mark(p, clock_us(CLOCK_MONOTONIC));
    p->setup -= n;
    if (waits && p->setup <= 0) { n_open++; p->read_us = clock_us(CLOCK_MONOTONIC); }
    return n;
}
static void greet(struct peer *p, int port, const char *path, const char *request) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char text[2048];
    int one = 1;
    p->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(p->fd, (struct sockaddr *)&to, sizeof to)) { perror("sink: connect"); exit(1); }
    setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    int size = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: localhost\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", path);
    int length = strcspn(request, "\n");
    if (length > 125) exit(2);
    if (length) {
        text[size++] = (char)0x81; text[size++] = (char)(0x80 | length);
        memset(text + size, 0, 4); size += 4;
        memcpy(text + size, request, length); size += length;
    }
    if (send(p->fd, text, size, 0) != size) { perror("sink: send"); exit(1); }
}
static void await_setup(struct peer *p) {
    while (p->http < 4 || p->setup > 0)
        if (receive(p) < 0) { fprintf(stderr, "sink: refused\n"); exit(1); }
}
static void lap(struct peer *peers, int n) {
    if (late_us) for (int i = 0; i < n; i++) if (peers[i].fd && peers[i].setup <= 0) {
        int64_t read_us = peers[i].read_us;
        mark(&peers[i], clock_us(CLOCK_MONOTONIC));
        peers[i].read_us = read_us;
    }
    qsort(samples, n_samples, sizeof *samples, by_value);
    printf("lap %lu %lu %u %u %u %ld %ld %d\n", (unsigned long)frames, (unsigned long)reads,
        n_samples ? samples[n_samples / 2] : 0, n_samples ? samples[n_samples * 99 / 100] : 0,
        n_samples ? samples[n_samples - 1] : 0, (long)late, (long)longest_us, n_open);
    fflush(stdout);
    n_samples = 0; frames = reads = 0; late = longest_us = 0;
}
int main(int argc, char **argv) {
    if (argc != 10) return 2;
    int port = atoi(argv[1]), n = atoi(argv[2]), setup = atoi(argv[3]), acks = atoi(argv[6]), open = 1;
    int rate = atoi(argv[8]), greeted = 0, going = 0, pause_us = atoi(argv[9]);
    int64_t due_us = 0;
    late_us = atoll(argv[7]);
    const char *request = argv[5];
    struct peer *peers = calloc(n, sizeof *peers);
    struct epoll_event event = {.events = EPOLLIN}, events[256];
    samples = malloc(max_samples * sizeof *samples);
    int poll = epoll_create1(0);
    while (!rate && greeted < n) {
        struct peer *p = &peers[greeted++];
        p->setup = setup;
        greet(p, port, argv[4], request);
        await_setup(p);
        n_open += !setup;
        request += strcspn(request, "\n");
        request = *request ? request + 1 : argv[5];
        event.data.ptr = p;
        epoll_ctl(poll, EPOLL_CTL_ADD, p->fd, &event);
    }
    event.data.ptr = NULL;
    epoll_ctl(poll, EPOLL_CTL_ADD, 0, &event);
    frames = reads = n_samples = 0;
    late = longest_us = 0;
    for (int i = 0; i < n; i++) peers[i].read_us = clock_us(CLOCK_MONOTONIC);
    printf("ready\n"); fflush(stdout);
    uint64_t told = 0;
    while (open) {
        while (going && greeted < n && clock_us(CLOCK_MONOTONIC) >= due_us) {
            struct peer *p = &peers[greeted++];
            p->setup = setup;
            greet(p, port, argv[4], request);
            n_open += !setup;
            event.data.ptr = p;
            epoll_ctl(poll, EPOLL_CTL_ADD, p->fd, &event);
            due_us += 1000000 / rate;
        }
        int ready = epoll_wait(poll, events, 256, going && greeted < n ? 1 : -1);
        for (int i = 0; i < ready; i++) {
            struct peer *p = events[i].data.ptr;
            if (!p) {
                if (read(0, buffer, 1) <= 0) open = 0;
                else if (rate && !going) { going = 1; due_us = clock_us(CLOCK_MONOTONIC); }
                else { lap(peers, n); told = 0; }
            }
            else if (receive(p) < 0) epoll_ctl(poll, EPOLL_CTL_DEL, p->fd, NULL);
        }
        if (pause_us) usleep(pause_us);
        while (acks && frames / n > told) {
            told++;
            printf("round %lu %lu\n", (unsigned long)frames, (unsigned long)reads); fflush(stdout);
        }
    }
    lap(peers, n);
    return 0;
}
"""

FLOOR_SOURCE = r"""
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
/* floor CLIENTS FRAME_FILE: print the port, shake hands with CLIENTS, then for every line read send the frame to each
   and print the nanoseconds of processor and of wall time that it took. */
static char text[65536], frame[1 << 20];
static long long ns(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}
static int shaken(int listener) {
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    int one = 1, fd = accept(listener, NULL, NULL), size = 0;
    while (fd >= 0 && !memmem(text, size, "\r\n\r\n", 4)) {
        int got = recv(fd, text + size, sizeof text - size, 0);
        if (got <= 0) exit(1);
        size += got;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (send(fd, answer, sizeof answer - 1, 0) < 0) exit(1);
    return fd;
}
int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int n = atoi(argv[1]), *fds = calloc(n, sizeof *fds);
    FILE *file = fopen(argv[2], "rb");
    if (!file) return 2;
    size_t size = fread(frame, 1, sizeof frame, file);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 1024)) return 1;
    getsockname(listener, (struct sockaddr *)&at, &length);
    printf("%d\n", ntohs(at.sin_port)); fflush(stdout);
    for (int i = 0; i < n; i++) fds[i] = shaken(listener);
    while (fgets(text, sizeof text, stdin)) {
        long long cpu = ns(CLOCK_PROCESS_CPUTIME_ID), wall = ns(CLOCK_MONOTONIC);
        for (int i = 0; i < n; i++)
            if (send(fds[i], frame, size, MSG_NOSIGNAL) != (ssize_t)size) return 1;
        printf("%lld %lld\n", ns(CLOCK_PROCESS_CPUTIME_ID) - cpu, ns(CLOCK_MONOTONIC) - wall); fflush(stdout);
    }
    return 0;
}
"""


def raise_file_limit(wanted: int) -> None:
    """Let this process and its children open so many files, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        highest = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, highest), hard))


def require_file_limit(wanted: int) -> None:
    """As :func:`raise_file_limit`; ends the benchmark where the system does not allow so many."""
    raise_file_limit(wanted)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        raise SystemExit(f"{wanted} open files are needed and {hard} allowed: raise the hard limit (ulimit -Hn)")


def settle(pid: int, *, reads: bool) -> None:
    """Put a sender on one core and its reader on another: left alone, they share one now and then, which is cheaper."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(pid, {cores[1 if reads else 0]})


class Programs(msgspec.Struct, frozen=True):
    """Paths of the compiled programs."""

    sink: Path
    floor: Path


def build(folder: Path) -> Programs:
    """Compile both. Ends the benchmark where there is no compiler: without the sink there is nothing to measure."""
    programs = Programs(folder / "sink", folder / "floor")
    for path, source in ((programs.sink, SINK_SOURCE), (programs.floor, FLOOR_SOURCE)):
        text = path.with_suffix(".c")
        text.write_text(source, encoding="utf-8")
        command = ["cc", "-O2", "-D_GNU_SOURCE", "-o", str(path), str(text)]
        try:
            subprocess.run(command, check=True, timeout=60, capture_output=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise SystemExit(f"no C compiler (cc) that builds the {path.name}: {error}") from None
    return programs


class Program:
    """A running C program that is spoken to in lines."""

    def __init__(self, path: Path, arguments: Sequence[object]) -> None:
        command = [str(path), *map(str, arguments)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.name = path.name
        settle(self._process.pid, reads=path.name == "sink")

    def line(self) -> list[str]:
        """The words of the next line. Ends the benchmark if the program ended instead."""
        assert self._process.stdout is not None
        words = self._process.stdout.readline().decode().split()
        if not words:
            raise SystemExit(f"the {self.name} ended early")
        return words

    def tell(self) -> None:
        """Send an empty line."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def ask(self) -> list[str]:
        """Send an empty line and give the answer."""
        self.tell()
        return self.line()

    def finish(self) -> list[str]:
        """Close its input and give its last line."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        words: list[str] = []
        assert self._process.stdout is not None
        for line in self._process.stdout:
            words = line.decode().split()
        return words

    def end(self) -> None:
        """End it, if it has not ended."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class SinkCounts(msgspec.Struct, frozen=True):
    """What a sink counted since the last time, and latencies from ``sent_us`` of a message to its read."""

    frames: int
    reads: int
    p50_us: int
    p99_us: int
    max_us: int
    late: int
    """How often a client read nothing for longer than ``late_us``."""
    longest_gap_us: int
    open: int
    """Clients that are set up."""


class Sink(Program):
    """Reads for ``n_clients`` clients. Constructed when all of them are set up.

    With ``per_second`` they connect later: so many a second from :meth:`begin` on. With ``pause_us`` it sleeps for so
    long after each round of reads: then nobody pays for waking it with every frame.
    """

    def __init__(
        self,
        programs: Programs,
        port: int,
        n_clients: int,
        *,
        setup: int,
        path: str,
        request: str,
        acks: bool = True,
        late_us: int = 0,
        per_second: int = 0,
        pause_us: int = 0,
    ) -> None:
        arguments = (port, n_clients, setup, path, request, int(acks), late_us, per_second, pause_us)
        super().__init__(programs.sink, arguments)
        if self.line() != ["ready"]:
            raise SystemExit("the sink did not get ready")

    def round(self) -> None:
        """Wait until every client has read one more frame."""
        self.line()

    def begin(self) -> None:
        """Let the first client connect."""
        self.tell()

    def lap(self) -> SinkCounts:
        """What it counted since it began, or since the last lap. Not together with rounds."""
        return SinkCounts(*map(int, self.ask()[1:]))

    def counts(self) -> SinkCounts:
        """End it, and give what it counted."""
        return SinkCounts(*map(int, self.finish()[1:]))
