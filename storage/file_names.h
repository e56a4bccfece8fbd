/*
 * Names of the engine's files in its directory, and back. Other names there are not ours and are left alone.
 *
 *   CURRENT                     names the manifest that counts
 *   CURRENT.tmp                 on its way to become CURRENT
 *   MANIFEST-0000000000000001   16 hexadecimal digits
 *   0000000000000002.sst        manifests and tables draw from one sequence of numbers
 *   0000000000000003.val        values that tables don't have
 *   0000000000000004.chg        changes in the order of the log
 *   STORAGE-LOCK                held by the process that has the store open
 */
#ifndef HOLDFAST_STORAGE_FILE_NAMES_H
#define HOLDFAST_STORAGE_FILE_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CURRENT_NAME     "CURRENT"
#define CURRENT_NEW_NAME "CURRENT.tmp"
#define LOCK_NAME        "STORAGE-LOCK"

enum { FILE_NAME_BYTES_MAX = 32 };

enum file_kind { FILE_OTHER, FILE_CURRENT, FILE_CURRENT_NEW, FILE_MANIFEST, FILE_SST, FILE_VALUES, FILE_CHANGES };

/* out: LIMIT_PATH_BYTES. The directory must leave room for FILE_NAME_BYTES_MAX (CHECK). */
void file_path(char *out, const char *dir, const char *name);
void file_path_manifest(char *out, const char *dir, uint64_t number);
void file_path_sst(char *out, const char *dir, uint64_t number);
void file_path_values(char *out, const char *dir, uint64_t number);
void file_path_changes(char *out, const char *dir, uint64_t number);

/* Only names that the functions above make are recognised. */
enum file_kind file_name_parse(const char *name, uint64_t *ret_number);

#endif
