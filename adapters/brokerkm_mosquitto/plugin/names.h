/* A set of names, each with a number from 0 on: one block of text and one hash index, about 8 bytes a name and the text. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NAME_SIZE 64 /* bytes of a group or member id */
#define NO_NAME UINT32_MAX

struct names {
    char *text; /* a length byte and the name, one after the other */
    size_t text_used, text_room;
    uint32_t *starts; /* by number: where in the text */
    uint32_t count, room;
    uint32_t *index; /* open addressing: number + 1, 0 where free */
    uint32_t index_size; /* a power of two */
};

/* Whether this may name a group or a member: 1 to 64 of A-Z a-z 0-9 . _ - */
bool names_valid(const char *name, size_t size);

/* The number of a name, NO_NAME if it is not there. */
uint32_t names_find(const struct names *names, const char *name, size_t size);

/* The number of a valid name, added if it is new; NO_NAME if memory is short, and nothing has changed. */
uint32_t names_add(struct names *names, const char *name, size_t size);

const char *names_text(const struct names *names, uint32_t number, size_t *size);

void names_free(struct names *names);
