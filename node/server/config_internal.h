/*
 * What the files of the configuration share: config.c (defaults, look-ups, the keys there are), config_file.c (lines of
 * the file into keys), config_value.c (one parser per kind of value), config_check.c (what only the whole file can
 * tell).
 */
#ifndef HOLDFAST_SERVER_CONFIG_INTERNAL_H
#define HOLDFAST_SERVER_CONFIG_INTERNAL_H

#include "node/server/config.h"

enum {
    CONFIG_SECTION_KEYS_MAX = 16,
    CONFIG_SECTIONS_MAX = 8 + LIMIT_MEMBERS + CONFIG_IDENTITIES_MAX,
    CONFIG_FILE_BYTES_MAX = 1024 * 1024,
    CONFIG_SHOWN_PATH_BYTES = 100 /* of the file's name in messages */
};

struct config_key;

/* Sets the field from the text. The message of err is the end of the sentence "KEY = TEXT ..." */
typedef enum status config_parser(const struct config_key *key, const char *folder, const char *text, void *field,
                                  struct error *err);

struct config_key {
    const char *name;
    config_parser *parse;
    size_t offset; /* of the field: in struct config, or in what a named section is about */
    uint64_t min;
    uint64_t max; /* texts and bytes: room in the field */
    bool required;
};

struct config_section {
    const char *name;
    bool named; /* [NAME OF-ITS-OWN] */
    const struct config_key *keys;
    uint32_t key_count;
};

/* The sections that there are. */
const struct config_section *config__sections(uint32_t *ret_count);

/* Where a section of the file stands. */
struct config_place {
    const struct config_section *section;
    void *target; /* struct config, config_member or config_identity: the keys' offsets are in it */
    uint32_t line;
    uint32_t key_lines[CONFIG_SECTION_KEYS_MAX]; /* 0: not given */
};

struct config_places {
    char file[CONFIG_SHOWN_PATH_BYTES]; /* for messages */
    uint32_t count;
    struct config_place place[CONFIG_SECTIONS_MAX];
};

/* The line at which a field was set, else that of its section, else 0. */
uint32_t config__line_of(const struct config_places *places, const void *target, size_t offset);
/* "file:line: ...", or "file: ..." for line 0. STATUS_INVALID. */
enum status config__error(const struct config_places *places, uint32_t line, struct error *err, const char *format, ...)
    PRINTF_LIKE(4, 5);

/* Fills in what follows from the rest, then checks that nothing contradicts anything. */
MUST_USE enum status config__check(struct config *config, const struct config_places *places, struct error *err);

config_parser config__parse_name;
config_parser config__parse_u64; /* the field is uint64_t; min to max */
config_parser config__parse_u32;
config_parser config__parse_bytes_size; /* uint64_t; "64 MiB" */
config_parser config__parse_switch;     /* bool; on, off */
config_parser config__parse_threads;    /* io_threads; the field is the whole struct config */
config_parser config__parse_path;       /* char[max] */
config_parser config__parse_path_or_none;
config_parser config__parse_address; /* char[max]; port at least min */
config_parser config__parse_hex;     /* uint8_t[max] */
config_parser config__parse_level;
config_parser config__parse_role;

#endif
