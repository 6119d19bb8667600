#include "login.h"

#include <openssl/evp.h>
#include <string.h>

#define LABEL "brokerkm v1 broker login"
#define SIGNATURE_SIZE 64
#define ENCODED_SIZE ((KEY_SIZE + SIGNATURE_SIZE) / 3 * 4)

bool login_is_ours(const char *password)
{
    return strncmp(password, LOGIN_PREFIX, sizeof LOGIN_PREFIX - 1) == 0;
}

static int sextet(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

static bool decode(const char *text, uint8_t bytes[KEY_SIZE + SIGNATURE_SIZE])
{
    if (strlen(text) != ENCODED_SIZE)
        return false;
    for (; *text; text += 4, bytes += 3) {
        int a = sextet(text[0]), b = sextet(text[1]), c = sextet(text[2]), d = sextet(text[3]);
        if (a < 0 || b < 0 || c < 0 || d < 0)
            return false;
        bytes[0] = (uint8_t)(a << 2 | b >> 4);
        bytes[1] = (uint8_t)(b << 4 | c >> 2);
        bytes[2] = (uint8_t)(c << 6 | d);
    }
    return true;
}

static bool is_signed(const uint8_t *identity, const uint8_t *signature, const unsigned char *message, size_t size)
{
    EVP_PKEY *key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, identity, KEY_SIZE);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool good = key != NULL && context != NULL && EVP_DigestVerifyInit(context, NULL, NULL, NULL, key) == 1 &&
                EVP_DigestVerify(context, signature, SIGNATURE_SIZE, message, size) == 1;
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(key);
    return good;
}

bool login_identity(struct span group, struct span id, const char *password, uint8_t identity[KEY_SIZE])
{
    uint8_t bytes[KEY_SIZE + SIGNATURE_SIZE];
    unsigned char message[sizeof LABEL + NAME_SIZE + 1 + NAME_SIZE];
    size_t size = sizeof LABEL; /* with its zero byte */
    if (!login_is_ours(password) || !decode(password + sizeof LOGIN_PREFIX - 1, bytes))
        return false;
    memcpy(message, LABEL, sizeof LABEL);
    memcpy(message + size, group.text, group.size);
    size += group.size;
    message[size++] = '\0';
    memcpy(message + size, id.text, id.size);
    size += id.size;
    memcpy(identity, bytes, KEY_SIZE);
    return is_signed(bytes, bytes + KEY_SIZE, message, size);
}
