#include <string.h>

#include "kernels.h"

/* Fold a sum to 16 bits; what is not zero never becomes zero. */
static uint16_t
fold(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum >> 16) + (sum & 0xffff);
    return (uint16_t)sum;
}

uint16_t
ts_sum16(const uint8_t *data, size_t len, uint16_t partial)
{
    /*
     * Words are added as the host reads them, and the sum is turned once at the
     * end: the order of octets does not matter to the sum, nor does the width of
     * the words (RFC 1071, section 2, "Byte Order Independence" and "Parallel
     * Summation"). Four sums let the compiler use vector registers; 2^32 words
     * of 32 bits fit each.
     */
    uint64_t sums[4] = {0, 0, 0, 0};
    uint32_t words[4];
    uint16_t folded;
    uint8_t turned[2];

    for (; len >= sizeof words; data += sizeof words, len -= sizeof words) {
        memcpy(words, data, sizeof words);
        for (size_t i = 0; i < 4; i++)
            sums[i] += words[i];
    }
    if (len) {
        memset(words, 0, sizeof words);
        memcpy(words, data, len);
        for (size_t i = 0; i < 4; i++)
            sums[i] += words[i];
    }
    folded = fold(sums[0] + sums[1] + sums[2] + sums[3]);
    memcpy(turned, &folded, sizeof turned);
    return fold((uint64_t)partial + (uint64_t)(turned[0] << 8 | turned[1]));
}
