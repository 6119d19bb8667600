#include "control.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_EFFORT 200000 /* members that one answer looks at, a few milliseconds */
#define LIST_ROOM 60000 /* bytes of an answer's list */

struct call {
    struct guard *guard;
    struct reader *reader;
    struct writer *answer;
    enum code code;
    const char *problem; /* for people, unless the reader has one */
};

static enum effect refuse(struct call *call, enum code code, const char *problem)
{
    call->code = code;
    call->problem = problem;
    return NOTHING;
}

static enum effect no_memory(struct call *call)
{
    return refuse(call, NO_MEMORY, "memory is short");
}

/* Whether the message was read to its end without a failure. */
static bool is_read(struct call *call)
{
    read_end(call->reader);
    if (call->reader->field == NULL)
        return true;
    call->code = MALFORMED;
    return false;
}

static uint32_t find(const struct call *call, struct span name)
{
    return names_find(&call->guard->names, name.text, name.size);
}

static struct group *live(const struct call *call, uint32_t number)
{
    struct group *group = number == NO_NAME ? NULL : call->guard->groups[number];
    return group == NULL || group->gone ? NULL : group;
}

static enum effect hello(struct call *call)
{
    if (!is_read(call))
        return NOTHING;
    write_bytes(call->answer, call->guard->boot, sizeof call->guard->boot);
    write_number(call->answer, 4, MAX_MESSAGE);
    write_number(call->answer, 2, call->guard->live);
    for (uint32_t i = 0; i < call->guard->names.count; i++)
        if (live(call, i))
            write_name(call->answer, call->guard->groups[i]->name, call->guard->groups[i]->name_size);
    return NOTHING;
}

static enum effect begin(struct call *call)
{
    struct settings settings;
    struct span name = read_name(call->reader, "group");
    read_settings(call->reader, &settings);
    if (!is_read(call))
        return NOTHING;
    if (call->guard->names.count == MAX_GROUPS && find(call, name) == NO_NAME)
        return refuse(call, REFUSED, "group: too many since the broker started");
    struct group *group = group_new(name.text, name.size);
    if (group == NULL || !settings_copy(&group->settings, &settings)) {
        group_free(group);
        return no_memory(call);
    }
    uint32_t number = names_add(&call->guard->names, name.text, name.size);
    if (number == NO_NAME) {
        group_free(group);
        return no_memory(call);
    }
    group_free(call->guard->staged[number]);
    call->guard->staged[number] = group;
    return NOTHING;
}

/* Read all members of a message, to see that it is whole, and step back to the first. */
static uint32_t read_members(struct call *call)
{
    struct member member;
    uint32_t count = read_number(call->reader, 2, UINT16_MAX, "count");
    const uint8_t *first = call->reader->at;
    for (uint32_t i = 0; i < count && call->reader->field == NULL; i++) {
        call->reader->element = i + 1;
        read_member(call->reader, &member);
    }
    if (!is_read(call))
        return 0;
    call->reader->at = first;
    return count;
}

static enum effect portion(struct call *call)
{
    struct member member;
    struct span name = read_name(call->reader, "group");
    uint32_t count = read_members(call), number = find(call, name);
    if (call->code != OK)
        return NOTHING;
    if (number == NO_NAME || call->guard->staged[number] == NULL)
        return refuse(call, REFUSED, "group: no snapshot of it has begun");
    while (count--) {
        struct span id = read_member(call->reader, &member);
        if (!group_set(call->guard->staged[number], id.text, id.size, &member)) {
            group_free(call->guard->staged[number]);
            call->guard->staged[number] = NULL;
            return no_memory(call);
        }
    }
    return NOTHING;
}

static enum effect end(struct call *call)
{
    struct span name = read_name(call->reader, "group");
    uint32_t expected = read_number(call->reader, 4, UINT32_MAX, "members");
    uint32_t number = find(call, name);
    if (!is_read(call))
        return NOTHING;
    if (number == NO_NAME || call->guard->staged[number] == NULL)
        return refuse(call, REFUSED, "group: no snapshot of it has begun");
    struct group *group = call->guard->staged[number];
    if (group->present != expected)
        return refuse(call, REFUSED, "members: not as many as have come");
    call->guard->staged[number] = NULL;
    guard_replace(call->guard, number, group);
    return REPLACED;
}

/* Set one member of a group that is in force; false if memory is short. */
static bool set_live(struct call *call, struct group *group, struct span id, const struct member *member)
{
    const struct member *known = group_find(group, id.text, id.size);
    struct member before = known ? *known : (struct member){0};
    if (!group_set(group, id.text, id.size, member))
        return false;
    guard_settle(call->guard, group, id, known ? &before : NULL, member->status == UNKNOWN ? NULL : member);
    return true;
}

static enum effect change(struct call *call)
{
    struct member member;
    struct span name = read_name(call->reader, "group");
    uint32_t count = read_members(call), number = find(call, name);
    struct group *group = live(call, number), *staged = number == NO_NAME ? NULL : call->guard->staged[number];
    enum effect effect = CHANGED;
    if (call->code != OK)
        return NOTHING;
    if (group == NULL && staged == NULL)
        return refuse(call, REFUSED, "group: it is not loaded");
    while (count--) {
        struct span id = read_member(call->reader, &member);
        if ((group && !set_live(call, group, id, &member)) ||
            (staged && !group_set(staged, id.text, id.size, &member)))
            return no_memory(call), effect;
        if (member.status == EVICTED || member.status == UNKNOWN)
            effect = CHANGED_FOR_GOOD;
    }
    return group ? effect : NOTHING;
}

static enum effect set_settings(struct call *call)
{
    struct settings settings, copy;
    struct span name = read_name(call->reader, "group");
    read_settings(call->reader, &settings);
    if (!is_read(call))
        return NOTHING;
    struct group *group = live(call, find(call, name));
    if (group == NULL)
        return refuse(call, REFUSED, "group: it is not loaded");
    if (!settings_copy(&copy, &settings))
        return no_memory(call);
    free(group->settings.body);
    group->settings = copy;
    guard_collect_prefixes(call->guard);
    return CHANGED_FOR_GOOD;
}

static enum effect forget(struct call *call)
{
    struct span name = read_name(call->reader, "group");
    uint32_t number = find(call, name);
    if (!is_read(call))
        return NOTHING;
    if (number != NO_NAME) {
        group_free(call->guard->staged[number]);
        call->guard->staged[number] = NULL;
    }
    if (live(call, number) == NULL) /* it is forgotten already */
        return NOTHING;
    guard_replace(call->guard, number, NULL);
    return CHANGED_FOR_GOOD;
}

static enum effect state(struct call *call)
{
    struct span name = read_name(call->reader, "group");
    if (!is_read(call))
        return NOTHING;
    const struct group *group = live(call, find(call, name));
    if (group == NULL)
        return refuse(call, REFUSED, "group: it is not loaded");
    write_number(call->answer, 4, group->present);
    write_number(call->answer, 8, digest64(group->settings.body, group->settings.size));
    for (unsigned i = 0; i < BUCKETS; i++)
        write_number(call->answer, 8, group->digests[i]);
    return NOTHING;
}

static enum effect list(struct call *call)
{
    struct span name = read_name(call->reader, "group");
    uint32_t bucket = read_number(call->reader, 1, BUCKETS - 1, "bucket");
    uint32_t at = read_number(call->reader, 4, UINT32_MAX, "from");
    if (!is_read(call))
        return NOTHING;
    const struct group *group = live(call, find(call, name));
    if (group == NULL)
        return refuse(call, REFUSED, "group: it is not loaded");
    uint8_t *next = call->answer->bytes + call->answer->size;
    write_number(call->answer, 4, 0);
    size_t most = call->answer->size + LIST_ROOM;
    for (uint32_t effort = 0; at < group->names.count && effort < LIST_EFFORT && call->answer->size < most; at++, effort++) {
        if (group->members[at].bucket != bucket || group->members[at].status == UNKNOWN)
            continue;
        size_t size;
        const char *id = names_text(&group->names, at, &size);
        write_member(call->answer, id, size, &group->members[at]);
    }
    struct writer patch = {.bytes = next, .room = 4};
    write_number(&patch, 4, at < group->names.count ? at : NO_NAME);
    return NOTHING;
}

static enum effect (*const handlers[])(struct call *) = {
    [HELLO] = hello, [BEGIN] = begin, [PORTION] = portion, [END] = end,   [CHANGE] = change,
    [SETTINGS] = set_settings, [FORGET] = forget, [STATE] = state, [LIST] = list,
};

/* What was wrong, with the field's name. */
static void write_problem(struct call *call)
{
    char text[160];
    const struct reader *reader = call->reader;
    int size;
    if (reader->field == NULL)
        size = snprintf(text, sizeof text, "%s", call->problem);
    else if (reader->element)
        size = snprintf(text, sizeof text, "%s (number %u): %s", reader->field, (unsigned)reader->element, reader->problem);
    else
        size = snprintf(text, sizeof text, "%s: %s", reader->field, reader->problem);
    call->answer->size = HEADER_SIZE + 1;
    call->answer->full = false;
    write_bytes(call->answer, text, (size_t)size);
}

enum effect control_handle(struct guard *guard, const void *message, size_t size, struct writer *answer)
{
    struct reader reader = {message, (const uint8_t *)message + size, NULL, NULL, 0};
    struct call call = {.guard = guard, .reader = &reader, .answer = answer};
    enum effect effect = NOTHING;

    if (size > MAX_MESSAGE)
        read_fail(&reader, "message", "is longer than 65536 bytes");
    uint32_t version = read_number(&reader, 1, UINT8_MAX, "version");
    if (reader.field == NULL && version != CONTROL_VERSION)
        read_fail(&reader, "version", "is not 1");
    uint32_t kind = read_number(&reader, 1, LIST, "kind");
    uint32_t serial = read_number(&reader, 4, UINT32_MAX, "serial");
    if (reader.field == NULL && kind == 0)
        read_fail(&reader, "kind", "out of range");

    write_number(answer, 1, CONTROL_VERSION);
    write_number(answer, 1, reader.field ? 0 : kind);
    write_number(answer, 4, reader.field ? 0 : serial);
    write_number(answer, 1, OK);
    if (reader.field == NULL)
        effect = handlers[kind](&call);
    else
        call.code = MALFORMED;
    if (call.code != OK) {
        answer->bytes[HEADER_SIZE] = (uint8_t)call.code;
        write_problem(&call);
    }
    return effect;
}
