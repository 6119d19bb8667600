/* The state file: control messages that lead to the table as it is, so that a broker that comes back needs no key server
 * to let members in. Written anew at each snapshot and appended to in between. A file that cannot be kept right is
 * removed: without it, nobody is let in before the key server has spoken. */
#pragma once

#include "control.h"

struct state {
    const char *path; /* NULL: none is kept */
    int file; /* open for appending; -1 if there is none */
    uint64_t dumped, appended; /* bytes */
};

/* Load what an earlier run has kept. Text for the log is written to `report`. */
void state_open(struct state *state, const char *path, struct guard *guard, char *report, size_t room);

/* Keep what a message has done; false if that failed, and there is no file any more. */
bool state_keep(struct state *state, const struct guard *guard, enum effect effect, const void *message, size_t size);

void state_close(struct state *state);
