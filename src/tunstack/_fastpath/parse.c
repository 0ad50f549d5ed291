#include <stdbool.h>
#include <string.h>

#include "kernels.h"
#include "octets.h"

enum {
    IPV4_LEN = 20,
    IPV6_LEN = 40,
    TCP_LEN = 20,
    UDP_LEN = 8,
    ICMP_LEN = 8,
    EXTENSION_LEN = 8,
    TIMESTAMPS_LEN = 12,
    TIMESTAMPS_HEAD = 0x0101080a, /* NOP, NOP, kind 8, length 10 */

    HOP_BY_HOP = 0,
    ROUTING = 43,
    FRAGMENT = 44,
    DESTINATION = 60
};

/*
 * A packet on its way through the functions below. Offsets count from the IP
 * header. Each function reads p[at..end) and nothing else, leaves at behind what
 * it has read, and returns a verdict.
 */
typedef struct {
    const uint8_t *p;
    uint32_t at;
    uint32_t end; /* 0 until the length is understood */
    bool is_v4;
    bool vouched; /* somebody else answers for the transport checksum */
    ts_record *out;
} packet;

/* This network, loopback, multicast, limited broadcast: RFC 1122, 3.2.1.3. */
static bool
is_bad_v4(const uint8_t *address)
{
    return address[0] == 0 || address[0] == 127 || address[0] >> 4 == 14 ||
           get32(address) == 0xffffffff;
}

/* Unspecified, loopback, IPv4-mapped, link-local, multicast: RFC 4291, 2.4. */
static bool
is_bad_v6(const uint8_t *address)
{
    static const uint8_t zeros[15];

    return address[0] == 0xff ||
           (address[0] == 0xfe && (address[1] & 0xc0) == 0x80) ||
           memcmp(address, MAPPED, sizeof MAPPED) == 0 ||
           (memcmp(address, zeros, sizeof zeros) == 0 && address[15] <= 1);
}

/* Judge a fragment of which so many octets of the whole packet come first. */
static int
judge_fragment(const packet *k, uint32_t before, bool more)
{
    uint32_t length = k->end - k->at;

    if (length == 0 || (more && length % 8) || before + length > 0xffff)
        return TS_BAD_FRAGMENT;
    return TS_FRAGMENT;
}

static int
parse_ipv4(packet *k, size_t available)
{
    const uint8_t *p = k->p;
    uint32_t header, total, fragment, offset;
    uint8_t *key = k->out->key;

    if (available < IPV4_LEN)
        return TS_TRUNCATED;
    header = (p[0] & 15u) * 4;
    total = get16(p + 2);
    if (header < IPV4_LEN)
        return TS_BAD_HEADER_LENGTH;
    if (total < header || total > available)
        return TS_BAD_TOTAL_LENGTH;
    k->end = total;
    if (ts_sum16(p, header, 0) != 0xffff)
        return TS_BAD_CHECKSUM;
    key[0] = p[9];
    memcpy(key + KEY_SOURCE, MAPPED, sizeof MAPPED);
    memcpy(key + KEY_SOURCE + sizeof MAPPED, p + 12, 4);
    memcpy(key + KEY_DESTINATION, MAPPED, sizeof MAPPED);
    memcpy(key + KEY_DESTINATION + sizeof MAPPED, p + 16, 4);
    if (is_bad_v4(p + 12) || is_bad_v4(p + 16))
        return TS_BAD_ADDRESS;
    k->at = header;
    fragment = get16(p + 6);
    offset = (fragment & 0x1fff) * 8;
    if (offset || fragment & 0x2000)
        return judge_fragment(k, header + offset, fragment & 0x2000);
    return TS_DELIVER;
}

/* Whether all options may be skipped: RFC 8200, section 4.2. */
static bool
skips(const uint8_t *options, uint32_t len)
{
    uint32_t at = 0;

    while (at < len) {
        if (options[at] == 0) { /* Pad1 */
            at++;
            continue;
        }
        if (options[at] & 0xc0 || len - at < 2)
            return false;
        at += 2u + options[at + 1];
    }
    return at == len;
}

/* Skip one extension header other than a fragment header. */
static int
skip_extension(packet *k, uint8_t protocol)
{
    const uint8_t *p = k->p + k->at;
    uint32_t size = EXTENSION_LEN + p[1] * 8u;
    bool usable;

    if (size > k->end - k->at)
        return TS_BAD_EXTENSION_HEADER;
    if (protocol == ROUTING)
        usable = p[3] == 0;
    else
        usable = (protocol != HOP_BY_HOP || k->at == IPV6_LEN) &&
                 skips(p + 2, size - 2);
    if (!usable)
        return TS_BAD_EXTENSION_HEADER;
    k->at += size;
    return TS_DELIVER;
}

static int
parse_ipv6(packet *k, size_t available)
{
    const uint8_t *p = k->p;
    uint8_t *key = k->out->key;

    if (available < IPV6_LEN)
        return TS_TRUNCATED;
    if (IPV6_LEN + (size_t)get16(p + 4) > available)
        return TS_BAD_TOTAL_LENGTH;
    k->end = IPV6_LEN + (uint32_t)get16(p + 4);
    key[0] = p[6];
    memcpy(key + KEY_SOURCE, p + 8, KEY_ADDRESSES_LEN);
    if (is_bad_v6(p + 8) || is_bad_v6(p + 24))
        return TS_BAD_ADDRESS;
    k->at = IPV6_LEN;
    while (key[0] == HOP_BY_HOP || key[0] == ROUTING || key[0] == FRAGMENT ||
           key[0] == DESTINATION) {
        const uint8_t *extension = p + k->at;

        if (k->end - k->at < EXTENSION_LEN)
            return TS_BAD_EXTENSION_HEADER;
        if (key[0] == FRAGMENT) {
            uint32_t fragment = get16(extension + 2);
            /* What counts is the length of the payload: RFC 8200, 4.5. */
            uint32_t before = k->at - IPV6_LEN + (fragment & 0xfff8);

            k->at += EXTENSION_LEN;
            key[0] = extension[0];
            if (fragment & 0xfff9)
                return judge_fragment(k, before, fragment & 1);
        } else {
            int verdict = skip_extension(k, key[0]);

            if (verdict != TS_DELIVER)
                return verdict;
            key[0] = extension[0];
        }
    }
    return TS_DELIVER;
}

/* Read the virtio header of a packet whose transport header lies at k->at. */
static int
parse_virtio(packet *k, const uint8_t *header)
{
    uint8_t protocol = k->out->key[0];
    uint8_t flags = header[0], kind = header[1] & (uint8_t)~GSO_ECN;
    uint16_t gso_size = get16_native(header + 4);
    uint32_t start = get16_native(header + 6);
    uint32_t offset = get16_native(header + 8);

    if (flags & ~(NEEDS_CSUM | DATA_VALID) ||
        get16_native(header + 2) > k->end)
        return TS_BAD_VIRTIO_HEADER;
    if (flags & NEEDS_CSUM) {
        if (protocol != TCP && protocol != UDP)
            return TS_BAD_VIRTIO_HEADER;
        if (start != k->at || start + offset + 2 > k->end ||
            offset != (protocol == TCP ? TCP_CHECKSUM : UDP_CHECKSUM))
            return TS_BAD_VIRTIO_HEADER;
    }
    k->vouched = flags != 0;
    if (kind == 0)
        return TS_DELIVER;
    if (gso_size == 0)
        return TS_BAD_VIRTIO_HEADER;
    if (!(protocol == TCP && kind == (k->is_v4 ? GSO_TCPV4 : GSO_TCPV6)) &&
        !(protocol == UDP && kind == GSO_UDP_L4))
        return TS_BAD_VIRTIO_HEADER;
    k->out->gso = gso_size;
    return TS_DELIVER;
}

/* The prefix of an IPv4-mapped address adds 0xffff: one's complement zero. */
static bool
verify(const packet *k, uint32_t length)
{
    const uint8_t *key = k->out->key;
    uint8_t pseudo[4];
    uint16_t sum;

    put32(pseudo, length + key[0]);
    sum = ts_sum16(pseudo, sizeof pseudo, 0);
    sum = ts_sum16(key + KEY_SOURCE, KEY_ADDRESSES_LEN, sum);
    return ts_sum16(k->p + k->at, length, sum) == 0xffff;
}

static int
judge_ports(const uint8_t *key)
{
    bool zero = get16(key + KEY_PORTS) == 0 || get16(key + KEY_PORTS + 2) == 0;

    return zero ? TS_BAD_PORT : TS_DELIVER;
}

/* Most segments have no option but the timestamps: RFC 7323, appendix A. */
static void
read_options(const uint8_t *options, uint32_t len, ts_record *out)
{
    if (len == 0) {
        out->code = TS_NO_OPTIONS;
    } else if (len == TIMESTAMPS_LEN && get32(options) == TIMESTAMPS_HEAD) {
        out->code = TS_TIMESTAMPS;
        out->tsval = get32(options + 4);
    } else {
        out->code = TS_MORE_OPTIONS;
    }
}

static int
parse_tcp(packet *k)
{
    const uint8_t *p = k->p + k->at;
    ts_record *out = k->out;
    uint32_t header, length = k->end - k->at;

    if (length < TCP_LEN)
        return TS_BAD_TRANSPORT_HEADER;
    memcpy(out->key + KEY_PORTS, p, 4);
    header = (p[12] >> 4) * 4u;
    if (header < TCP_LEN || header > length)
        return TS_BAD_TRANSPORT_HEADER;
    if (!k->vouched && !verify(k, length))
        return TS_BAD_CHECKSUM;
    out->seq = get32(p + 4);
    out->ack = get32(p + 8);
    out->flags = p[13];
    out->window = get16(p + 14);
    out->options = k->at + TCP_LEN;
    out->end = k->end;
    read_options(p + TCP_LEN, header - TCP_LEN, out);
    k->at += header;
    return judge_ports(out->key);
}

static int
parse_udp(packet *k)
{
    const uint8_t *p = k->p + k->at;
    ts_record *out = k->out;
    uint32_t length;
    bool intact;

    if (k->end - k->at < UDP_LEN)
        return TS_BAD_TRANSPORT_HEADER;
    memcpy(out->key + KEY_PORTS, p, 4);
    length = get16(p + 4);
    if (length < UDP_LEN || length > k->end - k->at)
        return TS_BAD_TRANSPORT_HEADER;
    /* No checksum at all is for IPv4 only: RFC 8200, section 8.1. */
    intact = k->vouched ||
             (get16(p + 6) == 0 ? k->is_v4 : verify(k, length));
    if (!intact)
        return TS_BAD_CHECKSUM;
    out->end = k->at + length;
    k->at += UDP_LEN;
    out->options = k->at;
    return judge_ports(out->key);
}

static int
parse_icmp(packet *k)
{
    const uint8_t *p = k->p + k->at;
    ts_record *out = k->out;
    uint32_t length = k->end - k->at;
    bool intact, echo;

    if (length < ICMP_LEN)
        return TS_BAD_TRANSPORT_HEADER;
    if (k->is_v4) {
        intact = k->vouched || ts_sum16(p, length, 0) == 0xffff;
        echo = p[0] == 0 || p[0] == 8;
    } else {
        intact = k->vouched || verify(k, length);
        echo = p[0] == 128 || p[0] == 129;
    }
    if (!intact)
        return TS_BAD_CHECKSUM;
    if (echo) {
        memcpy(out->key + KEY_PORTS, p + 4, 2);
        out->seq = get16(p + 6);
    }
    out->flags = p[0];
    out->code = p[1];
    out->options = k->at;
    out->end = k->end;
    k->at += ICMP_LEN;
    return TS_DELIVER;
}

/* The offsets left in k->out count from the IP header. */
static int
parse(packet *k, const uint8_t *slot, size_t len, size_t vnet)
{
    int verdict;
    uint8_t protocol;

    if (len <= vnet)
        return TS_TRUNCATED;
    k->p = slot + vnet;
    k->is_v4 = k->p[0] >> 4 == 4;
    if (k->is_v4)
        verdict = parse_ipv4(k, len - vnet);
    else if (k->p[0] >> 4 == 6)
        verdict = parse_ipv6(k, len - vnet);
    else
        return TS_BAD_VERSION;
    if (verdict != TS_DELIVER)
        return verdict;
    protocol = k->out->key[0];
    if (protocol != TCP && protocol != UDP &&
        protocol != (k->is_v4 ? ICMP4 : ICMP6))
        return TS_UNKNOWN_PROTOCOL;
    if (vnet) {
        verdict = parse_virtio(k, slot);
        if (verdict != TS_DELIVER)
            return verdict;
    }
    if (protocol == TCP)
        return parse_tcp(k);
    if (protocol == UDP)
        return parse_udp(k);
    return parse_icmp(k);
}

/* Make the record of a slot whose IP header lies at ip in the arena. */
static void
parse_slot(const uint8_t *slot, size_t len, size_t vnet, uint32_t ip,
           ts_record *out)
{
    ts_record parsed = {.ip = ip};
    packet k = {.out = &parsed};
    int verdict = parse(&k, slot, len, vnet);

    parsed.verdict = (uint8_t)verdict;
    if (verdict == TS_DELIVER) {
        parsed.options += ip;
        parsed.payload = ip + k.at;
        parsed.end += ip;
        *out = parsed;
        return;
    }
    /* A drop tells no more than where it was and whose. */
    *out = (ts_record){.ip = ip, .verdict = parsed.verdict};
    memcpy(out->key, parsed.key, sizeof out->key);
    if (k.end)
        out->end = ip + k.end;
    if (verdict == TS_FRAGMENT)
        out->payload = ip + k.at;
}

int32_t
ts_parse_batch(const uint8_t *arena, size_t arena_len, size_t stride,
               const uint32_t *lengths, size_t count, size_t vnet,
               ts_record *out)
{
    if ((vnet != 0 && vnet != VIRTIO_LEN) || count > INT32_MAX)
        return TS_E_RANGE;
    for (size_t i = 0; i < count; i++) {
        size_t start = i * stride;

        if (lengths[i] > stride || start > arena_len ||
            lengths[i] > arena_len - start)
            return TS_E_RANGE;
        parse_slot(arena + start, lengths[i], vnet, (uint32_t)(start + vnet),
                   &out[i]);
    }
    return (int32_t)count;
}
