/* How large levels may be, and what is owed. */
#include "storage/compaction_pick.h"

enum { BELOW_MAX = 1600 /* sixteenths */ };

static unsigned first_used(const struct version *version) {
    for (unsigned level = 1; level < MANIFEST_LEVELS; level++) {
        if (version->counts[level] > 0) {
            return level;
        }
    }
    return MANIFEST_LEVELS - 1;
}

void compaction_get_targets(const struct version *version, const struct storage_options *options,
                            struct compaction_targets *ret_targets) {
    uint64_t target = 0;
    for (unsigned level = 1; level < MANIFEST_LEVELS; level++) {
        target = version->bytes[level] > target ? version->bytes[level] : target;
    }
    unsigned level = MANIFEST_LEVELS - 1;
    for (unsigned other = 0; other < MANIFEST_LEVELS; other++) {
        ret_targets->bytes[other] = 0;
    }
    ret_targets->bytes[level] = UINT64_MAX;
    while (level > 1 && target > options->level_base_bytes) {
        target /= options->level_ratio;
        level--;
        ret_targets->bytes[level] = target;
    }
    /* What was left above by a larger store comes first. */
    unsigned used = first_used(version);
    ret_targets->base_level = used < level ? used : level;
}

uint64_t compaction_debt(const struct version *version, const struct storage_options *options) {
    struct compaction_targets targets;
    compaction_get_targets(version, options, &targets);
    uint64_t debt = 0;
    uint64_t coming = 0;
    if (version->counts[0] >= options->l0_files_compact) {
        coming = version->bytes[0];
        debt = coming;
    }
    for (unsigned level = targets.base_level; level < MANIFEST_LEVELS - 1; level++) {
        uint64_t bytes = version->bytes[level] + coming;
        if (bytes <= targets.bytes[level]) {
            break;
        }
        coming = bytes - targets.bytes[level];
        uint64_t below = version->bytes[level + 1] / (bytes / 16 + 1); /* sixteenths of what each byte meets there */
        debt += coming + coming / 16 * (below < BELOW_MAX ? below : BELOW_MAX);
    }
    return debt;
}
