#include "names.h"

#include "siphash.h"

#include <stdlib.h>
#include <string.h>

bool names_valid(const char *name, size_t size)
{
    if (size < 1 || size > NAME_SIZE)
        return false;
    for (size_t i = 0; i < size; i++) {
        char c = name[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-'))
            return false;
    }
    return true;
}

const char *names_text(const struct names *names, uint32_t number, size_t *size)
{
    const char *entry = names->text + names->starts[number];
    *size = (unsigned char)entry[0];
    return entry + 1;
}

/* The place of a name in the index, or the free place where it belongs. The index is never full. */
static uint32_t place(const struct names *names, const char *name, size_t size)
{
    uint32_t mask = names->index_size - 1;
    for (uint32_t at = (uint32_t)siphash(name, size) & mask;; at = (at + 1) & mask) {
        uint32_t entry = names->index[at];
        if (entry == 0)
            return at;
        size_t length;
        const char *text = names_text(names, entry - 1, &length);
        if (length == size && memcmp(text, name, size) == 0)
            return at;
    }
}

uint32_t names_find(const struct names *names, const char *name, size_t size)
{
    if (names->index_size == 0)
        return NO_NAME;
    return names->index[place(names, name, size)] - 1; /* 0 - 1 is NO_NAME */
}

static bool grow_index(struct names *names)
{
    struct names larger = *names;
    larger.index_size = names->index_size ? names->index_size * 2 : 16;
    if (larger.index_size == 0 || (larger.index = calloc(larger.index_size, sizeof *larger.index)) == NULL)
        return false;
    for (uint32_t number = 0; number < names->count; number++) {
        size_t size;
        const char *text = names_text(names, number, &size);
        larger.index[place(&larger, text, size)] = number + 1;
    }
    free(names->index);
    *names = larger;
    return true;
}

static bool make_room(struct names *names, size_t size)
{
    if (names->count >= names->room) {
        uint32_t room = names->room + names->room / 4 + 16;
        uint32_t *starts = realloc(names->starts, room * sizeof *starts);
        if (starts == NULL)
            return false;
        names->starts = starts, names->room = room;
    }
    if (names->text_room - names->text_used < size + 1) {
        size_t room = names->text_room + names->text_room / 4 + 256;
        char *text = room > UINT32_MAX ? NULL : realloc(names->text, room);
        if (text == NULL)
            return false;
        names->text = text, names->text_room = room;
    }
    /* At most three quarters full. */
    return names->count < names->index_size / 4 * 3 || grow_index(names);
}

uint32_t names_add(struct names *names, const char *name, size_t size)
{
    uint32_t number = names_find(names, name, size);
    if (number != NO_NAME)
        return number;
    if (!make_room(names, size))
        return NO_NAME;
    number = names->count;
    names->starts[number] = (uint32_t)names->text_used;
    names->text[names->text_used] = (char)size;
    memcpy(names->text + names->text_used + 1, name, size);
    names->text_used += size + 1;
    names->index[place(names, name, size)] = ++names->count;
    return number;
}

void names_free(struct names *names)
{
    free(names->text);
    free(names->starts);
    free(names->index);
    *names = (struct names){0};
}
