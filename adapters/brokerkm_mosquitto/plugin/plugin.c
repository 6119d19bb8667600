/* Mosquitto's side: its events in, its functions out. API version 5; one binary for 2.0 and 2.1. */

#include "control.h"
#include "state.h"

#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

#define TOPIC "$CONTROL/brokerkm/v1"
#define RESPONSE TOPIC "/response"
#define DEFAULT_KEYSERVER "keyserver"

/* From mosquitto.h, which is in another package than the plugin's headers; the numbers are Mosquitto's interface. */
enum { MOSQ_ERR_SUCCESS = 0, MOSQ_ERR_NOMEM = 1, MOSQ_ERR_INVAL = 3, MOSQ_ERR_AUTH = 11, MOSQ_ERR_ACL_DENIED = 12,
       MOSQ_ERR_UNKNOWN = 13, MOSQ_ERR_PLUGIN_DEFER = 17 };
enum { MOSQ_LOG_INFO = 1, MOSQ_LOG_WARNING = 4, MOSQ_LOG_ERR = 8 };

/* Clients that are to go as soon as the broker is done with the one that it serves. */
#define KICKS 256
static char kicks[KICKS][USER_SIZE + 1];
static unsigned kick_count;

static struct guard guard;
static struct state state;
static mosquitto_plugin_id_t *identifier;

static void kick(const char *user)
{
    mosquitto_kick_client_by_username(user, false);
}

/* If there are too many, the rest is noticed again at its next message. */
static void kick_later(const char *user)
{
    size_t size = strlen(user);
    if (kick_count == KICKS || size > USER_SIZE || (kick_count > 0 && strcmp(kicks[kick_count - 1], user) == 0))
        return;
    memcpy(kicks[kick_count++], user, size + 1);
}

static int on_tick(int event, void *data, void *userdata)
{
    (void)event, (void)data, (void)userdata;
    while (kick_count > 0)
        kick(kicks[--kick_count]);
    return MOSQ_ERR_SUCCESS;
}

static int on_login(int event, void *data, void *userdata)
{
    struct mosquitto_evt_basic_auth *login = data;
    char full[USER_SIZE + 1];
    (void)event, (void)userdata;
    switch (kick_count == KICKS ? DENY : guard_login(&guard, login->username, login->password, full)) {
    case ALLOW:
        /* From here on a device has one name, whichever it came with. */
        return strcmp(full, login->username) == 0 ? MOSQ_ERR_SUCCESS : mosquitto_set_username(login->client, full);
    case DEFER:
        return MOSQ_ERR_PLUGIN_DEFER;
    default:
        return MOSQ_ERR_AUTH;
    }
}

static int on_access(int event, void *data, void *userdata)
{
    const struct mosquitto_evt_acl_check *check = data;
    const char *user = mosquitto_client_username(check->client);
    enum access access = check->access == MOSQ_ACL_SUBSCRIBE ? SUBSCRIBE : check->access == MOSQ_ACL_READ ? READ : WRITE;
    (void)event, (void)userdata;
    if (check->access == MOSQ_ACL_UNSUBSCRIBE)
        return MOSQ_ERR_SUCCESS;
    switch (guard_check(&guard, user, access, check->topic, check->retain)) {
    case ALLOW:
        return MOSQ_ERR_SUCCESS;
    case DEFER:
        return MOSQ_ERR_PLUGIN_DEFER;
    default:
        return MOSQ_ERR_ACL_DENIED;
    }
}

static int on_control(int event, void *data, void *userdata)
{
    static uint8_t bytes[MAX_MESSAGE];
    const struct mosquitto_evt_control *message = data;
    const char *client = mosquitto_client_id(message->client);
    struct writer answer = {.bytes = bytes, .room = sizeof bytes};
    (void)event, (void)userdata;
    if (client == NULL || !guard_is_keyserver(&guard, mosquitto_client_username(message->client)))
        return MOSQ_ERR_SUCCESS; /* on_access has refused it already; Mosquitto asks it first */
    enum effect effect = control_handle(&guard, message->payload, message->payloadlen, &answer);
    if (bytes[HEADER_SIZE] != OK)
        mosquitto_log_printf(MOSQ_LOG_WARNING, "brokerkm: control message refused: %.*s",
                             (int)(answer.size - HEADER_SIZE - 1), (const char *)bytes + HEADER_SIZE + 1);
    if (!state_keep(&state, &guard, effect, message->payload, message->payloadlen))
        mosquitto_log_printf(MOSQ_LOG_ERR, "brokerkm: the state file %s cannot be written and was removed", state.path);
    mosquitto_broker_publish_copy(client, RESPONSE, (int)answer.size, bytes, 1, false, NULL);
    /* Never an error: Mosquitto would close the key server's connection. */
    return MOSQ_ERR_SUCCESS;
}

static bool read_options(const struct mosquitto_opt *options, int count, const char **keyserver, const char **path)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(options[i].key, "keyserver") == 0 && options[i].value[0] != '\0') {
            *keyserver = options[i].value;
        } else if (strcmp(options[i].key, "state") == 0 && options[i].value[0] != '\0') {
            *path = options[i].value;
        } else {
            mosquitto_log_printf(MOSQ_LOG_ERR, "brokerkm: plugin_opt_%s is not known or empty; there are plugin_opt_keyserver "
                                 "(user name) and plugin_opt_state (file)", options[i].key);
            return false;
        }
    }
    return true;
}

EXPORT int mosquitto_plugin_version(int count, const int *versions)
{
    for (int i = 0; i < count; i++)
        if (versions[i] == MOSQ_PLUGIN_VERSION)
            return MOSQ_PLUGIN_VERSION;
    return -1;
}

EXPORT int mosquitto_plugin_init(mosquitto_plugin_id_t *id, void **userdata, struct mosquitto_opt *options, int count)
{
    const char *keyserver = DEFAULT_KEYSERVER, *path = NULL;
    char report[256];
    identifier = id;
    *userdata = NULL;
    if (!read_options(options, count, &keyserver, &path))
        return MOSQ_ERR_INVAL;
    if (!guard_init(&guard, keyserver)) {
        mosquitto_log_printf(MOSQ_LOG_ERR, "brokerkm: the system has no randomness");
        return MOSQ_ERR_UNKNOWN;
    }
    state_open(&state, path, &guard, report, sizeof report);
    if (report[0] != '\0')
        mosquitto_log_printf(MOSQ_LOG_WARNING, "brokerkm: %s", report);
    guard.disconnect = kick;
    guard.kick_later = kick_later;
    int result = mosquitto_callback_register(id, MOSQ_EVT_BASIC_AUTH, on_login, NULL, NULL);
    if (result == MOSQ_ERR_SUCCESS)
        result = mosquitto_callback_register(id, MOSQ_EVT_ACL_CHECK, on_access, NULL, NULL);
    if (result == MOSQ_ERR_SUCCESS)
        result = mosquitto_callback_register(id, MOSQ_EVT_CONTROL, on_control, TOPIC, NULL);
    if (result == MOSQ_ERR_SUCCESS)
        result = mosquitto_callback_register(id, MOSQ_EVT_TICK, on_tick, NULL, NULL);
    if (result == MOSQ_ERR_SUCCESS)
        mosquitto_log_printf(MOSQ_LOG_INFO, "brokerkm: guarding; the key server is user %s", keyserver);
    return result;
}

EXPORT int mosquitto_plugin_cleanup(void *userdata, struct mosquitto_opt *options, int count)
{
    (void)userdata, (void)options, (void)count;
    mosquitto_callback_unregister(identifier, MOSQ_EVT_BASIC_AUTH, on_login, NULL);
    mosquitto_callback_unregister(identifier, MOSQ_EVT_ACL_CHECK, on_access, NULL);
    mosquitto_callback_unregister(identifier, MOSQ_EVT_CONTROL, on_control, TOPIC);
    mosquitto_callback_unregister(identifier, MOSQ_EVT_TICK, on_tick, NULL);
    state_close(&state);
    guard_free(&guard);
    return MOSQ_ERR_SUCCESS;
}
