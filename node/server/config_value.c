/*
 * Values of the configuration file: one parser per kind. Pure functions: text in, field set or a reason given.
 *
 * A reason is the end of a sentence that begins with "KEY = TEXT", as in "election_timeout_ms = 5 is not a number from
 * 10 to 60000".
 */
#include "node/server/config_internal.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>

/* Decimal digits only, at most UINT64_MAX. */
static bool parse_digits(const char *text, size_t len, uint64_t *ret) {
    uint64_t value = 0;
    if (len == 0) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return false;
        }
        uint64_t digit = (uint64_t)(text[i] - '0');
        if (value > (UINT64_MAX - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    *ret = value;
    return true;
}

enum status config__parse_u64(const struct config_key *key, const char *folder, const char *text, void *field,
                              struct error *err) {
    (void)folder;
    uint64_t value;
    if (!parse_digits(text, strlen(text), &value) || value < key->min || value > key->max) {
        return error_set(err, STATUS_INVALID, "is not a number from %" PRIu64 " to %" PRIu64, key->min, key->max);
    }
    memcpy(field, &value, sizeof value);
    return STATUS_OK;
}

enum status config__parse_u32(const struct config_key *key, const char *folder, const char *text, void *field,
                              struct error *err) {
    uint64_t value = 0;
    enum status status = config__parse_u64(key, folder, text, &value, err);
    if (status == STATUS_OK) {
        uint32_t narrow = (uint32_t)value;
        memcpy(field, &narrow, sizeof narrow);
    }
    return status;
}

static const char *blanks_skipped(const char *text) {
    while (*text == ' ' || *text == '\t') {
        text++;
    }
    return text;
}

enum status config__parse_bytes_size(const struct config_key *key, const char *folder, const char *text, void *field,
                                     struct error *err) {
    (void)folder;
    static const struct {
        const char *unit;
        unsigned shift;
    } units[] = {{"", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}};
    size_t digits = strspn(text, "0123456789");
    const char *unit = blanks_skipped(text + digits);
    uint64_t value;
    if (parse_digits(text, digits, &value)) {
        for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
            if (strcmp(unit, units[i].unit) == 0 && value <= UINT64_MAX >> units[i].shift) {
                value <<= units[i].shift;
                if (value < key->min || value > key->max) {
                    break;
                }
                memcpy(field, &value, sizeof value);
                return STATUS_OK;
            }
        }
    }
    return error_set(err, STATUS_INVALID,
                     "is not a size from %" PRIu64 " KiB to %" PRIu64 " KiB (bytes, or with KiB, MiB or GiB)",
                     (key->min + KIB - 1) / KIB, key->max / KIB);
}

enum status config__parse_switch(const struct config_key *key, const char *folder, const char *text, void *field,
                                 struct error *err) {
    (void)key;
    (void)folder;
    bool value = strcmp(text, "on") == 0;
    if (!value && strcmp(text, "off") != 0) {
        return error_set(err, STATUS_INVALID, "is neither on nor off");
    }
    memcpy(field, &value, sizeof value);
    return STATUS_OK;
}

enum status config__parse_threads(const struct config_key *key, const char *folder, const char *text, void *field,
                                  struct error *err) {
    struct config *config = field;
    config->io_threads_auto = strcmp(text, "auto") == 0;
    config->io_threads = 0;
    if (config->io_threads_auto) {
        return STATUS_OK;
    }
    if (config__parse_u32(key, folder, text, &config->io_threads, NULL) != STATUS_OK) {
        return error_set(err, STATUS_INVALID, "is neither auto nor a number from %" PRIu64 " to %" PRIu64, key->min,
                         key->max);
    }
    return STATUS_OK;
}

/* 0: it is no name. */
static size_t name_len(const char *text) {
    size_t len = strlen(text);
    for (size_t i = 0; i < len; i++) {
        if (!isalnum((unsigned char)text[i]) && strchr("-_.", text[i]) == NULL) {
            return 0;
        }
    }
    return len;
}

bool config_is_name(const char *text) {
    size_t len = name_len(text);
    return len > 0 && len < LIMIT_NAME_BYTES;
}

enum status config__parse_name(const struct config_key *key, const char *folder, const char *text, void *field,
                               struct error *err) {
    (void)folder;
    size_t len = name_len(text);
    if (len == 0 || len >= key->max) {
        return error_set(err, STATUS_INVALID, "is not a name (1 to %" PRIu64 " letters, digits, '-', '_' or '.')",
                         key->max - 1);
    }
    memcpy(field, text, len + 1);
    return STATUS_OK;
}

enum status config__parse_path(const struct config_key *key, const char *folder, const char *text, void *field,
                               struct error *err) {
    if (text[0] == '\0') {
        return error_set(err, STATUS_INVALID, "is empty; a path is needed");
    }
    bool absolute = text[0] == '/' || folder[0] == '\0';
    char path[LIMIT_PATH_BYTES];
    int len = snprintf(path, sizeof path, "%s%s%s", absolute ? "" : folder, absolute ? "" : "/", text);
    if (len < 0 || (uint64_t)len >= key->max || (size_t)len >= sizeof path) {
        return error_set(err, STATUS_INVALID, "is too long a path with the folder of this file in front");
    }
    memcpy(field, path, (size_t)len + 1);
    return STATUS_OK;
}

enum status config__parse_path_or_none(const struct config_key *key, const char *folder, const char *text, void *field,
                                       struct error *err) {
    if (text[0] == '\0') {
        *(char *)field = '\0';
        return STATUS_OK;
    }
    return config__parse_path(key, folder, text, field, err);
}

/* A host name, an IPv4 address, or an IPv6 address in brackets. */
static bool is_host(const char *host, size_t len) {
    bool brackets = len > 2 && host[0] == '[' && host[len - 1] == ']';
    size_t start = brackets ? 1 : 0;
    size_t end = brackets ? len - 1 : len;
    if (start >= end) {
        return false;
    }
    for (size_t i = start; i < end; i++) {
        bool fits = isalnum((unsigned char)host[i]) || host[i] == '.' ||
                    (brackets ? host[i] == ':' || host[i] == '%' : host[i] == '-');
        if (!fits) {
            return false;
        }
    }
    return true;
}

static bool is_address(const char *text, uint64_t port_min, uint64_t size_max) {
    const char *colon = strrchr(text, ':');
    uint64_t port;
    return colon != NULL && is_host(text, (size_t)(colon - text)) &&
           parse_digits(colon + 1, strlen(colon + 1), &port) && port >= port_min && port <= UINT16_MAX &&
           strlen(text) < size_max;
}

bool config_is_address(const char *text) { return is_address(text, 1, LIMIT_ADDRESS_BYTES); }

enum status config__parse_address(const struct config_key *key, const char *folder, const char *text, void *field,
                                  struct error *err) {
    (void)folder;
    if (!is_address(text, key->min, key->max)) {
        return error_set(err, STATUS_INVALID,
                         "is not an address such as 192.0.2.7:4400, node-a:4400 or [2001:db8::7]:4400");
    }
    memcpy(field, text, strlen(text) + 1);
    return STATUS_OK;
}

/* Of a hex digit. */
static uint8_t digit_value(char digit) { return (uint8_t)(digit <= '9' ? digit - '0' : (digit | 0x20) - 'a' + 10); }

enum status config__parse_hex(const struct config_key *key, const char *folder, const char *text, void *field,
                              struct error *err) {
    (void)folder;
    size_t size = (size_t)key->max;
    bool right = strlen(text) == 2 * size && strspn(text, "0123456789abcdefABCDEF") == 2 * size;
    if (!right) {
        return error_set(err, STATUS_INVALID, "is not %zu hex digits", 2 * size);
    }
    uint8_t *bytes = field;
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)(digit_value(text[2 * i]) * 16 + digit_value(text[2 * i + 1]));
    }
    return STATUS_OK;
}

enum status config__parse_level(const struct config_key *key, const char *folder, const char *text, void *field,
                                struct error *err) {
    (void)key;
    (void)folder;
    enum log_level level;
    if (log_level_parse(text, &level) != STATUS_OK) {
        return error_set(err, STATUS_INVALID, "is not one of debug, info, warn, error");
    }
    memcpy(field, &level, sizeof level);
    return STATUS_OK;
}

enum status config__parse_role(const struct config_key *key, const char *folder, const char *text, void *field,
                               struct error *err) {
    (void)key;
    (void)folder;
    static const enum config_role roles[] = {CONFIG_ROLE_READ, CONFIG_ROLE_WRITE, CONFIG_ROLE_ADMIN};
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        if (strcmp(text, config_role_name(roles[i])) == 0) {
            memcpy(field, &roles[i], sizeof roles[i]);
            return STATUS_OK;
        }
    }
    return error_set(err, STATUS_INVALID, "is not one of read, write, admin");
}
