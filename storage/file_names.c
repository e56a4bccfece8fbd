/* File names, there and back. */
#include "storage/file_names.h"

#include "node/base/check.h"
#include "node/base/limits.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void file_path(char *out, const char *dir, const char *name) {
    int len = snprintf(out, LIMIT_PATH_BYTES, "%s/%s", dir, name);
    CHECK(len > 0 && len < (int)LIMIT_PATH_BYTES);
}

static void make_name(char out[FILE_NAME_BYTES_MAX], enum file_kind kind, uint64_t number) {
    static const char *const suffixes[] = {
        [FILE_MANIFEST] = "", [FILE_SST] = ".sst", [FILE_VALUES] = ".val", [FILE_CHANGES] = ".chg"};
    int len = snprintf(out, FILE_NAME_BYTES_MAX, "%s%016" PRIx64 "%s", kind == FILE_MANIFEST ? "MANIFEST-" : "", number,
                       suffixes[kind]);
    CHECK(len > 0 && len < FILE_NAME_BYTES_MAX);
}

void file_path_manifest(char *out, const char *dir, uint64_t number) {
    char name[FILE_NAME_BYTES_MAX];
    make_name(name, FILE_MANIFEST, number);
    file_path(out, dir, name);
}

void file_path_sst(char *out, const char *dir, uint64_t number) {
    char name[FILE_NAME_BYTES_MAX];
    make_name(name, FILE_SST, number);
    file_path(out, dir, name);
}

void file_path_values(char *out, const char *dir, uint64_t number) {
    char name[FILE_NAME_BYTES_MAX];
    make_name(name, FILE_VALUES, number);
    file_path(out, dir, name);
}

void file_path_changes(char *out, const char *dir, uint64_t number) {
    char name[FILE_NAME_BYTES_MAX];
    make_name(name, FILE_CHANGES, number);
    file_path(out, dir, name);
}

enum file_kind file_name_parse(const char *name, uint64_t *ret_number) {
    if (strcmp(name, CURRENT_NAME) == 0) {
        return FILE_CURRENT;
    }
    if (strcmp(name, CURRENT_NEW_NAME) == 0) {
        return FILE_CURRENT_NEW;
    }
    static const enum file_kind numbered[] = {FILE_MANIFEST, FILE_SST, FILE_VALUES, FILE_CHANGES};
    for (size_t i = 0; i < sizeof numbered / sizeof numbered[0]; i++) {
        /* Read the number leniently, then see whether it makes this very name. */
        uint64_t number;
        char again[FILE_NAME_BYTES_MAX];
        const char *digits = numbered[i] == FILE_MANIFEST ? strchr(name, '-') : name;
        if (digits == NULL || sscanf(digits + (numbered[i] == FILE_MANIFEST), "%16" SCNx64, &number) != 1) {
            continue;
        }
        make_name(again, numbered[i], number);
        if (strcmp(again, name) == 0) {
            *ret_number = number;
            return numbered[i];
        }
    }
    return FILE_OTHER;
}
