#include <string.h>

#include "kernels.h"
#include "octets.h"

enum {
    HEADER_LEN = 8, /* kind 8 bits, length 24 bits, flow 32 bits */
    MAX_LENGTH = 0xffffff
};

int32_t
ts_pack_frames(uint8_t *out, size_t out_len, const uint8_t *source,
               size_t source_len, const uint32_t *spans, size_t count)
{
    size_t at = 0;

    if (out_len > INT32_MAX)
        return TS_E_RANGE;
    for (const uint32_t *span = spans; span < spans + 4 * count; span += 4) {
        uint32_t kind = span[0], start = span[2], end = span[3], length;

        if (start > end || end > source_len || kind > 0xff)
            return TS_E_RANGE;
        length = end - start;
        if (length > MAX_LENGTH)
            return TS_E_RANGE;
        if (out_len - at < HEADER_LEN + (size_t)length)
            return TS_E_SPACE;
        put32(out + at, kind << 24 | length);
        put32(out + at + 4, span[1]);
        at += HEADER_LEN;
        if (length)
            memcpy(out + at, source + start, length);
        at += length;
    }
    return (int32_t)at;
}

int32_t
ts_split_frames(const uint8_t *message, size_t len, uint32_t *spans,
                size_t room)
{
    size_t at = 0, count = 0;

    if (len > INT32_MAX)
        return TS_E_RANGE;
    while (at < len) {
        uint32_t word, *span = spans + 4 * count;

        if (len - at < HEADER_LEN)
            return TS_E_FRAME;
        word = get32(message + at);
        if ((word & MAX_LENGTH) > len - at - HEADER_LEN)
            return TS_E_FRAME;
        if (count++ == room)
            return TS_E_SPACE;
        span[0] = word >> 24;
        span[1] = get32(message + at + 4);
        at += HEADER_LEN;
        span[2] = (uint32_t)at;
        at += word & MAX_LENGTH;
        span[3] = (uint32_t)at;
    }
    return (int32_t)count;
}
