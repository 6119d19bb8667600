/* SipHash-2-4 with a key drawn at start: whoever chooses names cannot choose where they collide. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Draw the key; false if the system has no randomness. */
bool siphash_seed(void);

uint64_t siphash(const void *data, size_t size);
