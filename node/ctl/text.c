/* Bytes as text: UTF-8, base64, and the form that people see. */
#include "node/ctl/pairs.h"

/* Length of the well-formed sequence at the start, 0 if there is none (RFC 3629, table of well-formed byte sequences).
 */
static size_t sequence_len(struct slice bytes) {
    const uint8_t *at = bytes.data;
    uint8_t low = 0x80;
    uint8_t high = 0xbf;
    size_t len = 0;
    if (at[0] < 0x80) {
        return 1;
    }
    if (at[0] >= 0xc2 && at[0] <= 0xdf) {
        len = 2;
    } else if (at[0] >= 0xe0 && at[0] <= 0xef) {
        len = 3;
        low = at[0] == 0xe0 ? 0xa0 : 0x80;
        high = at[0] == 0xed ? 0x9f : 0xbf;
    } else if (at[0] >= 0xf0 && at[0] <= 0xf4) {
        len = 4;
        low = at[0] == 0xf0 ? 0x90 : 0x80;
        high = at[0] == 0xf4 ? 0x8f : 0xbf;
    }
    if (len == 0 || len > bytes.len || at[1] < low || at[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < len; i++) {
        if (at[i] < 0x80 || at[i] > 0xbf) {
            return 0;
        }
    }
    return len;
}

bool text_is_utf8(struct slice bytes) {
    while (bytes.len > 0) {
        uint64_t word;
        if (bytes.len >= sizeof word) {
            memcpy(&word, bytes.data, sizeof word);
            if ((word & 0x8080808080808080u) == 0) {
                bytes.data += sizeof word;
                bytes.len -= sizeof word;
                continue;
            }
        }
        size_t len = sequence_len(bytes);
        if (len == 0) {
            return false;
        }
        bytes.data += len;
        bytes.len -= len;
    }
    return true;
}

enum status pair_append_visible(struct buf *out, struct slice bytes) {
    static const char HEX[] = "0123456789abcdef";
    while (bytes.len > 0) {
        size_t len = sequence_len(bytes);
        uint8_t byte = bytes.data[0];
        enum status status;
        if (len == 0 || byte < 0x20 || byte == 0x7f || byte == '\\') {
            const char escaped[4] = {'\\', 'x', HEX[byte >> 4], HEX[byte & 15]};
            len = 1;
            status = buf_append(out, escaped, sizeof escaped);
        } else {
            status = buf_append(out, bytes.data, len);
        }
        if (status != STATUS_OK) {
            return status;
        }
        bytes.data += len;
        bytes.len -= len;
    }
    return STATUS_OK;
}

/* ---- base64 --------------------------------------------------------------------------------------------------- */

static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

enum status base64_append(struct buf *out, struct slice bytes) {
    enum status status = buf_reserve(out, (bytes.len + 2) / 3 * 4);
    if (status != STATUS_OK) {
        return status;
    }
    uint8_t *at = out->data + out->len;
    while (bytes.len > 0) {
        size_t len = bytes.len < 3 ? bytes.len : 3;
        uint32_t group = (uint32_t)bytes.data[0] << 16;
        group |= len > 1 ? (uint32_t)bytes.data[1] << 8 : 0;
        group |= len > 2 ? bytes.data[2] : 0;
        *at++ = (uint8_t)DIGITS[group >> 18];
        *at++ = (uint8_t)DIGITS[group >> 12 & 63];
        *at++ = len > 1 ? (uint8_t)DIGITS[group >> 6 & 63] : '=';
        *at++ = len > 2 ? (uint8_t)DIGITS[group & 63] : '=';
        bytes.data += len;
        bytes.len -= len;
    }
    out->len = (size_t)(at - out->data);
    return STATUS_OK;
}

/* 64: none. */
static uint32_t digit_value(uint8_t digit) {
    if (digit >= 'A' && digit <= 'Z') {
        return digit - 'A';
    }
    if (digit >= 'a' && digit <= 'z') {
        return digit - 'a' + 26u;
    }
    if (digit >= '0' && digit <= '9') {
        return digit - '0' + 52u;
    }
    return digit == '+' ? 62u : digit == '/' ? 63u : 64u;
}

enum status base64_decode(struct buf *out, struct slice text) {
    if (text.len % 4 != 0) {
        return STATUS_INVALID;
    }
    enum status status = buf_reserve(out, text.len / 4 * 3);
    if (status != STATUS_OK) {
        return status;
    }
    uint8_t *at = out->data + out->len;
    for (size_t i = 0; i < text.len; i += 4) {
        size_t padding = 0;
        if (i + 4 == text.len && text.data[i + 3] == '=') {
            padding = text.data[i + 2] == '=' ? 2 : 1;
        }
        uint32_t group = 0;
        for (size_t k = 0; k < 4; k++) {
            uint32_t value = k < 4 - padding ? digit_value(text.data[i + k]) : 0;
            if (value == 64) {
                return STATUS_INVALID;
            }
            group = group << 6 | value;
        }
        if ((padding == 1 && (group & 0xff) != 0) || (padding == 2 && (group & 0xffff) != 0)) {
            return STATUS_INVALID; /* two texts for the same bytes */
        }
        *at++ = (uint8_t)(group >> 16);
        if (padding < 2) {
            *at++ = (uint8_t)(group >> 8);
        }
        if (padding < 1) {
            *at++ = (uint8_t)group;
        }
    }
    out->len = (size_t)(at - out->data);
    return STATUS_OK;
}
