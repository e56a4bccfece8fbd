/*
 * Names of the simulated disk: directories, and the journal of what was done to them and isn't durable yet.
 *
 * An operation says what entries it sets, not how to get there, so it can be applied to the durable entries later,
 * whatever became of others. Operations that touch a common directory stay in order: a sync of a directory takes along
 * all earlier ones of every directory that it drags in.
 */
#include "tests/sim/disk_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- Entries ---------------------------------------------------------------------------------------------------- */

/* Where the name is, or would be. */
static size_t position_of(const struct name_map *map, const char *name, bool *ret_found) {
    size_t low = 0;
    size_t high = map->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strcmp(map->entries[middle].name, name);
        if (order == 0) {
            *ret_found = true;
            return middle;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *ret_found = false;
    return low;
}

static struct sim_inode *lookup(const struct name_map *map, const char *name) {
    bool found;
    size_t position = position_of(map, name, &found);
    return found ? map->entries[position].inode : NULL;
}

static char *copy_name(const char *name) {
    char *copy = sim__alloc(strlen(name) + 1);
    memcpy(copy, name, strlen(name) + 1);
    return copy;
}

static void insert(struct name_map *map, size_t position, const char *name, struct sim_inode *inode) {
    if (map->count == map->capacity) {
        map->capacity = map->capacity == 0 ? 8 : map->capacity * 2;
        map->entries = realloc(map->entries, map->capacity * sizeof(struct name_entry));
        CHECK(map->entries != NULL);
    }
    memmove(&map->entries[position + 1], &map->entries[position], (map->count - position) * sizeof(struct name_entry));
    map->entries[position] = (struct name_entry){.name = copy_name(name), .inode = inode};
    map->count++;
}

/* inode NULL: removes the entry. */
static void set_entry(struct name_map *map, const char *name, struct sim_inode *inode) {
    bool found;
    size_t position = position_of(map, name, &found);
    struct sim_inode *old = found ? map->entries[position].inode : NULL;
    if (inode != NULL) {
        sim__inode_ref(inode);
        if (found) {
            map->entries[position].inode = inode;
        } else {
            insert(map, position, name, inode);
        }
    } else if (found) {
        sim__free(map->entries[position].name);
        map->count--;
        memmove(&map->entries[position], &map->entries[position + 1],
                (map->count - position) * sizeof(struct name_entry));
    }
    if (old != NULL) {
        sim__inode_unref(old);
    }
}

void sim__names_free(struct name_map *map) {
    for (size_t i = 0; i < map->count; i++) {
        sim__inode_unref(map->entries[i].inode);
        sim__free(map->entries[i].name);
    }
    free(map->entries);
    *map = (struct name_map){0};
}

void sim__names_copy(struct name_map *to, const struct name_map *from) {
    for (size_t i = 0; i < from->count; i++) {
        sim__inode_ref(from->entries[i].inode);
    }
    sim__names_free(to);
    for (size_t i = 0; i < from->count; i++) {
        insert(to, i, from->entries[i].name, from->entries[i].inode);
    }
}

size_t sim__dir_count(const struct sim_inode *dir) { return dir->live_names.count; }
const char *sim__dir_name(const struct sim_inode *dir, size_t position) {
    CHECK(position < dir->live_names.count);
    return dir->live_names.entries[position].name;
}

/* ---- Paths ------------------------------------------------------------------------------------------------------ */

/* The next name of a path, "" at its end. */
static int next_name(const char **path, char name[SIM_NAME_BYTES_MAX + 1]) {
    for (;;) {
        *path += strspn(*path, "/");
        size_t len = strcspn(*path, "/");
        if (len > SIM_NAME_BYTES_MAX) {
            return ENAMETOOLONG;
        }
        memcpy(name, *path, len);
        name[len] = '\0';
        *path += len;
        if (strcmp(name, ".") != 0) {
            CHECK(strcmp(name, "..") != 0);
            return 0;
        }
    }
}

/* The directory that holds the last name of the path, and that name ("" for the root itself). */
static int find_parent(struct sim_disk *disk, const char *path, struct sim_inode **ret_dir,
                       char name[SIM_NAME_BYTES_MAX + 1]) {
    struct sim_inode *dir = disk->root;
    int sys = next_name(&path, name);
    while (sys == 0) {
        char following[SIM_NAME_BYTES_MAX + 1];
        sys = next_name(&path, following);
        if (sys != 0 || following[0] == '\0') {
            break;
        }
        dir = lookup(&dir->live_names, name);
        if (dir == NULL || !dir->is_dir) {
            return dir == NULL ? ENOENT : ENOTDIR;
        }
        memcpy(name, following, sizeof following);
    }
    *ret_dir = dir;
    return sys;
}

struct sim_inode *sim__disk_find(struct sim_disk *disk, const char *path) {
    struct sim_inode *dir;
    char name[SIM_NAME_BYTES_MAX + 1];
    size_t len = strlen(path);
    if (len > 3 && strcmp(path + len - 3, "/..") == 0) {
        char *inner = sim__alloc(len);
        memcpy(inner, path, len - 3);
        int sys = find_parent(disk, inner, &dir, name);
        sim__free(inner);
        return sys == 0 ? dir : NULL;
    }
    if (find_parent(disk, path, &dir, name) != 0) {
        return NULL;
    }
    return name[0] == '\0' ? dir : lookup(&dir->live_names, name);
}

/* ---- Operations ------------------------------------------------------------------------------------------------- */

static struct name_operation *operation_new(struct sim_disk *disk) {
    struct name_operation *operation = sim__alloc(sizeof *operation);
    operation->sequence = disk->sequence++;
    list_push_back(&disk->journal, &operation->link);
    disk->pending_names++;
    return operation;
}

/* Does it in the live entries and notes it in the operation. */
static void operation_add(struct name_operation *operation, struct sim_inode *dir, const char *name,
                          struct sim_inode *inode) {
    CHECK(operation->change_count < 2);
    operation->changes[operation->change_count++] =
        (struct name_change){.dir = dir, .name = copy_name(name), .inode = inode};
    sim__inode_ref(dir);
    if (inode != NULL) {
        sim__inode_ref(inode);
    }
    set_entry(&dir->live_names, name, inode);
}

void sim__operation_apply_durable(struct name_operation *operation) {
    for (unsigned i = 0; i < operation->change_count; i++) {
        const struct name_change *change = &operation->changes[i];
        set_entry(&change->dir->durable_names, change->name, change->inode);
    }
}

void sim__operation_drop(struct sim_disk *disk, struct name_operation *operation) {
    for (unsigned i = 0; i < operation->change_count; i++) {
        struct name_change *change = &operation->changes[i];
        if (change->inode != NULL) {
            sim__inode_unref(change->inode);
        }
        sim__inode_unref(change->dir);
        sim__free(change->name);
    }
    list_remove(&operation->link);
    disk->pending_names--;
    sim__free(operation);
}

int sim__disk_create(struct sim_disk *disk, const char *path, bool is_dir, struct sim_inode **ret_inode) {
    struct sim_inode *dir;
    char name[SIM_NAME_BYTES_MAX + 1];
    int sys = find_parent(disk, path, &dir, name);
    if (sys != 0) {
        return sys;
    }
    if (name[0] == '\0' || lookup(&dir->live_names, name) != NULL) {
        return EEXIST;
    }
    struct sim_inode *inode = sim__inode_new(disk, is_dir);
    operation_add(operation_new(disk), dir, name, inode);
    *ret_inode = inode;
    return 0;
}

/* True if `inner` lies below the directory. */
static bool lies_below(const char *inner, const char *directory) {
    char outer_name[SIM_NAME_BYTES_MAX + 1];
    char inner_name[SIM_NAME_BYTES_MAX + 1];
    for (;;) {
        if (next_name(&directory, outer_name) != 0 || next_name(&inner, inner_name) != 0) {
            return false;
        }
        if (outer_name[0] == '\0') {
            return inner_name[0] != '\0';
        }
        if (strcmp(outer_name, inner_name) != 0) {
            return false;
        }
    }
}

int sim__disk_rename(struct sim_disk *disk, const char *from, const char *to) {
    struct sim_inode *from_dir;
    struct sim_inode *to_dir;
    char from_name[SIM_NAME_BYTES_MAX + 1];
    char to_name[SIM_NAME_BYTES_MAX + 1];
    int sys = find_parent(disk, from, &from_dir, from_name);
    if (sys == 0) {
        sys = find_parent(disk, to, &to_dir, to_name);
    }
    if (sys != 0) {
        return sys;
    }
    struct sim_inode *inode = lookup(&from_dir->live_names, from_name);
    struct sim_inode *replaced = lookup(&to_dir->live_names, to_name);
    if (inode == NULL) {
        return ENOENT;
    }
    if (inode == replaced) {
        return 0;
    }
    if (replaced != NULL && (inode->is_dir || replaced->is_dir)) {
        return replaced->is_dir ? EISDIR : ENOTDIR;
    }
    if (to_name[0] == '\0' || (inode->is_dir && lies_below(to, from))) {
        return EINVAL;
    }
    struct name_operation *operation = operation_new(disk);
    operation_add(operation, to_dir, to_name, inode);
    operation_add(operation, from_dir, from_name, NULL);
    return 0;
}

int sim__disk_link(struct sim_disk *disk, const char *from, const char *to) {
    struct sim_inode *inode = sim__disk_find(disk, from);
    struct sim_inode *dir;
    char name[SIM_NAME_BYTES_MAX + 1];
    if (inode == NULL) {
        return ENOENT;
    }
    int sys = find_parent(disk, to, &dir, name);
    if (sys != 0) {
        return sys;
    }
    if (name[0] == '\0' || lookup(&dir->live_names, name) != NULL) {
        return EEXIST;
    }
    if (inode->is_dir) {
        return EPERM;
    }
    operation_add(operation_new(disk), dir, name, inode);
    return 0;
}

int sim__disk_unlink(struct sim_disk *disk, const char *path) {
    struct sim_inode *dir;
    char name[SIM_NAME_BYTES_MAX + 1];
    int sys = find_parent(disk, path, &dir, name);
    if (sys != 0) {
        return sys;
    }
    struct sim_inode *inode = lookup(&dir->live_names, name);
    if (inode == NULL) {
        return ENOENT;
    }
    if (inode->is_dir && inode->live_names.count > 0) {
        return ENOTEMPTY;
    }
    operation_add(operation_new(disk), dir, name, NULL);
    return 0;
}

/* ---- Syncing ---------------------------------------------------------------------------------------------------- */

static bool touches_marked(const struct name_operation *operation) {
    for (unsigned i = 0; i < operation->change_count; i++) {
        if (operation->changes[i].dir->marked) {
            return true;
        }
    }
    return false;
}

void sim__disk_sync_dir(struct sim_disk *disk, struct sim_inode *dir, uint64_t sequence) {
    CHECK(dir->is_dir);
    sim__inode_ref(dir);
    dir->marked = true;
    for (struct list *link = disk->journal.prev; link != &disk->journal; link = link->prev) {
        struct name_operation *operation = LIST_ENTRY(link, struct name_operation, link);
        operation->selected = operation->sequence < sequence && touches_marked(operation);
        for (unsigned i = 0; operation->selected && i < operation->change_count; i++) {
            operation->changes[i].dir->marked = true;
        }
    }
    LIST_FOREACH (marked, &disk->inodes) {
        LIST_ENTRY(marked, struct sim_inode, link)->marked = false;
    }
    LIST_FOREACH (link, &disk->journal) {
        struct name_operation *operation = LIST_ENTRY(link, struct name_operation, link);
        if (operation->selected) {
            sim__operation_apply_durable(operation);
            sim__operation_drop(disk, operation);
        }
    }
    sim__inode_unref(dir);
}
