/* Control messages of the key server (README.md has the format): read whole, checked whole, then acted on. */
#pragma once

#include "guard.h"
#include "wire.h"

#define CONTROL_VERSION 1
#define HEADER_SIZE 6 /* bytes: version, kind, serial */

enum kind { HELLO = 1, BEGIN, PORTION, END, CHANGE, SETTINGS, FORGET, STATE, LIST };
enum code { OK, MALFORMED, REFUSED, NO_MEMORY };

/* What a message has done, for whoever keeps it in a file. */
enum effect { NOTHING, CHANGED, CHANGED_FOR_GOOD, REPLACED }; /* for good: rights were taken away */

/* Act on one message and write the answer. After any answer but OK nothing has changed, unless memory was short. */
enum effect control_handle(struct guard *guard, const void *message, size_t size, struct writer *answer);
