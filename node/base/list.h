/*
 * An intrusive doubly linked ring. The head is a node that belongs to nobody. Owner-thread only; O(1) throughout.
 */
#ifndef HOLDFAST_BASE_LIST_H
#define HOLDFAST_BASE_LIST_H

#include "node/base/check.h"

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next;
    struct list *prev;
};

static inline void list_init(struct list *head) {
    head->next = head;
    head->prev = head;
}

static inline bool list_is_empty(const struct list *head) { return head->next == head; }

static inline void list_push_back(struct list *head, struct list *node) {
    CHECK(head->prev != NULL); /* list_init was called */
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

static inline void list_push_front(struct list *head, struct list *node) { list_push_back(head->next, node); }

/* Takes the node out and leaves it as an empty ring, so that a second removal does no harm. */
static inline void list_remove(struct list *node) {
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

/* The first node, taken out; NULL if the list is empty. */
static inline struct list *list_pop_front(struct list *head) {
    struct list *node = head->next;
    if (node == head) {
        return NULL;
    }
    list_remove(node);
    return node;
}

/* Moves every node of `from` to the back of `to`; `from` is empty afterwards. */
static inline void list_splice_back(struct list *to, struct list *from) {
    if (list_is_empty(from)) {
        return;
    }
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

/* Safe against removal of the current node. */
/* NOLINTBEGIN(bugprone-macro-parentheses): it declares `node` */
#define LIST_FOREACH(node, head)                                                                                       \
    for (struct list *node = (head)->next, *node##_next = node->next; node != (head);                                  \
         node = node##_next, node##_next = node->next)
/* NOLINTEND(bugprone-macro-parentheses) */

#define LIST_ENTRY(node, type, member) CONTAINER_OF(node, type, member)

#endif
