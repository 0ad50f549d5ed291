#include <stdbool.h>
#include <string.h>

#include "kernels.h"
#include "octets.h"

enum {
    IPV4_LEN = 20,
    IPV6_LEN = 40,
    TCP_LEN = 20,
    UDP_LEN = 8,
    MAX_OPTIONS = 40,
    DONT_FRAGMENT = 0x4000,
    HOP_LIMIT = 64
};

/*
 * The answer's IP layer: where its headers are, and the sum of the pseudo header.
 */
typedef struct {
    uint8_t *network;
    uint8_t *transport;
    bool is_v4;
    uint16_t pseudo;
} answer;

/*
 * Write the IP header and the ports of a packet with length octets behind its IP
 * header; header_len of them are the transport header. Returns 0 or an error.
 */
static int32_t
begin(answer *a, uint8_t *out, size_t out_len, const uint8_t *key,
      uint32_t header_len, uint32_t length, uint16_t ident, uint8_t vnet)
{
    uint32_t network_len;
    uint8_t number[4];
    uint8_t *p;

    a->is_v4 = memcmp(key + KEY_DESTINATION, MAPPED, sizeof MAPPED) == 0;
    network_len = a->is_v4 ? IPV4_LEN : IPV6_LEN;
    if (vnet != 0 && vnet != VIRTIO_LEN)
        return TS_E_RANGE;
    if (length > (a->is_v4 ? 0xffffu - IPV4_LEN : 0xffffu))
        return TS_E_RANGE;
    if (out_len < vnet + network_len + header_len)
        return TS_E_SPACE;
    p = a->network = out + vnet;
    a->transport = p + network_len;
    put32(number, length + key[0]);
    a->pseudo = ts_sum16(number, sizeof number, 0);
    /* The prefix of an IPv4-mapped address adds 0xffff: one's complement zero. */
    a->pseudo = ts_sum16(key + KEY_SOURCE, KEY_ADDRESSES_LEN, a->pseudo);
    if (a->is_v4) {
        put16(p, 0x4500);
        put16(p + 2, IPV4_LEN + length);
        put16(p + 4, ident);
        put16(p + 6, ident ? 0 : DONT_FRAGMENT);
        p[8] = HOP_LIMIT;
        p[9] = key[0];
        put16(p + 10, 0);
        memcpy(p + 12, key + KEY_DESTINATION + sizeof MAPPED, 4);
        memcpy(p + 16, key + KEY_SOURCE + sizeof MAPPED, 4);
        put16(p + 10, (uint16_t)~ts_sum16(p, IPV4_LEN, 0));
    } else {
        put32(p, 6u << 28);
        put16(p + 4, length);
        p[6] = key[0];
        p[7] = HOP_LIMIT;
        memcpy(p + 8, key + KEY_DESTINATION, 16);
        memcpy(p + 24, key + KEY_SOURCE, 16);
    }
    memcpy(a->transport, key + KEY_PORTS + 2, 2);
    memcpy(a->transport + 2, key + KEY_PORTS, 2);
    return 0;
}

/* Write a virtio header that leaves the checksum, and cutting, to the kernel. */
static void
put_virtio(const answer *a, uint8_t *out, uint32_t header_len, uint16_t cut,
           uint16_t checksum)
{
    uint16_t start = (uint16_t)(a->transport - a->network);
    uint8_t gso_type = 0;

    if (cut)
        gso_type = a->is_v4 ? GSO_TCPV4 : GSO_TCPV6;
    out[0] = NEEDS_CSUM;
    out[1] = gso_type;
    put16_native(out + 2, (uint16_t)(start + header_len));
    put16_native(out + 4, cut);
    put16_native(out + 6, start);
    put16_native(out + 8, checksum);
}

int32_t
ts_frame_tcp(uint8_t *out, size_t out_len, const uint8_t *key, uint32_t seq,
             uint32_t ack, uint8_t flags, uint16_t window,
             const uint8_t *options, size_t options_len, uint32_t payload_len,
             uint16_t payload_sum, uint16_t ident, uint16_t gso, uint8_t vnet)
{
    uint32_t header_len = TCP_LEN + (uint32_t)options_len;
    uint16_t checksum;
    int32_t error;
    answer a;
    uint8_t *p;

    if (options_len % 4 || options_len > MAX_OPTIONS || payload_len > 0xffff)
        return TS_E_RANGE;
    error = begin(&a, out, out_len, key, header_len, header_len + payload_len,
                  ident, vnet);
    if (error)
        return error;
    p = a.transport;
    put32(p + 4, seq);
    put32(p + 8, ack);
    put16(p + 12, header_len / 4 << 12 | flags);
    put16(p + 14, window);
    put16(p + TCP_CHECKSUM, payload_sum); /* counted in with the header */
    put16(p + 18, 0);
    if (options_len)
        memcpy(p + TCP_LEN, options, options_len);
    checksum = a.pseudo;
    if (vnet) {
        uint16_t cut = payload_len > gso ? gso : 0;

        put_virtio(&a, out, header_len, cut, TCP_CHECKSUM);
    } else {
        checksum = (uint16_t)~ts_sum16(p, header_len, checksum);
    }
    put16(p + TCP_CHECKSUM, checksum);
    return (int32_t)(p - out) + (int32_t)header_len;
}

int32_t
ts_frame_udp(uint8_t *out, size_t out_len, const uint8_t *key,
             uint32_t payload_len, uint16_t payload_sum, uint16_t ident,
             uint8_t vnet)
{
    uint32_t length = UDP_LEN + payload_len;
    uint16_t checksum;
    int32_t error;
    answer a;
    uint8_t *p;

    if (payload_len > 0xffff)
        return TS_E_RANGE;
    error = begin(&a, out, out_len, key, UDP_LEN, length, ident, vnet);
    if (error)
        return error;
    p = a.transport;
    put16(p + 4, length);
    put16(p + UDP_CHECKSUM, payload_sum); /* counted in with the header */
    checksum = a.pseudo;
    if (vnet) {
        put_virtio(&a, out, UDP_LEN, 0, UDP_CHECKSUM);
    } else {
        /* 0 would say that there is none: it goes as its other form. */
        checksum = (uint16_t)~ts_sum16(p, UDP_LEN, checksum);
        if (checksum == 0)
            checksum = 0xffff;
    }
    put16(p + UDP_CHECKSUM, checksum);
    return (int32_t)(p - out) + UDP_LEN;
}
