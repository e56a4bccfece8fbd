/* Codes, their names, and results; the edge where wire codes and statuses become the public numbers. */
#include "proto/client/client_internal.h"

#include "node/base/check.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

/* The public numbers are the wire's: a reply's code passes through. */
static_assert((int)HOLDFAST_CODE_NOT_FOUND == WIRE_NOT_FOUND && (int)HOLDFAST_CODE_INVALID == WIRE_INVALID &&
                  (int)HOLDFAST_CODE_TOO_LARGE == WIRE_TOO_LARGE && (int)HOLDFAST_CODE_BUSY == WIRE_BUSY &&
                  (int)HOLDFAST_CODE_TIMEOUT == WIRE_TIMEOUT && (int)HOLDFAST_CODE_NOT_LEADER == WIRE_NOT_LEADER &&
                  (int)HOLDFAST_CODE_UNAVAILABLE == WIRE_UNAVAILABLE && (int)HOLDFAST_CODE_DENIED == WIRE_DENIED &&
                  (int)HOLDFAST_CODE_UNSUPPORTED == WIRE_UNSUPPORTED && (int)HOLDFAST_CODE_NO_SPACE == WIRE_NO_SPACE &&
                  (int)HOLDFAST_CODE_CORRUPT == WIRE_CORRUPT && (int)HOLDFAST_CODE_INTERNAL == WIRE_INTERNAL &&
                  (int)HOLDFAST_CODE_COMPACTED == WIRE_COMPACTED && (int)HOLDFAST_CODE_UNKNOWN == WIRE_UNKNOWN &&
                  (int)HOLDFAST_CODE_CONDITION == WIRE_CONDITION,
              "public codes are wire codes");

const char *holdfast_code_name(enum holdfast_code code) {
    switch (code) {
    case HOLDFAST_CODE_OK: return "ok";
    case HOLDFAST_CODE_NOT_FOUND: return "not_found";
    case HOLDFAST_CODE_INVALID: return "invalid";
    case HOLDFAST_CODE_TOO_LARGE: return "too_large";
    case HOLDFAST_CODE_BUSY: return "busy";
    case HOLDFAST_CODE_TIMEOUT: return "timeout";
    case HOLDFAST_CODE_NOT_LEADER: return "not_leader";
    case HOLDFAST_CODE_UNAVAILABLE: return "unavailable";
    case HOLDFAST_CODE_DENIED: return "denied";
    case HOLDFAST_CODE_UNSUPPORTED: return "unsupported";
    case HOLDFAST_CODE_NO_SPACE: return "no_space";
    case HOLDFAST_CODE_CORRUPT: return "corrupt";
    case HOLDFAST_CODE_INTERNAL: return "internal";
    case HOLDFAST_CODE_COMPACTED: return "compacted";
    case HOLDFAST_CODE_UNKNOWN: return "unknown";
    case HOLDFAST_CODE_CONDITION: return "condition";
    case HOLDFAST_CODE_UNREACHABLE: return "unreachable";
    case HOLDFAST_CODE_CLOSED: return "closed";
    case HOLDFAST_CODE_NO_MEMORY: return "no_memory";
    case HOLDFAST_CODE_IO: return "io";
    }
    return "internal";
}

const char *holdfast_outcome_name(enum holdfast_outcome outcome) {
    switch (outcome) {
    case HOLDFAST_OK: return "ok";
    case HOLDFAST_FAILED: return "failed";
    case HOLDFAST_UNKNOWN: return "unknown";
    }
    return "unknown";
}

const char *holdfast_version(void) { return HOLDFAST_VERSION; }

enum holdfast_code client_code_of_wire(uint32_t code) {
    if (code >= WIRE_NO_CERTIFICATE && code <= WIRE_REMOVED) {
        return HOLDFAST_CODE_DENIED;
    }
    return code <= WIRE_CONDITION ? (enum holdfast_code)code : HOLDFAST_CODE_INTERNAL;
}

enum holdfast_code client_code_of_status(enum status status) {
    switch (status) {
    case STATUS_OK: return HOLDFAST_CODE_OK;
    case STATUS_NOT_FOUND: return HOLDFAST_CODE_IO; /* of files: keys that aren't there come over the wire */
    case STATUS_CORRUPT: return HOLDFAST_CODE_CORRUPT;
    case STATUS_IO: return HOLDFAST_CODE_IO;
    case STATUS_NO_SPACE: return HOLDFAST_CODE_NO_SPACE;
    case STATUS_NO_MEMORY: return HOLDFAST_CODE_NO_MEMORY;
    case STATUS_INVALID: return HOLDFAST_CODE_INVALID;
    case STATUS_TOO_LARGE: return HOLDFAST_CODE_TOO_LARGE;
    case STATUS_BUSY: return HOLDFAST_CODE_BUSY;
    case STATUS_TIMEOUT: return HOLDFAST_CODE_TIMEOUT;
    case STATUS_CLOSED:
    case STATUS_CANCELLED: return HOLDFAST_CODE_CLOSED;
    case STATUS_NOT_LEADER: return HOLDFAST_CODE_NOT_LEADER;
    case STATUS_UNAVAILABLE: return HOLDFAST_CODE_UNAVAILABLE;
    case STATUS_DENIED: return HOLDFAST_CODE_DENIED;
    case STATUS_UNSUPPORTED: return HOLDFAST_CODE_UNSUPPORTED;
    case STATUS_UNKNOWN: return HOLDFAST_CODE_UNKNOWN;
    case STATUS_COMPACTED: return HOLDFAST_CODE_COMPACTED;
    case STATUS_CONDITION: return HOLDFAST_CODE_CONDITION;
    case STATUS_EXISTS:
    case STATUS_FAILED:
    case STATUS_PENDING:
    case STATUS_COUNT: break;
    }
    return HOLDFAST_CODE_INTERNAL;
}

void client_result_set(struct holdfast_result *result, enum holdfast_outcome outcome, enum holdfast_code code,
                       const char *format, ...) {
    if (result == NULL) {
        return;
    }
    CHECK(outcome != HOLDFAST_OK || code == HOLDFAST_CODE_OK);
    result->outcome = outcome;
    result->code = code;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(result->message, sizeof result->message, format, args);
    va_end(args);
}

enum holdfast_outcome client_result_error(struct holdfast_result *result, const struct error *err) {
    if (result != NULL) {
        result->revision = 0;
    }
    client_result_set(result, HOLDFAST_FAILED, client_code_of_status(err->code), "%s", err->message);
    return HOLDFAST_FAILED;
}

void client_text_copy(char *out, size_t size, const char *text) {
    CHECK(size > 0);
    size_t len = 0;
    while (text != NULL && text[len] != '\0' && len < size - 1) {
        char byte = text[len];
        bool is_control = (unsigned char)byte < 0x20 || byte == 0x7f;
        if (is_control) {
            byte = '?';
        }
        out[len++] = byte;
    }
    out[len] = '\0';
}
