#include "newcomers.h"

#include "siphash.h"

#include <string.h>

#define PROBES 8

/* The place of a user name, else a free one, else the one that it displaces. */
static struct newcomer *place(struct newcomers *newcomers, const char *user)
{
    uint64_t hash = siphash(user, strlen(user));
    struct newcomer *free_place = NULL;
    for (unsigned i = 0; i < PROBES; i++) {
        struct newcomer *candidate = &newcomers->places[(hash + i) % NEWCOMERS];
        if (strcmp(candidate->user, user) == 0)
            return candidate;
        if (free_place == NULL && candidate->user[0] == '\0')
            free_place = candidate;
    }
    return free_place ? free_place : &newcomers->places[hash % NEWCOMERS];
}

void newcomers_note(struct newcomers *newcomers, const char *user, const uint8_t identity[KEY_SIZE],
                    char displaced[USER_SIZE + 1])
{
    struct newcomer *entry = place(newcomers, user);
    displaced[0] = '\0';
    if (strcmp(entry->user, user) == 0) {
        entry->mixed |= memcmp(entry->identity, identity, KEY_SIZE) != 0;
        return;
    }
    memcpy(displaced, entry->user, sizeof entry->user);
    *entry = (struct newcomer){0};
    memcpy(entry->user, user, strlen(user));
    memcpy(entry->identity, identity, KEY_SIZE);
}

bool newcomers_settle(struct newcomers *newcomers, const char *user, const uint8_t identity[KEY_SIZE])
{
    struct newcomer *entry = place(newcomers, user);
    if (strcmp(entry->user, user) != 0)
        return true;
    bool same = !entry->mixed && memcmp(entry->identity, identity, KEY_SIZE) == 0;
    *entry = (struct newcomer){0};
    return same;
}
