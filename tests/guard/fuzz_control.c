/* Throws control messages at the plugin's table, well-formed ones and such that are damaged, and asks it in between:
   fuzz_control SEED MESSAGES. Built by test_mosquitto_fuzz.py with what notices a wrong step of memory. */

#include "control.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define LARGEST 4096 /* bytes of a message made here */

static uint64_t state;

static uint32_t dice(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 16);
}

static uint8_t message[LARGEST];
static size_t size;

static void put(unsigned byte)
{
    message[size++] = (uint8_t)byte;
}

static void put_text(const char *text)
{
    put((unsigned)strlen(text));
    while (*text)
        put((unsigned char)*text++);
}

static void put_name(void)
{
    static const char *const names[] = {"plant", "g2", "x", "alice", "bob", "carol", "dave"};
    put_text(names[dice() % COUNT(names)]);
}

static void put_number(uint32_t value)
{
    for (int shift = 24; shift >= 0; shift -= 8)
        put(value >> shift & 255);
}

static void put_member(void)
{
    unsigned status = dice() % 5, key = dice() % 3;
    put_name();
    put(status);
    put_number(status == 2 ? dice() % 256 : UINT32_MAX);
    for (int i = 0; i < 32; i++)
        put(key);
}

static void put_filters(void)
{
    static const char *const filters[] = {"#", "app/%m/#", "a/+/b", "+/%g", "%", "%m"};
    unsigned count = dice() % 4;
    for (put(count); count > 0; count--) {
        put(0);
        put_text(filters[dice() % COUNT(filters)]);
    }
}

static void put_settings(void)
{
    static const char *const prefixes[] = {"bkm/1", "bkm", "a/b/c"};
    put(2 + dice() % 4);
    put(dice() & 1);
    put_text(prefixes[dice() % COUNT(prefixes)]);
    put_filters();
    put_filters();
}

static void make(void)
{
    unsigned kind = 1 + dice() % 9;
    size = 0;
    put(1);
    put(kind);
    put_number(0);
    if (kind != 1)
        put_name();
    if (kind == 2 || kind == 6)
        put_settings();
    if (kind == 3 || kind == 5) {
        unsigned count = dice() % 6;
        put(0);
        for (put(count); count > 0; count--)
            put_member();
    }
    if (kind == 4)
        put_number(dice() % 5);
    if (kind == 9) {
        put(dice() & 255);
        put_number(0);
    }
}

static void damage(void)
{
    for (unsigned times = dice() % 3; times > 0; times--)
        switch (dice() % 4) {
        case 0:
            message[dice() % size] = (uint8_t)dice();
            break;
        case 1:
            message[dice() % size] ^= (uint8_t)(1U << dice() % 8);
            break;
        case 2:
            size = 1 + dice() % size;
            break;
        default:
            if (size < LARGEST)
                put(dice() & 255);
        }
}

/* In memory of exactly its size, so that a step beyond its end is noticed. */
static char *copy(const void *bytes, size_t length)
{
    char *made = malloc(length);
    if (made == NULL)
        abort();
    return memcpy(made, bytes, length);
}

static void ask(struct guard *guard)
{
    static const char *const users[] = {"plant:alice", "alice", "g2:bob", ":", "x:", "keyserver", "plant:zz", "q"};
    static const char *const topics[] = {"bkm/1/plant/n/1/0", "bkm/1/plant/b", "#", "$share", "$share/", "$share/a/b",
                                         "a/x/b", "app/alice/t", "bkm/", "", "bkm/1/plant/m/alice", "/", "+/+/+/#",
                                         "bkm/1/plant/n/", "bkm/1/plant/n/99999999999/1"};
    char full[USER_SIZE + 1], password[134];
    memset(password, 'A', sizeof password - 1);
    memcpy(password, "bkm1:", 5);
    password[sizeof password - 1] = '\0';
    for (size_t user = 0; user < COUNT(users); user++) {
        guard_login(guard, users[user], dice() % 64 ? "bkm1:AAAA" : password, full);
        for (size_t topic = 0; topic < COUNT(topics) * 3; topic++) {
            const char *text = topics[topic / 3];
            char *exact = copy(text, strlen(text) + 1);
            guard_check(guard, users[user], (enum access)(topic % 3), exact, dice() & 1);
            free(exact);
        }
    }
}

static void ignore(const char *user)
{
    (void)user;
}

int main(int count, char **arguments)
{
    static uint8_t bytes[MAX_MESSAGE];
    static struct guard guard;
    long done = 0, messages = count == 3 ? atol(arguments[2]) : 0;

    if (messages <= 0 || !guard_init(&guard, "keyserver"))
        return 2;
    state = strtoull(arguments[1], NULL, 10) * 2654435761U + 88172645463325252ULL;
    guard.disconnect = guard.kick_later = ignore;
    for (long i = 0; i < messages; i++) {
        make();
        damage();
        char *exact = copy(message, size);
        struct writer answer = {.bytes = bytes, .room = sizeof bytes};
        control_handle(&guard, exact, size, &answer);
        done += bytes[HEADER_SIZE] == 0;
        free(exact);
        if (i % 4 == 0)
            ask(&guard);
    }
    printf("%ld of %ld done\n", done, messages);
    guard_free(&guard);
    return 0;
}
