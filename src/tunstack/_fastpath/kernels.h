/*
 * The contract between Python and C. Included by the C sources and, minus its
 * preprocessor lines, read by CFFI. Each kernel is pure: pointer, length, result;
 * no allocation, no globals, no callbacks. A negative result is one of TS_E_*.
 * reference.py specifies each one in Python.
 */
#ifndef TUNSTACK_KERNELS_H
#define TUNSTACK_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum { TS_ABI = 3 }; /* raise on any change below */

enum {
    TS_E_SPACE = -1,  /* the result does not fit the memory given for it */
    TS_E_RANGE = -2,  /* an offset or a length points outside the input */
    TS_E_FRAME = -3   /* the message does not end with a whole frame */
};

/*
 * ts_sum16: add a byte string to an Internet checksum (RFC 1071, section 1).
 *
 *   data     first byte, any alignment; not read when len is 0
 *   len      bytes; an odd tail counts as if followed by one zero byte
 *   partial  sum so far, host order; when summing in pieces, every piece but
 *            the last has even length
 *
 * Returns the sum, host order, folded to 16 bits and not complemented.
 * Non-zero input never folds to 0: 0xffff stands for zero, as on the wire.
 */
uint16_t ts_sum16(const uint8_t *data, size_t len, uint16_t partial);

/* What becomes of a packet: Verdict in record.py. */
enum {
    TS_DELIVER = 0,
    TS_FRAGMENT = 1,
    TS_TRUNCATED = 2,
    TS_BAD_VERSION = 3,
    TS_BAD_HEADER_LENGTH = 4,
    TS_BAD_TOTAL_LENGTH = 5,
    TS_BAD_CHECKSUM = 6,
    TS_BAD_ADDRESS = 7,
    TS_UNKNOWN_PROTOCOL = 8,
    TS_BAD_EXTENSION_HEADER = 9,
    TS_BAD_TRANSPORT_HEADER = 10,
    TS_BAD_PORT = 11,
    TS_BAD_VIRTIO_HEADER = 12,
    TS_BAD_FRAGMENT = 13
};

/* What options a TCP segment has: record.py. */
enum { TS_NO_OPTIONS = 0, TS_TIMESTAMPS = 1, TS_MORE_OPTIONS = 2 };

/*
 * One parsed packet. Offsets count from the start of the arena. What a field
 * holds for TCP, UDP and ICMP is said in record.py.
 */
typedef struct {
    uint32_t seq;
    uint32_t ack;
    uint32_t ip;      /* first octet of the IP header */
    uint32_t options; /* first octet of the TCP options */
    uint32_t payload; /* first octet behind the transport header */
    uint32_t end;     /* behind the last octet of the payload */
    uint16_t window;
    uint16_t gso;     /* gso_size of the virtio header, 0 without */
    uint8_t verdict;
    uint8_t flags;
    uint8_t code;
    uint8_t key[37];  /* protocol, source, destination, ports (network order) */
    uint32_t tsval;   /* TSval of the TCP options, if they are nothing else */
} ts_record;

/*
 * ts_parse_batch: validate packets and say where their parts are.
 *
 *   arena, arena_len  memory of all slots; nothing outside is read
 *   stride            octets from one slot to the next
 *   lengths, count    octets used in each slot, virtio header included
 *   vnet              octets of virtio header before each packet: 10 or 0
 *   out               count records are written
 *
 * Returns count, or TS_E_RANGE when a slot does not lie inside the arena or
 * vnet is neither.
 */
int32_t ts_parse_batch(const uint8_t *arena, size_t arena_len, size_t stride,
                       const uint32_t *lengths, size_t count, size_t vnet,
                       ts_record *out);

/*
 * ts_frame_tcp, ts_frame_udp: headers of a packet that answers a flow.
 *
 *   out, out_len   room for the headers: 110 octets are always enough
 *   key            37 octets as parsed from the flow's packets: the answer's
 *                  source is the key's destination. An IPv4-mapped source
 *                  makes an IPv4 packet.
 *   options        TCP options, a multiple of 4 octets, at most 40
 *   payload_len    octets that follow the headers
 *   payload_sum    ts_sum16 of the payload; ignored when vnet is 10
 *   ident          IPv4 identification of a packet that routers may cut; 0 is
 *                  for one that they may not: DF is set (RFC 6864, section 4)
 *   gso            with vnet: octets of payload in each segment that the
 *                  kernel is to cut from this one, 0 when it must not
 *   vnet           10: a virtio header (NEEDS_CSUM) comes first and the
 *                  checksum field holds the sum of the pseudo header; 0: no
 *                  virtio header, checksum complete
 *
 * TTL and hop limit are 64. Returns the octets written,
 * or TS_E_SPACE, or TS_E_RANGE (options or payload too long for IP, or a vnet
 * that is neither).
 */
int32_t ts_frame_tcp(uint8_t *out, size_t out_len, const uint8_t *key,
                     uint32_t seq, uint32_t ack, uint8_t flags,
                     uint16_t window, const uint8_t *options,
                     size_t options_len, uint32_t payload_len,
                     uint16_t payload_sum, uint16_t ident, uint16_t gso,
                     uint8_t vnet);

int32_t ts_frame_udp(uint8_t *out, size_t out_len, const uint8_t *key,
                     uint32_t payload_len, uint16_t payload_sum,
                     uint16_t ident, uint8_t vnet);

/*
 * ts_pack_frames: write mux frames (docs/protocol.md) one behind the other.
 *
 *   out, out_len      where the frames go
 *   source, len       memory that holds all payloads
 *   spans, count      four words a frame: kind, flow, first octet of its
 *                     payload in source, octet behind its last
 *
 * Returns the octets written, or TS_E_SPACE, or TS_E_RANGE.
 */
int32_t ts_pack_frames(uint8_t *out, size_t out_len, const uint8_t *source,
                       size_t source_len, const uint32_t *spans, size_t count);

/*
 * ts_split_frames: find the frames of one message.
 *
 *   spans, room       four words a frame are written, as above, with offsets
 *                     into message; room for at most that many frames
 *
 * Returns the number of frames, or TS_E_SPACE, or TS_E_FRAME.
 */
int32_t ts_split_frames(const uint8_t *message, size_t len, uint32_t *spans,
                        size_t room);

#endif
