/* All that the plugin knows, and what it decides from it. Knows nothing of Mosquitto: see plugin.c. */
#pragma once

#include "newcomers.h"
#include "topics.h"

#define MAX_GROUPS 512 /* names of groups that one run of the broker can be told of */
#define MAX_MESSAGE 65536 /* bytes of a control message or an answer */

enum access { READ, WRITE, SUBSCRIBE };
enum verdict { DENY, ALLOW, DEFER }; /* DEFER: Mosquitto's own files decide */

struct guard {
    struct span keyserver; /* its user name */
    uint8_t boot[8]; /* drawn at start */
    struct names names;
    struct group *groups[MAX_GROUPS]; /* by number of the name; NULL until a snapshot is complete */
    struct group *staged[MAX_GROUPS]; /* snapshots that are being received */
    uint32_t live; /* groups that are there and not gone */
    struct span prefixes[MAX_GROUPS]; /* of the groups, each once */
    uint32_t prefix_count;
    struct newcomers newcomers;
    void (*disconnect)(const char *user); /* called at once, for control messages; NULL while nobody is connected */
    void (*kick_later)(const char *user); /* called for what only turns out while the broker serves a client */
};

/* False if the system has no randomness. */
bool guard_init(struct guard *guard, const char *keyserver);
void guard_free(struct guard *guard);

bool guard_is_keyserver(const struct guard *guard, const char *user);

/* Who a user name is; false if it names no group that is guarded. */
bool guard_resolve(const struct guard *guard, const char *user, struct principal *who);

/* Whether somebody may connect. A device that may is known from then on by its full user name, which is written. */
enum verdict guard_login(struct guard *guard, const char *user, const char *password, char full[USER_SIZE + 1]);

/* Whether somebody may receive or publish under a topic, or subscribe a filter. Allocates nothing. */
enum verdict guard_check(const struct guard *guard, const char *user, enum access access, const char *topic, bool retain);

/* Put a group in place of what was known of it, NULL for a group that is gone; disconnect whose login no longer holds. */
void guard_replace(struct guard *guard, uint32_t number, struct group *group);

/* Disconnect a member if it logged in as somebody that it is not now: `before` and `after` are NULL for unknown ones. */
void guard_settle(struct guard *guard, const struct group *group, struct span id, const struct member *before,
                  const struct member *after);

/* Collect the prefixes again, after settings have changed. */
void guard_collect_prefixes(struct guard *guard);
