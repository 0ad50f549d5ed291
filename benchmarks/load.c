/*
 * Applications at both ends of a path, cheap enough not to be what is measured.
 *
 *   load serve                            prints "ready PORT": TCP and UDP, any address
 *   load up HOST PORT FLOWS OCTETS        octets in all, and an answer to the last one
 *   load down HOST PORT FLOWS OCTETS
 *   load ask HOST PORT FLOWS COUNT        round trips of 64 octets, one by one on each flow
 *   load connect HOST PORT FLOWS COUNT    connections of one octet there and back, which
 *                                         the server closes; so many at once
 *   load datagrams-up HOST PORT SIZE SECONDS     as many as go out; those that arrive count
 *   load datagrams-down HOST PORT SIZE SECONDS
 *   load hold HOST PORT COUNT             connections; prints "held", and at the end of its
 *                                         input asks on each, prints "answered COUNT"
 *
 * A client prints its result as JSON: seconds; of round trips and connections p50 and p99
 * in seconds as well; of datagrams sent and arrived.
 *
 * The first octet that a client says is what it wants: up, down, ask, or connect.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 1 << 20, ASK = 64, MOST = 64, BATCH = 32 };

typedef struct {
    int fd;
    char wants;     /* what the connection is for; 0 while that is not known */
    int64_t octets; /* received, or left to be sent */
    double began;   /* of a round trip or a connection */
} flow;

static char room[ROOM];
static const char *host;
static struct addrinfo *target;

static double
now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec * 1e-9;
}

static int
must(int result, const char *what)
{
    if (result < 0)
        err(1, "%s", what);
    return result;
}

static void
watch(int poll, flow *of, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.ptr = of};
    must(epoll_ctl(poll, operation, of->fd, &event), "epoll_ctl");
}

static void
without_delay(int fd)
{
    must(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)), "TCP_NODELAY");
}

/* The server. */

static void
serve_datagrams(int fd)
{
    /* What a client asks for: a flood of so many octets for so many milliseconds, or how
     * many datagrams have come since it asked last. */
    static int64_t arrived;
    struct sockaddr_in6 from;
    socklen_t length = sizeof from;
    uint32_t words[3];
    ssize_t got;
    while ((got = recvfrom(fd, room, ROOM, MSG_DONTWAIT, (void *)&from, &length)) >= 0) {
        if (got != sizeof words) {
            arrived++;
            continue;
        }
        memcpy(words, room, sizeof words);
        if (words[0] == 'n') {
            sendto(fd, &arrived, sizeof arrived, 0, (void *)&from, length);
            arrived = 0;
            continue;
        }
        double end = now() + words[2] * 1e-3;
        uint64_t sent = 0;
        for (; now() < end; sent++)
            if (sendto(fd, room, words[1], 0, (void *)&from, length) < 0)
                sent--;
    }
}

static void
drop(flow *of)
{
    close(of->fd);
    free(of);
}

static void
serve_flow(int poll, flow *of)
{
    if (of->wants == 'd' && of->octets) {
        ssize_t sent = send(of->fd, room, of->octets < ROOM ? of->octets : ROOM,
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) {
            drop(of);
            return;
        }
        of->octets -= sent > 0 ? sent : 0;
        if (of->octets == 0)
            watch(poll, of, EPOLLIN, EPOLL_CTL_MOD);
        return;
    }
    ssize_t got = recv(of->fd, room, ROOM, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got > 0 && !of->wants)
        of->wants = room[0];
    if (got > 0 && of->wants == 'a')
        send(of->fd, room, got, MSG_NOSIGNAL);
    if (got > 0 && of->wants == 'u') {
        of->octets += got;
        return;
    }
    if (got == 1 + sizeof of->octets && of->wants == 'd') {
        memcpy(&of->octets, room + 1, sizeof of->octets);
        watch(poll, of, EPOLLOUT, EPOLL_CTL_MOD);
        return;
    }
    if (got > 0 && of->wants == 'c')
        send(of->fd, room, 1, MSG_NOSIGNAL);
    else if (got == 0 && of->wants == 'u')
        send(of->fd, &of->octets, sizeof of->octets, MSG_NOSIGNAL);
    else if (got > 0)
        return;
    drop(of);
}

static void
serve(void)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6};
    socklen_t length = sizeof address;
    flow listener = {.fd = must(socket(AF_INET6, SOCK_STREAM, 0), "socket")};
    flow datagrams = {.fd = must(socket(AF_INET6, SOCK_DGRAM, 0), "socket")};
    int poll = must(epoll_create1(0), "epoll");

    setsockopt(datagrams.fd, SOL_SOCKET, SO_RCVBUFFORCE, &(int){8 << 20}, sizeof(int));
    must(bind(listener.fd, (void *)&address, length), "bind");
    must(listen(listener.fd, 4096), "listen");
    must(getsockname(listener.fd, (void *)&address, &length), "getsockname");
    must(bind(datagrams.fd, (void *)&address, length), "bind");
    watch(poll, &listener, EPOLLIN, EPOLL_CTL_ADD);
    watch(poll, &datagrams, EPOLLIN, EPOLL_CTL_ADD);
    printf("ready %d\n", ntohs(address.sin6_port));
    fflush(stdout);
    for (;;) {
        struct epoll_event events[MOST];
        int count = epoll_wait(poll, events, MOST, -1);
        for (int at = 0; at < count; at++) {
            flow *of = events[at].data.ptr;
            if (of == &datagrams) {
                serve_datagrams(of->fd);
            } else if (of == &listener) {
                flow *new = calloc(1, sizeof *new);
                new->fd = must(accept(of->fd, NULL, NULL), "accept");
                without_delay(new->fd);
                watch(poll, new, EPOLLIN, EPOLL_CTL_ADD);
            } else {
                serve_flow(poll, of);
            }
        }
    }
}

/* Clients. */

static int
dial(void)
{
    int fd = must(socket(target->ai_family, SOCK_STREAM, 0), "socket");
    must(connect(fd, target->ai_addr, target->ai_addrlen), host);
    without_delay(fd);
    return fd;
}

static int
by_size(const void *one, const void *other)
{
    double difference = *(const double *)one - *(const double *)other;
    return (difference > 0) - (difference < 0);
}

static void
report(double seconds, double *times, long count)
{
    qsort(times, count, sizeof *times, by_size);
    printf("{\"seconds\": %.6f, \"p50\": %.7f, \"p99\": %.7f}\n", seconds,
           times[count / 2], times[count * 99 / 100]);
}

static void
transfer(int up, int flows, int64_t octets)
{
    flow all[flows];
    int poll = must(epoll_create1(0), "epoll"), left = flows;
    int64_t share = octets / flows;
    for (int at = 0; at < flows; at++)
        all[at] = (flow){.fd = dial()};
    double began = now();
    for (int at = 0; at < flows; at++) {
        char question[1 + sizeof share] = {up ? 'u' : 'd'};
        memcpy(question + 1, &share, sizeof share);
        all[at].octets = up ? share - 1 : share;
        must(send(all[at].fd, question, up ? 1 : sizeof question, 0), "send");
        watch(poll, &all[at], up ? EPOLLOUT : EPOLLIN, EPOLL_CTL_ADD);
    }
    while (left) {
        struct epoll_event events[MOST];
        int count = must(epoll_wait(poll, events, MOST, -1), "epoll_wait");
        for (int at = 0; at < count; at++) {
            flow *of = events[at].data.ptr;
            if (up && of->octets) {
                ssize_t sent = send(of->fd, room, of->octets < ROOM ? of->octets : ROOM,
                                    MSG_DONTWAIT);
                if (sent < 0 && errno != EAGAIN)
                    err(1, "send");
                of->octets -= sent > 0 ? sent : 0;
                if (of->octets == 0) {
                    must(shutdown(of->fd, SHUT_WR), "shutdown");
                    watch(poll, of, EPOLLIN, EPOLL_CTL_MOD);
                }
                continue;
            }
            ssize_t got = must(recv(of->fd, room, ROOM, MSG_DONTWAIT), "recv");
            if (up) {
                int64_t arrived;
                memcpy(&arrived, room, sizeof arrived);
                if (got != sizeof arrived || arrived != share)
                    errx(1, "not everything arrived");
            } else if (got == 0 || (of->octets -= got) < 0) {
                errx(1, "a wrong number of octets arrived");
            }
            if (up || of->octets == 0) {
                watch(poll, of, 0, EPOLL_CTL_DEL);
                left--;
            }
        }
    }
    printf("{\"seconds\": %.6f}\n", now() - began);
}

static void
ask(int flows, long count)
{
    flow all[flows];
    double *times = calloc(count, sizeof *times);
    long asked = 0, answered = 0;
    int poll = must(epoll_create1(0), "epoll");
    memset(room, 'a', ASK);
    for (int at = 0; at < flows; at++) {
        all[at] = (flow){.fd = dial()};
        watch(poll, &all[at], EPOLLIN, EPOLL_CTL_ADD);
    }
    double began = now();
    for (int at = 0; at < flows && asked < count; at++, asked++) {
        all[at].began = now();
        must(send(all[at].fd, room, ASK, 0), "send");
    }
    while (answered < count) {
        struct epoll_event events[MOST];
        int ready = must(epoll_wait(poll, events, MOST, -1), "epoll_wait");
        for (int at = 0; at < ready; at++) {
            flow *of = events[at].data.ptr;
            ssize_t got = must(recv(of->fd, room, ASK, 0), "recv");
            if (got == 0 || (of->octets += got) > ASK)
                errx(1, "no answer");
            if (of->octets < ASK)
                continue;
            of->octets = 0;
            times[answered++] = now() - of->began;
            if (asked < count) {
                asked++;
                of->began = now();
                must(send(of->fd, room, ASK, 0), "send");
            }
        }
    }
    report(now() - began, times, count);
}

static void
begin(int poll, flow *of)
{
    of->began = now();
    of->fd = must(socket(target->ai_family, SOCK_STREAM | SOCK_NONBLOCK, 0), "socket");
    of->octets = 0;
    if (connect(of->fd, target->ai_addr, target->ai_addrlen) < 0 && errno != EINPROGRESS)
        err(1, "connect");
    watch(poll, of, EPOLLOUT, EPOLL_CTL_ADD);
}

static void
connections(int flows, long count)
{
    flow all[flows];
    double *times = calloc(count, sizeof *times);
    long begun = 0, ended = 0;
    int poll = must(epoll_create1(0), "epoll");
    double began = now();
    for (int at = 0; at < flows && begun < count; at++, begun++)
        begin(poll, &all[at]);
    while (ended < count) {
        struct epoll_event events[MOST];
        int ready = must(epoll_wait(poll, events, MOST, -1), "epoll_wait");
        for (int at = 0; at < ready; at++) {
            flow *of = events[at].data.ptr;
            if (events[at].events & EPOLLOUT) {
                must(send(of->fd, "c", 1, 0), "connect");
                watch(poll, of, EPOLLIN, EPOLL_CTL_MOD);
                continue;
            }
            ssize_t got = must(recv(of->fd, room, ROOM, 0), "recv");
            if (got) {
                of->octets += got;
                continue;
            }
            if (of->octets != 1)
                errx(1, "no answer");
            close(of->fd);
            times[ended++] = now() - of->began;
            if (begun < count) {
                begun++;
                begin(poll, of);
            }
        }
    }
    report(now() - began, times, count);
}

static int64_t
arrived(int fd)
{
    /* Until an answer comes: what floods the path may have cost us the question. */
    for (int tries = 0; tries < 50; tries++) {
        int64_t count;
        send(fd, (uint32_t[3]){'n'}, 12, 0);
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        if (poll(&ready, 1, 100) == 1 && recv(fd, &count, sizeof count, 0) == sizeof count)
            return count;
    }
    errx(1, "no answer");
}

static void
datagrams(int up, uint32_t size, double seconds)
{
    int fd = must(socket(target->ai_family, SOCK_DGRAM, 0), "socket");
    int64_t sent = 0, count = 0;
    must(connect(fd, target->ai_addr, target->ai_addrlen), host);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &(int){8 << 20}, sizeof(int));
    arrived(fd);
    double began = now(), last = began;
    if (up) {
        while ((last = now()) < began + seconds)
            sent += send(fd, room, size, 0) == (ssize_t)size;
        usleep(300000);
        count = arrived(fd);
    } else {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        must(send(fd, (uint32_t[3]){'f', size, seconds * 1e3}, 12, 0), "send");
        while (poll(&ready, 1, 500) == 1) {
            struct mmsghdr messages[BATCH] = {0};
            struct iovec parts[BATCH];
            for (int at = 0; at < BATCH; at++) {
                parts[at] = (struct iovec){room + at * 2048, 2048};
                messages[at].msg_hdr.msg_iov = &parts[at];
                messages[at].msg_hdr.msg_iovlen = 1;
            }
            int got = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
            count += got > 0 ? got : 0;
            last = now();
        }
    }
    printf("{\"seconds\": %.6f, \"sent\": %ld, \"arrived\": %ld}\n", last - began,
           (long)sent, (long)count);
}

static void
hold(int count)
{
    int *all = calloc(count, sizeof *all), answered = 0;
    char answer[ASK];
    memset(room, 'a', ASK);
    for (int round = 0; round < 2; round++) {
        for (int at = 0; at < count; at++) {
            if (round == 0)
                all[at] = dial();
            must(send(all[at], room, ASK, 0), "send");
            answered += recv(all[at], answer, ASK, MSG_WAITALL) == ASK;
        }
        if (round == 0) {
            printf("held\n");
            fflush(stdout);
            answered = 0;
            while (read(0, answer, sizeof answer) > 0)
                ;
        }
    }
    printf("answered %d\n", answered);
}

int
main(int argc, char **argv)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (argc == 2 && !strcmp(argv[1], "serve"))
        serve();
    if (argc < 5)
        errx(2, "see the head of load.c");
    host = argv[2];
    int wrong = getaddrinfo(host, argv[3], &(struct addrinfo){.ai_flags = AI_NUMERICHOST},
                            &target);
    if (wrong)
        errx(1, "%s: %s", host, gai_strerror(wrong));
    const char *command = argv[1];
    double first = atof(argv[4]), second = argc > 5 ? atof(argv[5]) : 0;
    if (!strcmp(command, "up") || !strcmp(command, "down"))
        transfer(command[0] == 'u', first, second);
    else if (!strcmp(command, "ask"))
        ask(first, second);
    else if (!strcmp(command, "connect"))
        connections(first, second);
    else if (!strcmp(command, "datagrams-up") || !strcmp(command, "datagrams-down"))
        datagrams(!strcmp(command, "datagrams-up"), first, second);
    else if (!strcmp(command, "hold"))
        hold(first);
    else
        errx(2, "see the head of load.c");
    return 0;
}
