#include "topics.h"

#include <string.h>

#define MAX_LEVEL 24 /* of a key tree */

enum rank rank_of(const struct principal *who)
{
    if (who->group->gone)
        return NOBODY;
    if (who->member == NULL)
        return who->group->settings.applicants ? APPLICANT : NOBODY;
    switch (who->member->status) {
    case SEATED:
        return MEMBER;
    case LISTED:
    case PENDING:
        return APPLICANT;
    default:
        return NOBODY;
    }
}

bool overlaps(const char *pattern, struct span prefix)
{
    const char *at = prefix.text, *end = prefix.text + prefix.size;
    for (;;) {
        size_t size = strcspn(pattern, "/");
        const char *slash = memchr(at, '/', (size_t)(end - at));
        size_t wanted = (size_t)((slash ? slash : end) - at);
        if (size == 1 && *pattern == '#')
            return true;
        if (!(size == 1 && *pattern == '+') && (size != wanted || memcmp(pattern, at, size) != 0))
            return false;
        if (slash == NULL)
            return true;
        if (pattern[size] == '\0') /* shorter than the prefix */
            return false;
        pattern += size + 1;
        at = slash + 1;
    }
}

const char *unshared(const char *pattern)
{
    if (strncmp(pattern, "$share", 6) != 0 || (pattern[6] != '/' && pattern[6] != '\0'))
        return pattern;
    const char *slash = pattern[6] ? strchr(pattern + 7, '/') : NULL;
    return slash && slash[1] ? slash + 1 : NULL;
}

/* Read a number in its shortest form, as large as `limit` at most, and step behind it. */
static bool number(const char **at, uint32_t limit, uint32_t *value)
{
    const char *digit = *at;
    *value = 0;
    for (; *digit >= '0' && *digit <= '9' && digit - *at < 9; digit++)
        *value = *value * 10 + (uint32_t)(*digit - '0');
    if (digit == *at || (**at == '0' && digit - *at > 1) || *value > limit)
        return false;
    *at = digit;
    return true;
}

/* Whether the node is on the path from the member's leaf to the root, or would be if the tree were higher. */
static bool on_path(const struct principal *who, const char *node)
{
    uint32_t level, index;
    if (rank_of(who) != MEMBER || who->member->slot == NO_SLOT)
        return false;
    if (!number(&node, MAX_LEVEL, &level) || *node++ != '/' || !number(&node, MAX_SLOTS - 1, &index) || *node != '\0')
        return false;
    uint32_t expected = who->member->slot;
    for (uint32_t up = level > 1 ? level : 1; up > 0; up--)
        expected /= who->group->settings.degree;
    return index == expected;
}

/* What follows PREFIX/GROUP/ in a topic; NULL if it does not begin with it. */
static const char *below(const struct group *group, const char *topic)
{
    struct span prefix = group->settings.prefix;
    if (strncmp(topic, prefix.text, prefix.size) != 0 || topic[prefix.size] != '/')
        return NULL;
    topic += prefix.size + 1;
    if (strncmp(topic, group->name, group->name_size) != 0 || topic[group->name_size] != '/')
        return NULL;
    return topic + group->name_size + 1;
}

static bool is_own(const struct principal *who, const char *id)
{
    return strncmp(id, who->id.text, who->id.size) == 0 && id[who->id.size] == '\0';
}

bool may_read_protocol(const struct principal *who, const char *topic)
{
    const char *rest = below(who->group, topic);
    if (rest == NULL || rank_of(who) == NOBODY)
        return false;
    if (rest[0] != '\0' && rest[1] == '\0')
        return rest[0] == 'b' || rest[0] == 'k';
    if (strncmp(rest, "m/", 2) == 0)
        return is_own(who, rest + 2);
    return strncmp(rest, "n/", 2) == 0 && on_path(who, rest + 2);
}

bool may_write_protocol(const struct principal *who, const char *topic, bool retain)
{
    const char *rest = below(who->group, topic);
    /* A request that the broker repeats is a replay. */
    return rest != NULL && !retain && rank_of(who) != NOBODY && strncmp(rest, "r/", 2) == 0 && is_own(who, rest + 2);
}

/* Reads a data filter with %m and %g filled in, one character at a time. */
struct filled {
    struct span rest, name;
    const struct principal *who;
};

/* The character at the front; 0 at the end. */
static char front(struct filled *filled)
{
    if (filled->name.size)
        return *filled->name.text;
    if (filled->rest.size > 1 && filled->rest.text[0] == '%') {
        if (filled->rest.text[1] == 'm')
            filled->name = filled->who->id;
        else if (filled->rest.text[1] == 'g')
            filled->name = (struct span){filled->who->group->name, filled->who->group->name_size};
        if (filled->name.size)
            return *filled->name.text;
    }
    return filled->rest.size ? *filled->rest.text : '\0';
}

static void step(struct filled *filled)
{
    size_t behind = 1;
    if (filled->name.size) {
        filled->name.text++;
        if (--filled->name.size)
            return;
        behind = 2; /* the placeholder that it stood for */
    }
    filled->rest.text += behind;
    filled->rest.size -= behind;
}

/* Whether a filter that is allowed takes in all that `pattern`, a filter or topic, matches. */
static bool covers(struct span allowed, const struct principal *who, const char *pattern)
{
    struct filled wide = {.rest = allowed, .who = who};
    for (;;) {
        char first = front(&wide);
        if (first == '#')
            return true;
        if (first == '+') {
            if (*pattern == '#')
                return false;
            step(&wide);
            pattern += strcspn(pattern, "/");
        } else {
            for (; (first = front(&wide)) != '\0' && first != '/' && first == *pattern; pattern++)
                step(&wide);
        }
        first = front(&wide);
        if (first == '/' && *pattern == '\0') { /* a/# takes in a */
            step(&wide);
            return front(&wide) == '#';
        }
        if (first != *pattern)
            return false;
        if (first == '\0')
            return true;
        if (first != '/')
            return false;
        step(&wide);
        pattern++;
    }
}

static bool any_covers(const struct span *filters, uint32_t count, const struct principal *who, const char *pattern)
{
    if (*pattern == '$' || *pattern == '\0' || rank_of(who) != MEMBER)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (covers(filters[i], who, pattern))
            return true;
    return false;
}

bool may_read_data(const struct principal *who, const char *pattern)
{
    return any_covers(who->group->settings.subscribe, who->group->settings.subscribe_count, who, pattern);
}

bool may_write_data(const struct principal *who, const char *topic)
{
    return any_covers(who->group->settings.publish, who->group->settings.publish_count, who, topic);
}
