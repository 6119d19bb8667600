#include "guard.h"

#include "login.h"
#include "siphash.h"

#include <string.h>
#include <sys/random.h>

static const uint8_t no_identity[KEY_SIZE];

static bool is_bound(const struct member *member)
{
    return member != NULL && memcmp(member->identity, no_identity, KEY_SIZE) != 0;
}

bool guard_init(struct guard *guard, const char *keyserver)
{
    *guard = (struct guard){.keyserver = {keyserver, strlen(keyserver)}};
    return siphash_seed() && getrandom(guard->boot, sizeof guard->boot, 0) == (ssize_t)sizeof guard->boot;
}

void guard_free(struct guard *guard)
{
    for (uint32_t i = 0; i < guard->names.count; i++) {
        group_free(guard->groups[i]);
        group_free(guard->staged[i]);
    }
    names_free(&guard->names);
}

bool guard_is_keyserver(const struct guard *guard, const char *user)
{
    return user != NULL && strcmp(user, guard->keyserver.text) == 0;
}

/* The only group that is there; NULL if there are none or several. */
static const struct group *only_group(const struct guard *guard)
{
    if (guard->live != 1)
        return NULL;
    for (uint32_t i = 0;; i++)
        if (guard->groups[i] != NULL && !guard->groups[i]->gone)
            return guard->groups[i];
}

bool guard_resolve(const struct guard *guard, const char *user, struct principal *who)
{
    const char *colon = strchr(user, ':');
    const char *id = colon ? colon + 1 : user;
    size_t size = strlen(id);
    *who = (struct principal){.id = {id, size}, .alone = colon == NULL};
    if (!names_valid(id, size))
        return false;
    if (colon == NULL) {
        who->group = only_group(guard);
    } else {
        uint32_t number = names_find(&guard->names, user, (size_t)(colon - user));
        who->group = number == NO_NAME ? NULL : guard->groups[number];
    }
    if (who->group == NULL)
        return false;
    who->member = group_find(who->group, id, size);
    return true;
}

static void write_user(char user[USER_SIZE + 1], const struct group *group, struct span id)
{
    memcpy(user, group->name, group->name_size);
    user[group->name_size] = ':';
    memcpy(user + group->name_size + 1, id.text, id.size);
    user[group->name_size + 1 + id.size] = '\0';
}

enum verdict guard_login(struct guard *guard, const char *user, const char *password, char full[USER_SIZE + 1])
{
    struct principal who;
    uint8_t identity[KEY_SIZE];
    char displaced[USER_SIZE + 1];
    bool ours = password != NULL && login_is_ours(password);

    if (user == NULL || guard_is_keyserver(guard, user))
        return DEFER;
    if (!guard_resolve(guard, user, &who))
        return ours ? DENY : DEFER;
    if (!ours)
        return rank_of(&who) == NOBODY && !(who.alone && who.member == NULL) ? DENY : DEFER;
    struct span group = {who.group->name, who.group->name_size};
    if (rank_of(&who) == NOBODY || !login_identity(group, who.id, password, identity))
        return DENY;
    bool bound = is_bound(who.member);
    if (bound && memcmp(who.member->identity, identity, KEY_SIZE) != 0)
        return DENY;
    if ((!bound || who.member->status == PENDING) && !who.group->settings.applicants)
        return DENY;
    write_user(full, who.group, who.id);
    if (!bound) {
        newcomers_note(&guard->newcomers, full, identity, displaced);
        if (displaced[0] && guard->kick_later)
            guard->kick_later(displaced);
    }
    return ALLOW;
}

static bool is_guarded(const struct guard *guard, const char *pattern)
{
    for (uint32_t i = 0; i < guard->prefix_count; i++)
        if (overlaps(pattern, guard->prefixes[i]))
            return true;
    return false;
}

static bool is_control(const char *topic)
{
    return strncmp(topic, "$CONTROL/brokerkm/", 18) == 0;
}

static enum verdict check_member(const struct guard *guard, const struct principal *who, enum access access,
                                 const char *topic, const char *pattern, bool retain)
{
    if (access == WRITE ? may_write_protocol(who, topic, retain) : may_read_protocol(who, topic))
        return ALLOW;
    if (pattern == NULL || is_guarded(guard, pattern))
        return DENY;
    if (access == WRITE ? may_write_data(who, topic) : may_read_data(who, pattern))
        return ALLOW;
    /* Somebody of whom nothing is known may be no device at all: Mosquitto's own access file decides. */
    return who->alone && who->member == NULL && !is_control(topic) ? DEFER : DENY;
}

enum verdict guard_check(const struct guard *guard, const char *user, enum access access, const char *topic, bool retain)
{
    struct principal who;
    const char *pattern = access == SUBSCRIBE ? unshared(topic) : topic;

    if (guard_is_keyserver(guard, user))
        return strncmp(topic, "$CONTROL/", 9) == 0 && !is_control(topic) ? DEFER : ALLOW;
    if (guard->prefix_count == 0) /* nothing has been loaded: what has to be guarded is not known */
        return DENY;
    if (user == NULL || !guard_resolve(guard, user, &who))
        return pattern == NULL || is_guarded(guard, pattern) || is_control(topic) ? DENY : DEFER;
    if (rank_of(&who) == NOBODY && !(who.alone && who.member == NULL)) {
        /* Evicted, and still or again connected, as by a certificate that Mosquitto has checked alone. */
        if (guard->kick_later)
            guard->kick_later(user);
        return DENY;
    }
    return check_member(guard, &who, access, topic, pattern, retain);
}

void guard_settle(struct guard *guard, const struct group *group, struct span id, const struct member *before,
                  const struct member *after)
{
    char user[USER_SIZE + 1];
    bool same = true;
    write_user(user, group, id);
    if (is_bound(before))
        same = after != NULL && memcmp(before->identity, after->identity, KEY_SIZE) == 0;
    else if (is_bound(after))
        same = newcomers_settle(&guard->newcomers, user, after->identity);
    if (same && (after != NULL || before == NULL) && (after == NULL || after->status != EVICTED))
        return;
    if (guard->disconnect != NULL) {
        guard->disconnect(user);
        if (only_group(guard) == group)
            guard->disconnect(user + group->name_size + 1);
    }
}

static void settle_all(struct guard *guard, const struct group *before, const struct group *after)
{
    struct span id;
    for (uint32_t i = 0; before != NULL && i < before->names.count; i++) {
        const struct member *old = &before->members[i];
        id.text = names_text(&before->names, i, &id.size);
        const struct member *new = group_find(after, id.text, id.size);
        if (old->status == UNKNOWN || old->status == EVICTED) /* the rest is the newcomers' loop's */
            continue;
        if (new == NULL || new->status == EVICTED || memcmp(old->identity, new->identity, KEY_SIZE) != 0)
            guard_settle(guard, after, id, old, new);
    }
    for (uint32_t i = 0; i < NEWCOMERS; i++) {
        char user[USER_SIZE + 1];
        struct principal who;
        memcpy(user, guard->newcomers.places[i].user, sizeof user);
        if (user[0] && guard_resolve(guard, user, &who) && who.group == after && who.member != NULL)
            guard_settle(guard, after, who.id, NULL, who.member);
    }
}

void guard_collect_prefixes(struct guard *guard)
{
    guard->prefix_count = guard->live = 0;
    for (uint32_t i = 0; i < guard->names.count; i++) {
        if (guard->groups[i] == NULL)
            continue;
        struct span prefix = guard->groups[i]->settings.prefix;
        uint32_t known = 0;
        guard->live += !guard->groups[i]->gone;
        while (known < guard->prefix_count && (guard->prefixes[known].size != prefix.size ||
                                               memcmp(guard->prefixes[known].text, prefix.text, prefix.size) != 0))
            known++;
        if (known == guard->prefix_count)
            guard->prefixes[guard->prefix_count++] = prefix;
    }
}

void guard_replace(struct guard *guard, uint32_t number, struct group *group)
{
    struct group *before = guard->groups[number];
    if (group == NULL) {
        before->gone = true;
    } else {
        guard->groups[number] = group;
        guard_collect_prefixes(guard);
        settle_all(guard, before, group);
        group_free(before);
    }
    guard_collect_prefixes(guard);
}
