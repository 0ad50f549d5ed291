/*
 * Any octets into any kernel, for libFuzzer and for replay.c. Memory that a kernel is
 * given has exactly the size that it is told, so the sanitizer sees each octet too many.
 * What a result has to be like, whatever the input, is checked here; that it is right
 * is what the Python twins are for.
 *
 * The first octet says which kernel, the others are the input: see each function.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);     \
            abort();                                                            \
        }                                                                       \
    } while (0)

enum { KEY_LEN = 37, TCP = 6, UDP = 17, MAX_SLOTS = 64, MAX_FRAMES = 256 };

/* What is left of the input; past its end everything is zero. */
typedef struct {
    const uint8_t *at;
    size_t left;
} input;

static uint32_t
number(input *in, size_t size)
{
    uint32_t value = 0;

    while (size--) {
        value = value << 8 | (in->left ? *in->at : 0);
        if (in->left) {
            in->at++;
            in->left--;
        }
    }
    return value;
}

/* Memory of its own for size octets, from the input as far as that goes. */
static uint8_t *
take(input *in, size_t size)
{
    size_t there = size < in->left ? size : in->left;
    uint8_t *copy = calloc(size ? size : 1, 1);

    CHECK(copy);
    if (there)
        memcpy(copy, in->at, there);
    in->at += there;
    in->left -= there;
    return copy;
}

/* A sum so far, how many octets to leave out in front (alignment), and octets. */
static void
sum(input *in)
{
    uint16_t partial = (uint16_t)number(in, 2);
    size_t skip = number(in, 1) % 8, size = in->left;
    uint8_t *data = take(in, size);
    uint64_t want = partial;

    if (skip > size)
        skip = size;
    for (size_t i = skip; i < size; i++)
        want += (uint32_t)data[i] << ((i - skip) % 2 ? 0 : 8);
    while (want >> 16)
        want = (want >> 16) + (want & 0xffff);
    CHECK(ts_sum16(data + skip, size - skip, partial) == want);
    free(data);
}

static void
check_record(const ts_record *r, uint32_t start, uint32_t length, uint32_t vnet)
{
    uint32_t end = start + length;

    CHECK(r->ip == start + vnet);
    if (r->verdict == TS_DELIVER) {
        CHECK(r->ip + 20 <= r->options && r->options <= r->payload);
        CHECK(r->payload <= r->end && r->end <= end);
        CHECK(r->payload - r->options <= 40);
        CHECK(vnet || r->gso == 0);
    } else if (r->verdict == TS_FRAGMENT) {
        CHECK(r->ip + 20 <= r->payload && r->payload < r->end && r->end <= end);
    } else {
        CHECK(r->verdict <= TS_BAD_FRAGMENT && r->payload == 0);
        CHECK(r->end == 0 || (r->ip < r->end && r->end <= end));
    }
}

/* Flags (1: virtio headers), a gap, and slots behind their lengths, of two octets. */
static void
parse(input *in)
{
    uint32_t vnet = number(in, 1) & 1 ? 10 : 0, gap = number(in, 1);
    uint32_t lengths[MAX_SLOTS], longest = 0;
    uint8_t *slots[MAX_SLOTS], *arena;
    size_t count = 0, stride, size;
    ts_record *records;

    while (in->left && count < MAX_SLOTS) {
        uint32_t length = number(in, 2);

        if (length > in->left)
            length = (uint32_t)in->left;
        slots[count] = take(in, length);
        lengths[count++] = length;
        longest = length > longest ? length : longest;
    }
    stride = longest + gap;
    size = count ? (count - 1) * stride + lengths[count - 1] : 0;
    arena = calloc(size ? size : 1, 1);
    records = calloc(count ? count : 1, sizeof *records);
    CHECK(arena && records);
    for (size_t i = 0; i < count; i++)
        memcpy(arena + i * stride, slots[i], lengths[i]);
    CHECK(ts_parse_batch(arena, size, stride, lengths, count, vnet, records) ==
          (int32_t)count);
    for (size_t i = 0; i < count; i++) {
        check_record(&records[i], (uint32_t)(i * stride), lengths[i], vnet);
        free(slots[i]);
    }
    /* A last slot that is one octet longer than the arena is refused. */
    if (count) {
        lengths[count - 1]++;
        CHECK(ts_parse_batch(arena, size, stride + 1, lengths, count, vnet,
                             records) == TS_E_RANGE);
    }
    free(records);
    free(arena);
}

/* What was framed is delivered, unless an address or a port cannot be. */
static void
parse_framed(const uint8_t *header, size_t size, uint32_t text, uint8_t vnet)
{
    uint32_t length = (uint32_t)size + text;
    uint8_t *packet = calloc(length, 1);
    ts_record record;

    CHECK(packet);
    memcpy(packet, header, size);
    CHECK(ts_parse_batch(packet, length, length, &length, 1, vnet, &record) == 1);
    check_record(&record, 0, length, vnet);
    CHECK(record.verdict == TS_DELIVER || record.verdict == TS_BAD_ADDRESS ||
          record.verdict == TS_BAD_PORT);
    CHECK(record.verdict != TS_DELIVER || record.end - record.payload == text);
    free(packet);
}

static void
frame(input *in, uint8_t protocol)
{
    size_t room = number(in, 1) % 112, options_len = number(in, 1) % 48;
    uint8_t vnet = number(in, 1) & 1 ? 10 : 0;
    uint32_t text = number(in, 3) & 0x1ffff, at = number(in, 4), ack = number(in, 4);
    uint8_t flags = (uint8_t)number(in, 1);
    uint16_t window = (uint16_t)number(in, 2), ident = (uint16_t)number(in, 2);
    uint16_t gso = (uint16_t)number(in, 2);
    uint8_t *key = take(in, KEY_LEN), *options = take(in, options_len);
    uint8_t *out = calloc(room ? room : 1, 1);
    int32_t size;

    CHECK(out);
    key[0] = protocol;
    if (protocol == TCP)
        size = ts_frame_tcp(out, room, key, at, ack, flags, window, options,
                            options_len, text, 0, ident, gso, vnet);
    else
        size = ts_frame_udp(out, room, key, text, 0, ident, vnet);
    CHECK(size == TS_E_SPACE || size == TS_E_RANGE || (size > 0 && (size_t)size <= room));
    /* An answer of mixed versions is IPv4, and the pseudo header counts its addresses
     * whole: no flow has such a key. */
    if (size > 0 && (memcmp(key + 1, "\0\0\0\0\0\0\0\0\0\0\377\377", 12) == 0) ==
                        (memcmp(key + 17, "\0\0\0\0\0\0\0\0\0\0\377\377", 12) == 0))
        parse_framed(out, (size_t)size, text, vnet);
    free(out);
    free(options);
    free(key);
}

static void
check_spans(const uint32_t *spans, size_t count, size_t size)
{
    size_t at = 0;

    for (size_t i = 0; i < count; i++, spans += 4) {
        CHECK(spans[0] <= 0xff);
        CHECK(spans[2] == at + 8 && spans[2] <= spans[3] && spans[3] <= size);
        at = spans[3];
    }
    CHECK(at == size);
}

/* How many frames there is room for, and a message. */
static void
split(input *in)
{
    size_t room = number(in, 1), size = in->left;
    uint8_t *message = take(in, size);
    uint32_t *spans = calloc(room ? room : 1, 16);
    int32_t count = ts_split_frames(message, size, spans, room);

    CHECK(spans);
    CHECK(count == TS_E_FRAME || count == TS_E_SPACE ||
          (count >= 0 && (size_t)count <= room));
    if (count >= 0)
        check_spans(spans, (size_t)count, size);
    free(spans);
    free(message);
}

/* Room for the frames, how many there are, their spans, and what these are of. */
static void
pack(input *in)
{
    size_t room = number(in, 2), count = number(in, 1), size;
    uint32_t *spans = calloc(count ? count : 1, 16), *found = calloc(MAX_FRAMES, 16);
    uint8_t *out = calloc(room ? room : 1, 1), *source;
    int32_t written;

    CHECK(spans && found && out);
    for (size_t i = 0; i < 4 * count; i += 4) {
        spans[i] = number(in, 2) & 0x1ff;
        spans[i + 1] = number(in, 4);
        spans[i + 2] = number(in, 2);
        spans[i + 3] = number(in, 2);
    }
    size = in->left;
    source = take(in, size);
    written = ts_pack_frames(out, room, source, size, spans, count);
    CHECK(written == TS_E_SPACE || written == TS_E_RANGE ||
          (written >= 0 && (size_t)written <= room));
    if (written >= 0) {
        CHECK(ts_split_frames(out, (size_t)written, found, MAX_FRAMES) ==
              (int32_t)count);
        check_spans(found, count, (size_t)written);
        for (size_t i = 0; i < 4 * count; i += 4) {
            size_t length = spans[i + 3] - spans[i + 2];

            CHECK(found[i] == spans[i] && found[i + 1] == spans[i + 1]);
            CHECK(found[i + 3] - found[i + 2] == length);
            CHECK(length == 0 || memcmp(out + found[i + 2], source + spans[i + 2],
                                        length) == 0);
        }
    }
    free(source);
    free(out);
    free(found);
    free(spans);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = {data, size};

    switch (number(&in, 1) % 6) {
    case 0:
        sum(&in);
        break;
    case 1:
        parse(&in);
        break;
    case 2:
        frame(&in, TCP);
        break;
    case 3:
        frame(&in, UDP);
        break;
    case 4:
        pack(&in);
        break;
    default:
        split(&in);
    }
    return 0;
}
