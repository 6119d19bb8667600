/* The keys with which devices have logged in whose id was not bound to a key: should another key be bound to the id
 * later, the connection was somebody else's and has to go. Bounded: a newcomer that is displaced has to go as well. */
#pragma once

#include "group.h"

#define NEWCOMERS 4096
#define USER_SIZE (NAME_SIZE + 1 + NAME_SIZE) /* bytes of a device's user name: two ids and a colon */

struct newcomer {
    char user[USER_SIZE + 1]; /* as it logged in; empty where free */
    uint8_t identity[KEY_SIZE];
    bool mixed; /* more than one key has logged in under this name */
};

struct newcomers {
    struct newcomer places[NEWCOMERS];
};

/* Remember a login. If that displaces another newcomer, its user name is written to `displaced`, else an empty one. */
void newcomers_note(struct newcomers *newcomers, const char *user, const uint8_t identity[KEY_SIZE],
                    char displaced[USER_SIZE + 1]);

/* Forget a newcomer, whose id is bound to a key now; false if somebody with another key has logged in. */
bool newcomers_settle(struct newcomers *newcomers, const char *user, const uint8_t identity[KEY_SIZE]);
