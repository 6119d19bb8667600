/* What the key server has said of one group: its settings, and how each member id stands. */
#pragma once

#include "names.h"

#define KEY_SIZE 32 /* bytes of an Ed25519 public key */
#define BUCKETS 256
#define NO_SLOT UINT32_MAX
#define MAX_FILTERS 64 /* each way */
#define MAX_SLOTS (UINT32_C(1) << 24)

enum status { UNKNOWN, LISTED, SEATED, EVICTED, PENDING }; /* the store's numbers; UNKNOWN takes a record away */

struct member {
    uint8_t identity[KEY_SIZE]; /* zero if none is known */
    uint32_t slot; /* NO_SLOT unless seated */
    uint8_t status;
    uint8_t bucket; /* first byte of SHA-256 of the id: what is compared together */
};

struct span {
    const char *text;
    size_t size;
};

struct settings {
    char *body; /* as they came; the spans below point into it */
    size_t size;
    struct span prefix; /* of all topics of brokerkm, without a slash at its end */
    uint8_t degree;
    bool applicants; /* whether unknown devices may connect, to ask for a seat */
    uint32_t publish_count, subscribe_count;
    struct span publish[MAX_FILTERS], subscribe[MAX_FILTERS];
};

struct group {
    char name[NAME_SIZE + 1];
    size_t name_size;
    bool gone; /* the group is no more: nobody has a standing, but its topics stay guarded */
    struct settings settings;
    struct names names;
    struct member *members; /* by number of the name */
    uint32_t room;
    uint32_t present; /* members that are not UNKNOWN */
    uint64_t digests[BUCKETS]; /* sums of the members' digests, to compare with the store's */
};

struct group *group_new(const char *name, size_t size);
void group_free(struct group *group);

/* The member of this id; NULL if nothing is known of it. */
const struct member *group_find(const struct group *group, const char *id, size_t size);

/* Set how a member stands; false if memory is short. */
bool group_set(struct group *group, const char *id, size_t size, const struct member *member);

/* First 8 bytes, big-endian, of SHA-256. */
uint64_t digest64(const void *data, size_t size);
