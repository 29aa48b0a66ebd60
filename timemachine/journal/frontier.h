/* The frontier of an RFC 6962 Merkle tree: the roots of its perfect subtrees, enough to append
 * leaves and to know the root, in 32 bytes for each bit of the size.
 */
#ifndef SRDS_FRONTIER_H
#define SRDS_FRONTIER_H

#include "sha256.h"

typedef struct {
    uint64_t size;
    uint8_t node[64][32]; /* node[k] is the root of 2^k leaves; it counts where bit k of size is set */
} srds_frontier;

static inline void srds_tree_node(const uint8_t left[32], const uint8_t right[32], uint8_t out[32]) {
    static const uint8_t interior = 1;
    srds_sha256 s;
    srds_sha256_begin(&s, srds_sha256_best());
    srds_sha256_add(&s, &interior, 1);
    srds_sha256_add(&s, left, 32);
    srds_sha256_add(&s, right, 32);
    srds_sha256_end(&s, out);
}

static inline void srds_frontier_push(srds_frontier *f, const uint8_t leaf[32]) {
    uint8_t hash[32];
    int k = 0;
    memcpy(hash, leaf, 32);
    for (; (f->size >> k) & 1; k++) srds_tree_node(f->node[k], hash, hash);
    memcpy(f->node[k], hash, 32);
    f->size++;
}

static inline void srds_frontier_root(const srds_frontier *f, uint8_t root[32]) {
    if (!f->size) {
        srds_sha256 s;
        srds_sha256_begin(&s, srds_sha256_best());
        srds_sha256_end(&s, root);
        return;
    }
    int k = __builtin_ctzll(f->size);
    memcpy(root, f->node[k], 32);
    for (k++; k < 64 && (f->size >> k); k++)
        if ((f->size >> k) & 1) srds_tree_node(f->node[k], root, root);
}

#endif
