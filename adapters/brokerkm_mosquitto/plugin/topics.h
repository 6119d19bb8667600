/* What one member of a group may subscribe, receive and publish: the rules of brokerkm/guard/rules.py, to the letter. */
#pragma once

#include "group.h"

enum rank { NOBODY, APPLICANT, MEMBER };

/* Somebody whose user name names a group that is guarded. */
struct principal {
    const struct group *group;
    struct span id;
    const struct member *member; /* NULL if nothing is known of it */
    bool alone; /* the user name was the id without the group */
};

enum rank rank_of(const struct principal *who);

/* Whether a filter or topic matches the prefix or anything below it. */
bool overlaps(const char *pattern, struct span prefix);

/* A shared subscription's own filter, or the filter itself; NULL if it is malformed. */
const char *unshared(const char *pattern);

/* Whether the protocol has the member read, or write, exactly this topic. */
bool may_read_protocol(const struct principal *who, const char *topic);
bool may_write_protocol(const struct principal *who, const char *topic, bool retain);

/* Whether one of the group's data filters takes in all that the filter or topic matches. The prefixes are not checked. */
bool may_read_data(const struct principal *who, const char *pattern);
bool may_write_data(const struct principal *who, const char *topic);
