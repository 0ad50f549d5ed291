/*
 * Numbers in memory, octet by octet: any alignment, any byte order of the host.
 * The compiler makes one load or store of each.
 */
#ifndef TUNSTACK_OCTETS_H
#define TUNSTACK_OCTETS_H

#include <stdint.h>
#include <string.h>

enum {
    KEY_SOURCE = 1,
    KEY_DESTINATION = 17,
    KEY_PORTS = 33,
    KEY_ADDRESSES_LEN = 32,

    ICMP4 = 1,
    TCP = 6,
    UDP = 17,
    ICMP6 = 58,

    TCP_CHECKSUM = 16,
    UDP_CHECKSUM = 6,

    VIRTIO_LEN = 10,
    NEEDS_CSUM = 1,
    DATA_VALID = 2,
    GSO_TCPV4 = 1,
    GSO_TCPV6 = 4,
    GSO_UDP_L4 = 5,
    GSO_ECN = 0x80
};

static const uint8_t MAPPED[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static inline uint16_t
get16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static inline uint32_t
get32(const uint8_t *at)
{
    return (uint32_t)get16(at) << 16 | get16(at + 2);
}

static inline void
put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline void
put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value & 0xffff);
}

/* Virtio headers of a TUN are in the byte order of the host. */
static inline uint16_t
get16_native(const uint8_t *at)
{
    uint16_t value;

    memcpy(&value, at, sizeof value);
    return value;
}

static inline void
put16_native(uint8_t *at, uint16_t value)
{
    memcpy(at, &value, sizeof value);
}

#endif
