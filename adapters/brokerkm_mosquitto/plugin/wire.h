/* Reading and writing of control messages: big-endian numbers, texts with their length in front; all of it bounded. */
#pragma once

#include "group.h"

/* A message that is being read. After a failure everything reads as nothing, and the first failure is kept. */
struct reader {
    const uint8_t *at, *end;
    const char *field, *problem; /* what failed and how; NULL while all is well */
    uint32_t element; /* of a list, counted from 1; 0 outside */
};

uint32_t read_number(struct reader *reader, unsigned bytes, uint32_t most, const char *field);
struct span read_text(struct reader *reader, unsigned length_bytes, const char *field);
void read_end(struct reader *reader);
void read_fail(struct reader *reader, const char *field, const char *problem);

/* A group or member id. */
struct span read_name(struct reader *reader, const char *field);

/* An id and how it stands. */
struct span read_member(struct reader *reader, struct member *member);

/* Degree, flags, prefix and data filters. The spans point into the message. */
void read_settings(struct reader *reader, struct settings *settings);

/* Keep a copy of settings that have been read; false if memory is short. */
bool settings_copy(struct settings *copy, const struct settings *settings);

/* A message that is being written. What does not fit is left out, and `full` says so. */
struct writer {
    uint8_t *bytes;
    size_t size, room;
    bool full;
};

void write_number(struct writer *writer, unsigned bytes, uint64_t value);
void write_bytes(struct writer *writer, const void *bytes, size_t size);
void write_name(struct writer *writer, const char *name, size_t size);
void write_member(struct writer *writer, const char *id, size_t size, const struct member *member);
