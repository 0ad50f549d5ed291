/*
 * Calls each kernel as often as the argument says, and has callgrind count one dump for
 * each. Without an argument it prints their names, in the order of the dumps.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <valgrind/callgrind.h>

#include "kernels.h"

enum { SLOTS = 64, STRIDE = 65664, VNET = 10, MESSAGE = 64 * (8 + 64) };

static uint8_t arena[SLOTS * STRIDE], out[110], message[65536 + MESSAGE];
static uint8_t key[37] = {6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 18, 0, 1,
                          0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 96, 0, 1,
                          0x9c, 0x40, 0, 80};
static uint32_t lengths[SLOTS], spans[4 * SLOTS], found[4 * SLOTS];
static ts_record records[SLOTS];

static void
require(int condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "%s\n", what);
        exit(1);
    }
}

static void
make_packets(size_t vnet, uint32_t text)
{
    memset(arena, 0, sizeof arena);
    for (int slot = 0; slot < SLOTS; slot++) {
        uint8_t *at = arena + slot * STRIDE;
        int32_t size =
            ts_frame_tcp(at, 110, key, 1, 2, 16, 512, NULL, 0, text, 0, 0, 0, vnet);
        require(size > 0, "no packet");
        lengths[slot] = size + text;
    }
}

static void
make_spans(int count, uint32_t size)
{
    for (int at = 0; at < count; at++) {
        spans[4 * at] = 4;
        spans[4 * at + 1] = 1 + 2 * at;
        spans[4 * at + 2] = at * size;
        spans[4 * at + 3] = (at + 1) * size;
    }
    require(ts_pack_frames(message, sizeof message, arena, sizeof arena, spans, count) > 0,
            "no message");
}

/*
 * In units of this the counts of another compiler can be compared: FNV-1a over octets of
 * which some are passed over. Each step needs the one before, so nothing is done at once.
 */
static int64_t
reference_loop(void)
{
    uint32_t hash = 2166136261u;
    for (size_t at = 0; at < 1000; at++)
        if (arena[at] != 1)
            hash = (hash ^ arena[at]) * 16777619u;
    return hash;
}

static int64_t
sum_40(void)
{
    return ts_sum16(arena, 40, 1);
}

static int64_t
sum_1460(void)
{
    return ts_sum16(arena, 1460, 1);
}

static int64_t
sum_65000(void)
{
    return ts_sum16(arena, 65000, 1);
}

static void
make_offloaded(void)
{
    make_packets(VNET, 1400);
}

static void
make_plain(void)
{
    make_packets(0, 1400);
}

static int64_t
parse_1(void)
{
    return ts_parse_batch(arena, sizeof arena, STRIDE, lengths, 1, VNET, records) == 1 &&
           records[0].verdict == TS_DELIVER;
}

static int64_t
parse_64(void)
{
    return ts_parse_batch(arena, sizeof arena, STRIDE, lengths, SLOTS, VNET, records) ==
               SLOTS &&
           records[SLOTS - 1].verdict == TS_DELIVER;
}

static int64_t
parse_64_plain(void)
{
    return ts_parse_batch(arena, sizeof arena, STRIDE, lengths, SLOTS, 0, records) ==
               SLOTS &&
           records[SLOTS - 1].verdict == TS_DELIVER;
}

static int64_t
frame_tcp(void)
{
    return ts_frame_tcp(out, sizeof out, key, 1, 2, 16, 512, NULL, 0, 60000, 0, 0, 1448,
                        VNET);
}

static int64_t
frame_udp(void)
{
    return ts_frame_udp(out, sizeof out, key, 1200, 0x1234, 0, 0);
}

static void
make_large(void)
{
    make_spans(1, 65536);
}

static void
make_small(void)
{
    make_spans(64, 64);
}

static int64_t
pack_1(void)
{
    return ts_pack_frames(message, sizeof message, arena, sizeof arena, spans, 1);
}

static int64_t
pack_64(void)
{
    return ts_pack_frames(message, sizeof message, arena, sizeof arena, spans, 64);
}

static int64_t
split_64(void)
{
    return ts_split_frames(message, 64 * (8 + 64), found, 64) == 64;
}

static const struct {
    const char *name;
    void (*make)(void);
    int64_t (*run)(void); /* not 0, or the answer is wrong */
} cases[] = {
    {"reference loop", NULL, reference_loop},
    {"sum16, 40 octets", NULL, sum_40},
    {"sum16, 1460 octets", NULL, sum_1460},
    {"sum16, 65000 octets", NULL, sum_65000},
    {"parse_batch, 1 packet", make_offloaded, parse_1},
    {"parse_batch, 64 packets", make_offloaded, parse_64},
    {"parse_batch, 64 packets, plain", make_plain, parse_64_plain},
    {"frame_tcp", NULL, frame_tcp},
    {"frame_udp", NULL, frame_udp},
    {"pack_frames, 1 of 64 KiB", make_large, pack_1},
    {"pack_frames, 64 of 64 octets", make_small, pack_64},
    {"split_frames, 64 of 64 octets", make_small, split_64},
};

int
main(int argc, char **argv)
{
    for (size_t at = 0; at < sizeof cases / sizeof *cases; at++) {
        if (argc < 2) {
            puts(cases[at].name);
            continue;
        }
        if (cases[at].make)
            cases[at].make();
        require(cases[at].run() != 0, cases[at].name);
        int64_t wrong = 0;
        CALLGRIND_START_INSTRUMENTATION;
        CALLGRIND_ZERO_STATS;
        for (long calls = atol(argv[1]); calls; calls--)
            wrong += cases[at].run() == 0;
        CALLGRIND_DUMP_STATS_AT(cases[at].name);
        CALLGRIND_STOP_INSTRUMENTATION;
        require(!wrong, cases[at].name);
    }
    return 0;
}
