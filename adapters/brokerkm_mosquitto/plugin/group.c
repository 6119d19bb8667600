#include "group.h"

#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

struct group *group_new(const char *name, size_t size)
{
    struct group *group = calloc(1, sizeof *group);
    if (group != NULL) {
        memcpy(group->name, name, size);
        group->name_size = size;
    }
    return group;
}

void group_free(struct group *group)
{
    if (group == NULL)
        return;
    names_free(&group->names);
    free(group->settings.body);
    free(group->members);
    free(group);
}

const struct member *group_find(const struct group *group, const char *id, size_t size)
{
    uint32_t number = names_find(&group->names, id, size);
    if (number == NO_NAME || group->members[number].status == UNKNOWN)
        return NULL;
    return &group->members[number];
}

uint64_t digest64(const void *data, size_t size)
{
    unsigned char hash[SHA256_DIGEST_LENGTH];
    uint64_t value = 0;
    SHA256(data, size, hash);
    for (unsigned i = 0; i < 8; i++)
        value = value << 8 | hash[i];
    return value;
}

/* The digest of one record, as it stands in a control message; nothing for an unknown member. */
static uint64_t digest(const char *id, size_t size, const struct member *member)
{
    unsigned char record[1 + NAME_SIZE + 1 + 4 + KEY_SIZE];
    size_t at = 0;
    if (member->status == UNKNOWN)
        return 0;
    record[at++] = (unsigned char)size;
    memcpy(record + at, id, size);
    at += size;
    record[at++] = member->status;
    for (int shift = 24; shift >= 0; shift -= 8)
        record[at++] = (unsigned char)(member->slot >> shift);
    memcpy(record + at, member->identity, KEY_SIZE);
    return digest64(record, at + KEY_SIZE);
}

bool group_set(struct group *group, const char *id, size_t size, const struct member *member)
{
    if (group->names.count >= group->room) {
        uint32_t room = group->room + group->room / 4 + 16;
        struct member *members = realloc(group->members, room * sizeof *members);
        if (members == NULL)
            return false;
        group->members = members, group->room = room;
    }
    uint32_t before = group->names.count;
    uint32_t number = names_add(&group->names, id, size);
    if (number == NO_NAME)
        return false;
    struct member *entry = &group->members[number];
    if (number == before)
        *entry = (struct member){.status = UNKNOWN, .bucket = (uint8_t)(digest64(id, size) >> 56)};
    uint64_t *sum = &group->digests[entry->bucket];
    *sum -= digest(id, size, entry);
    group->present -= entry->status != UNKNOWN;
    uint8_t bucket = entry->bucket;
    *entry = *member;
    entry->bucket = bucket;
    group->present += entry->status != UNKNOWN;
    *sum += digest(id, size, entry);
    return true;
}
