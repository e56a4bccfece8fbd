/* The change files of a version: which go, which stay. */
#include "storage/version.h"

static void push(struct version *version, struct sst *file) {
    if (file->meta.revision_last > version->changes_after) {
        file->refs++;
        version->change_files[version->change_file_count++] = file;
    }
}

void version__fill_changes(struct version *version, const struct version *base, const struct version_change *change) {
    version->changes_after = base == NULL ? 0 : base->changes_after;
    if (change->changes_after > version->changes_after) {
        version->changes_after = change->changes_after;
    }
    for (size_t i = 0; base != NULL && i < base->change_file_count; i++) {
        push(version, base->change_files[i]);
    }
    for (size_t i = 0; i < change->changes_added_count; i++) {
        push(version, change->changes_added[i]);
    }
}

bool version__changes_are_sound(const struct version *version) {
    for (size_t i = 1; i < version->change_file_count; i++) {
        if (version->change_files[i]->meta.revision_first <= version->change_files[i - 1]->meta.revision_last) {
            return false;
        }
    }
    return true;
}

uint64_t version_changes_droppable(const struct version *version, uint64_t horizon) {
    uint64_t after = version->changes_after;
    for (size_t i = 0; i < version->change_file_count; i++) {
        if (version->change_files[i]->meta.revision_last >= horizon) {
            break;
        }
        after = version->change_files[i]->meta.revision_last;
    }
    return after;
}

uint64_t version_change_bytes(const struct version *version) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < version->change_file_count; i++) {
        bytes += version->change_files[i]->meta.size_bytes;
    }
    return bytes;
}
