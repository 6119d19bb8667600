#include "wire.h"

#include <stdlib.h>
#include <string.h>

#define MAX_DEGREE 64
#define PREFIX_LEVELS 3
#define APPLICANTS 1 /* flag of the settings */

void read_fail(struct reader *reader, const char *field, const char *problem)
{
    if (reader->field == NULL)
        reader->field = field, reader->problem = problem;
    reader->at = reader->end;
}

uint32_t read_number(struct reader *reader, unsigned bytes, uint32_t most, const char *field)
{
    uint32_t value = 0;
    if ((size_t)(reader->end - reader->at) < bytes) {
        read_fail(reader, field, "truncated");
        return 0;
    }
    while (bytes--)
        value = value << 8 | *reader->at++;
    if (value > most) {
        read_fail(reader, field, "out of range");
        return 0;
    }
    return value;
}

struct span read_text(struct reader *reader, unsigned length_bytes, const char *field)
{
    uint32_t size = read_number(reader, length_bytes, UINT16_MAX, field);
    if ((size_t)(reader->end - reader->at) < size) {
        read_fail(reader, field, "truncated");
        size = 0;
    }
    struct span text = {(const char *)reader->at, size};
    reader->at += size;
    return text;
}

void read_end(struct reader *reader)
{
    if (reader->field == NULL && reader->at != reader->end) {
        reader->element = 0;
        read_fail(reader, "message", "has trailing bytes");
    }
}

struct span read_name(struct reader *reader, const char *field)
{
    struct span name = read_text(reader, 1, field);
    if (reader->field == NULL && !names_valid(name.text, name.size))
        read_fail(reader, field, "is not 1 to 64 of A-Z a-z 0-9 . _ -");
    return name;
}

struct span read_member(struct reader *reader, struct member *member)
{
    struct span id = read_name(reader, "id");
    *member = (struct member){.slot = NO_SLOT};
    member->status = (uint8_t)read_number(reader, 1, PENDING, "status");
    uint32_t slot = read_number(reader, 4, UINT32_MAX, "slot");
    if (reader->field == NULL && slot != NO_SLOT && (slot >= MAX_SLOTS || member->status != SEATED))
        read_fail(reader, "slot", "is not below 16777216, or of a member that is not seated");
    if ((size_t)(reader->end - reader->at) < KEY_SIZE) {
        read_fail(reader, "identity", "truncated");
        return id;
    }
    member->slot = slot;
    memcpy(member->identity, reader->at, KEY_SIZE);
    reader->at += KEY_SIZE;
    return id;
}

/* One to three levels, each a name. */
static bool is_prefix(struct span prefix)
{
    for (unsigned levels = 1; levels <= PREFIX_LEVELS; levels++) {
        const char *slash = prefix.size ? memchr(prefix.text, '/', prefix.size) : NULL;
        size_t size = slash ? (size_t)(slash - prefix.text) : prefix.size;
        if (!names_valid(prefix.text, size))
            return false;
        if (slash == NULL)
            return true;
        prefix.text += size + 1;
        prefix.size -= size + 1;
    }
    return false;
}

/* + and # take a whole level each, and # only the last (MQTT 5, section 4.7.1). */
static bool is_filter(struct span filter)
{
    if (filter.size == 0 || memchr(filter.text, '\0', filter.size) != NULL)
        return false;
    for (size_t i = 0; i < filter.size; i++) {
        char c = filter.text[i];
        bool first = i == 0 || filter.text[i - 1] == '/', last = i + 1 == filter.size;
        if ((c == '#' && !(first && last)) || (c == '+' && !(first && (last || filter.text[i + 1] == '/'))))
            return false;
    }
    return true;
}

static uint32_t read_filters(struct reader *reader, struct span filters[MAX_FILTERS], const char *field)
{
    uint32_t count = read_number(reader, 1, MAX_FILTERS, field);
    for (uint32_t i = 0; i < count; i++) {
        reader->element = i + 1;
        filters[i] = read_text(reader, 2, field);
        if (reader->field == NULL && !is_filter(filters[i]))
            read_fail(reader, field, "is not a topic filter");
        if (reader->field != NULL)
            return 0;
    }
    reader->element = 0;
    return count;
}

void read_settings(struct reader *reader, struct settings *settings)
{
    const uint8_t *start = reader->at;
    *settings = (struct settings){0};
    settings->degree = (uint8_t)read_number(reader, 1, MAX_DEGREE, "degree");
    if (reader->field == NULL && settings->degree < 2)
        read_fail(reader, "degree", "is not 2 to 64");
    settings->applicants = read_number(reader, 1, APPLICANTS, "flags") == APPLICANTS;
    settings->prefix = read_text(reader, 1, "prefix");
    if (reader->field == NULL && !is_prefix(settings->prefix))
        read_fail(reader, "prefix", "is not one to three topic levels of A-Z a-z 0-9 . _ -");
    settings->publish_count = read_filters(reader, settings->publish, "publish");
    settings->subscribe_count = read_filters(reader, settings->subscribe, "subscribe");
    /* Not written through: the copy has a body of its own. */
    settings->body = (char *)(uintptr_t)start;
    settings->size = (size_t)(reader->at - start);
}

bool settings_copy(struct settings *copy, const struct settings *settings)
{
    char *body = malloc(settings->size);
    if (body == NULL)
        return false;
    memcpy(body, settings->body, settings->size);
    *copy = *settings;
    copy->body = body;
    copy->prefix.text = body + (settings->prefix.text - settings->body);
    for (uint32_t i = 0; i < settings->publish_count; i++)
        copy->publish[i].text = body + (settings->publish[i].text - settings->body);
    for (uint32_t i = 0; i < settings->subscribe_count; i++)
        copy->subscribe[i].text = body + (settings->subscribe[i].text - settings->body);
    return true;
}

void write_bytes(struct writer *writer, const void *bytes, size_t size)
{
    if (writer->full || writer->room - writer->size < size) {
        writer->full = true;
        return;
    }
    memcpy(writer->bytes + writer->size, bytes, size);
    writer->size += size;
}

void write_number(struct writer *writer, unsigned bytes, uint64_t value)
{
    uint8_t encoded[8];
    for (unsigned i = 0; i < bytes; i++)
        encoded[i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
    write_bytes(writer, encoded, bytes);
}

void write_name(struct writer *writer, const char *name, size_t size)
{
    write_number(writer, 1, size);
    write_bytes(writer, name, size);
}

void write_member(struct writer *writer, const char *id, size_t size, const struct member *member)
{
    write_name(writer, id, size);
    write_number(writer, 1, member->status);
    write_number(writer, 4, member->slot);
    write_bytes(writer, member->identity, KEY_SIZE);
}
