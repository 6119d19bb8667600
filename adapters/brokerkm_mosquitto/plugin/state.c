#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LENGTH_SIZE 4 /* bytes in front of each message */
#define SLACK (UINT64_C(1) << 20) /* bytes that are always appended before the file is written anew */
#define PORTION_ROOM 60000 /* bytes of a portion's members */

static const char magic[8] = "bkmstat1";

static bool write_all(int file, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    while (size > 0) {
        ssize_t written = write(file, at, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        at += written;
        size -= (size_t)written;
    }
    return true;
}

static bool write_record(int file, const void *message, size_t size)
{
    uint8_t length[LENGTH_SIZE];
    struct writer head = {.bytes = length, .room = sizeof length};
    write_number(&head, LENGTH_SIZE, size);
    return write_all(file, length, sizeof length) && write_all(file, message, size);
}

static void begin_message(struct writer *writer, enum kind kind, const struct group *group)
{
    writer->size = 0;
    write_number(writer, 1, CONTROL_VERSION);
    write_number(writer, 1, kind);
    write_number(writer, 4, 0);
    write_name(writer, group->name, group->name_size);
}

static bool dump_members(int file, struct writer *writer, const struct group *group)
{
    for (uint32_t at = 0; at < group->names.count;) {
        uint32_t count = 0;
        begin_message(writer, PORTION, group);
        size_t place = writer->size;
        write_number(writer, 2, 0);
        for (; at < group->names.count && writer->size < PORTION_ROOM; at++) {
            size_t size;
            const char *id = names_text(&group->names, at, &size);
            if (group->members[at].status == UNKNOWN)
                continue;
            write_member(writer, id, size, &group->members[at]);
            count++;
        }
        struct writer patch = {.bytes = writer->bytes + place, .room = 2};
        write_number(&patch, 2, count);
        if (!write_record(file, writer->bytes, writer->size))
            return false;
    }
    return true;
}

static bool dump_group(int file, struct writer *writer, const struct group *group)
{
    begin_message(writer, BEGIN, group);
    write_bytes(writer, group->settings.body, group->settings.size);
    if (writer->full || !write_record(file, writer->bytes, writer->size) || !dump_members(file, writer, group))
        return false;
    begin_message(writer, END, group);
    write_number(writer, 4, group->present);
    return write_record(file, writer->bytes, writer->size);
}

static bool sync_directory(const char *path)
{
    char directory[PATH_MAX];
    const char *slash = strrchr(path, '/');
    int size = slash ? (int)(slash - path) + 1 : 2;
    snprintf(directory, sizeof directory, "%.*s", size, slash ? path : "./");
    int file = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool done = file >= 0 && fsync(file) == 0;
    if (file >= 0)
        close(file);
    return done;
}

/* Write the whole table to a new file and put it in place of the old one. */
static bool dump(struct state *state, const struct guard *guard)
{
    uint8_t bytes[MAX_MESSAGE];
    struct writer writer = {.bytes = bytes, .room = sizeof bytes};
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s.new", state->path) >= (int)sizeof path)
        return false;
    unlink(path);
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file < 0)
        return false;
    bool done = write_all(file, magic, sizeof magic);
    for (uint32_t i = 0; done && i < guard->names.count; i++)
        if (guard->groups[i] != NULL && !guard->groups[i]->gone)
            done = dump_group(file, &writer, guard->groups[i]);
    off_t size = lseek(file, 0, SEEK_END);
    if (!done || size < 0 || fsync(file) != 0 || rename(path, state->path) != 0 || !sync_directory(state->path)) {
        close(file);
        unlink(path);
        return false;
    }
    state_close(state);
    state->file = file;
    state->dumped = (uint64_t)size, state->appended = 0;
    return true;
}

static bool append(struct state *state, enum effect effect, const void *message, size_t size)
{
    state->appended += LENGTH_SIZE + size;
    return write_record(state->file, message, size) && (effect != CHANGED_FOR_GOOD || fdatasync(state->file) == 0);
}

bool state_keep(struct state *state, const struct guard *guard, enum effect effect, const void *message, size_t size)
{
    if (state->path == NULL || effect == NOTHING)
        return true;
    bool anew = effect == REPLACED || state->file < 0 || state->appended > state->dumped / 2 + SLACK;
    if (anew ? dump(state, guard) : append(state, effect, message, size))
        return true;
    state_close(state);
    unlink(state->path);
    return false;
}

void state_close(struct state *state)
{
    if (state->file >= 0)
        close(state->file);
    state->file = -1;
}

/* Act on the file's messages. What a loss of power has cut off at its end is left out; `wrong` is what else is wrong. */
static uint32_t replay(FILE *file, struct guard *guard, const char **wrong)
{
    static uint8_t message[MAX_MESSAGE], answer[MAX_MESSAGE];
    uint8_t length[LENGTH_SIZE];
    uint32_t records = 0;
    if (fread(message, 1, sizeof magic, file) != sizeof magic || memcmp(message, magic, sizeof magic) != 0) {
        *wrong = "it is not a state file";
        return 0;
    }
    for (; fread(length, 1, sizeof length, file) == sizeof length; records++) {
        uint32_t size = (uint32_t)length[0] << 24 | (uint32_t)length[1] << 16 | (uint32_t)length[2] << 8 | length[3];
        if (size > sizeof message) {
            *wrong = "a record is too long";
            break;
        }
        if (size == 0 || fread(message, 1, size, file) != size)
            break;
        struct writer writer = {.bytes = answer, .room = sizeof answer};
        control_handle(guard, message, size, &writer);
        if (answer[HEADER_SIZE] != OK) {
            *wrong = "a record is malformed";
            break;
        }
    }
    return records;
}

void state_open(struct state *state, const char *path, struct guard *guard, char *report, size_t room)
{
    const char *wrong = NULL;
    struct stat about;
    *state = (struct state){.path = path, .file = -1};
    report[0] = '\0';
    if (path == NULL)
        return;
    int number = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (number < 0) {
        if (errno != ENOENT)
            snprintf(report, room, "the state file %s cannot be opened: %s", path, strerror(errno));
        return;
    }
    FILE *file = fdopen(number, "rb");
    if (file == NULL) {
        close(number);
        return;
    }
    if (fstat(number, &about) != 0 || !S_ISREG(about.st_mode) || (about.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        wrong = "others may write to it";
    uint32_t records = wrong ? 0 : replay(file, guard, &wrong);
    fclose(file);
    if (wrong != NULL)
        snprintf(report, room, "the state file %s is not used, because %s: the key server has to load the table", path, wrong);
    else
        snprintf(report, room, "loaded %u groups from the state file (%u records)", guard->live, records);
    if (wrong != NULL) { /* begin again with nothing */
        const char *keyserver = guard->keyserver.text;
        guard_free(guard);
        guard_init(guard, keyserver);
    }
}
