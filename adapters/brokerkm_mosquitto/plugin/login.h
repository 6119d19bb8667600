/* A device's password: bkm1: and base64url of its public identity key and that key's signature over both names. */
#pragma once

#include "group.h"

#define LOGIN_PREFIX "bkm1:"

/* Whether the password claims to be one of ours. */
bool login_is_ours(const char *password);

/* The key whose owner made the password for this group and id; false if nobody did. Nothing in it is secret. */
bool login_identity(struct span group, struct span id, const char *password, uint8_t identity[KEY_SIZE]);
