// SPDX-License-Identifier: Apache-2.0
// Envoy's hooks. They run on the connection's worker, except destroy, which may run on any thread.
//
// "The peer" is the other gate. On a server it is the downstream connection: its bytes come
// through the read hook. On a client the filter sits in an internal listener and the peer is
// behind the next filter: its bytes come through the write hook. "The application" is the other
// direction: on a server the next filters, which are not started before opening; on a client the
// downstream, whose bytes stay in Envoy's own read buffer under Envoy's own back-pressure.
#include "gate.h"

#include "envoy_abi.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINGER (1000 * MILLISECOND)
enum { COUNT_OPENED = 0, COUNT_PLAIN = REASONS, COUNTERS };

static const char *const counter_names[COUNTERS] = {
    "opened", "closed_peer", "closed_local", "closed_refused", "closed_peer_refused", "closed_plain",
    "closed_protocol", "closed_timeout", "closed_unavailable", "closed_agent_protocol", "closed_deadline",
    "closed_revoked", "closed_unknown", "closed_misconfigured", "closed_limit", "plain_let_through",
};

static envoy_buffer text_buffer(const char *text) { return (envoy_buffer){text, strlen(text)}; }
static bool is_client(const struct gate *g) { return g->config->role == ROLE_CLIENT; }
static bool is_over(const struct gate *g) { return g->closing || g->finished; }
static bool flows(const struct gate *g) { return g->open && !is_over(g); }

void say(int level, const char *format, ...) {
    char line[512] = "troth gate: ";
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line + 12, sizeof line - 12, format, arguments);
    va_end(arguments);
    envoy_dynamic_module_callback_log(level, text_buffer(line));
}

// ---- ending ----

static void leave_exchange(struct gate *g) {
    if (g->exchanging) atomic_fetch_sub(&g->config->exchanges, 1);
    g->exchanging = false;
}

static void finish(struct gate *g, enum reason reason) {
    if (g->finished) return;
    g->finished = true;
    if (g->reason == NO_REASON) g->reason = reason;
    leave_exchange(g);
    ENVOY(filter_increment_counter)(g->filter, g->config->counters[g->reason], 1);
    link_unregister(g, g->reason);
}

// Sends what has been collected for the peer, so that SEND and ADMIT in one wake are one write.
static void to_peer(struct gate *g) {
    struct bytes b = g->out;
    g->out = (struct bytes){0};
    envoy_buffer data = {(const char *)b.data, b.size};
    if (b.size > 0 && is_client(g)) ENVOY(filter_inject_read_data)(g->filter, data, false);
    else if (b.size > 0) ENVOY(filter_inject_write_data)(g->filter, data, false);
    bytes_free(&b);
}

static void put_record(struct gate *g, int type, const void *payload, size_t size) {
    if (!g->said_prelude) wire_put_prelude(&g->out, g->config->role);
    g->said_prelude = true;
    wire_put_record(&g->out, type, payload, size);
}

__attribute__((format(printf, 4, 5)))
static void fail(struct gate *g, enum reason reason, uint8_t tell, const char *format, ...) {
    if (is_over(g)) return;
    g->closing = true;
    g->reason = reason;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(g->text, sizeof g->text, format, arguments);
    va_end(arguments);
    // A peer that has not shown a gate would take REFUSE for the application's bytes.
    bool listens = is_client(g) ? g->said_prelude : g->wire.prelude_size == PRELUDE_SIZE;
    bool tells = tell != TELL_NOTHING && listens && !g->decided;  // OPEN is our last record
    if (tells) put_record(g, RECORD_REFUSE, &tell, 1);
    to_peer(g);
    char details[MAX_TEXT + 64];
    int n = snprintf(details, sizeof details, "troth_%s: %s", strchr(counter_names[reason], '_') + 1, g->text);
    for (int i = 0; i < n; i++)
        if (details[i] < ' ' || details[i] > '~') details[i] = '?';
    int how = g->open ? CLOSE_ABORT : tells && !is_client(g) ? CLOSE_FLUSH_WRITE : CLOSE_NO_FLUSH;
    link_deadline(g, now() + LINGER);  // a peer that does not read is not waited for
    if (!g->finished) ENVOY(filter_close_with_details)(g->filter, how, (envoy_buffer){details, (size_t)n});
}

// ---- opening ----

static void set_state(struct gate *g, struct span key, struct span value) {
    ENVOY(set_filter_state_bytes)(g->filter, (envoy_buffer){(const char *)key.data, key.size},
                                  (envoy_buffer){(const char *)value.data, value.size});
}

// The caller lets the application's bytes go on: by returning Continue, or by continue_reading.
static void open_now(struct gate *g, bool attested) {
    static const uint8_t key[] = "troth.status", words[] = "attestednone";
    g->open = true;
    leave_exchange(g);
    ENVOY(filter_increment_counter)(g->filter, g->config->counters[attested ? COUNT_OPENED : COUNT_PLAIN], 1);
    set_state(g, (struct span){key, sizeof key - 1}, attested ? (struct span){words, 8} : (struct span){words + 8, 4});
    link_deadline(g, g->admitted_until);  // 0, none, for a plain peer
}

static void admit(struct gate *g, struct span body) {
    struct span value, context;
    bool has_context = false;
    for (enum tag tag; attribute_next(&body, &tag, &value);) {
        if (tag == DEADLINE_MS) g->admitted_until = now() + read_integer(value.data, 8) * MILLISECOND;
        if (tag == CONTEXT) context = value, has_context = true;
        if (tag != STATE) continue;
        struct span key = {value.data + 1, value.data[0]};
        set_state(g, key, (struct span){key.data + key.size, value.size - 1 - key.size});
    }
    link_admit(g, g->admitted_until, has_context ? &context : NULL);
    if (g->open) link_deadline(g, g->admitted_until);
}

static void refuse(struct gate *g, enum reason reason, struct span body) {
    struct span value, text = {(const uint8_t *)"", 0};
    uint8_t class = TELL_REFUSED;
    for (enum tag tag; attribute_next(&body, &tag, &value);) {
        if (tag == CLASS) class = value.data[0];
        if (tag == TEXT) text = value;
    }
    fail(g, reason, class, "%.*s", (int)text.size, (const char *)text.data);
}

static void obey(struct gate *g, const struct frame *f) {
    bool early = f->type == SEND || f->type == ADMIT || f->type == REFUSE;
    if (f->type != CLOSE && early == g->decided)
        return fail(g, AGENT_PROTOCOL, TELL_UNAVAILABLE, "frame 0x%02x %s ADMIT", f->type, early ? "after" : "before");
    if (f->type == CLOSE || f->type == REFUSE) return refuse(g, f->type == CLOSE ? REVOKED : REFUSED, f->body);
    if (f->type == SEND) {
        g->sent += (uint32_t)f->body.size;
        if (g->sent > MAX_EXCHANGE || ++g->records > MAX_RECORDS)
            return fail(g, AGENT_PROTOCOL, TELL_UNAVAILABLE, "more than an exchange may hold");
        return put_record(g, RECORD_DATA, f->body.data, f->body.size);
    }
    if (f->type == ADMIT) put_record(g, RECORD_OPEN, NULL, 0);
    g->decided = true;
    admit(g, f->body);
}

static void past_deadline(struct gate *g) {
    if (g->closing)
        ENVOY(filter_close_with_details)(g->filter, CLOSE_ABORT, text_buffer("troth_linger"));
    else if (g->open)
        fail(g, DEADLINE, TELL_NOTHING, "the deadline of the last admission has passed");
    else if (g->config->permissive && !g->asked && now() < g->created + g->config->exchange)
        open_now(g, false);
    else
        fail(g, TIMEOUT, TELL_TIMEOUT, "%s",
             g->wire.prelude_size == 0 && g->said_prelude ? "the peer did not answer: it may have no gate"
             : !g->asked                                  ? "TLS was not finished, or the peer was silent"
             : !g->decided                                ? "our agent did not decide"
                                                          : "the peer's agent did not decide");
}

HOOK(void, network_filter_scheduled)(void *filter, const void *module, uint64_t event) {
    struct gate *g = (struct gate *)module;
    (void)event;
    bool lost, was_open = g->open;
    struct bytes inbox = link_take(g, &lost);
    struct span rest = {inbox.data, inbox.size};
    struct frame f;
    const char *why;
    for (long size; !is_over(g) && (size = frame_next(rest, &f, &why)) > 0;) {
        obey(g, &f);
        rest = (struct span){rest.data + size, rest.size - (size_t)size};
    }
    bytes_free(&inbox);
    if (!is_over(g)) to_peer(g);
    if (!is_over(g) && !was_open && g->decided && g->wire.open) open_now(g, true);
    if (lost) fail(g, UNAVAILABLE, TELL_UNAVAILABLE, "no link to the agent");
    if (!g->finished && g->deadline != 0 && g->deadline <= now()) past_deadline(g);
    if (!was_open && flows(g)) ENVOY(filter_continue_reading)(filter);
}

// ---- the peer's bytes ----

static bool put_attribute(struct gate *g, struct bytes *b, enum tag tag, int server_id, int client_id) {
    envoy_buffer v = {NULL, 0};
    if (!ENVOY(filter_get_attribute_string)(g->filter, is_client(g) ? client_id : server_id, &v) || v.length == 0)
        return false;
    if (tag == PEER_DIGEST && v.length == DIGEST_SIZE) memcpy(g->digest, v.ptr, DIGEST_SIZE);
    attribute(b, tag, v.ptr, v.length);
    return tag != PEER_DIGEST || v.length == DIGEST_SIZE;
}

static void put_open(struct gate *g, struct bytes *b) {
    size_t start = frame_begin(b, OPEN, 0, g->id);
    attribute_integer(b, ROLE, (uint64_t)g->config->role, 1);
    attribute(b, LABEL, g->config->label, strlen(g->config->label));
    attribute_integer(b, ENVOY_CONNECTION, g->envoy_connection, 8);
    frame_end(b, start);
    g->asked = true;
}

static void put_peer(struct gate *g, struct bytes *b) {
    size_t start = frame_begin(b, PEER, 0, g->id);
    if (!put_attribute(g, b, PEER_DIGEST, ATTRIBUTE_PEER_DIGEST, ATTRIBUTE_UPSTREAM_PEER_DIGEST))
        return fail(g, MISCONFIGURED, TELL_UNAVAILABLE, "Envoy has not verified a certificate of the peer");
    put_attribute(g, b, PEER_SAN, ATTRIBUTE_PEER_SAN, ATTRIBUTE_UPSTREAM_PEER_SAN);
    frame_end(b, start);
}

// Takes what it can of one hook's buffer and turns it into frames for the agent.
static enum wire_event take(struct gate *g, const envoy_buffer *chunks, size_t n, struct bytes *frames, size_t *used) {
    struct wire *w = &g->wire;
    enum wire_event event = WIRE_MORE;
    size_t peeked = w->prelude_size;
    for (size_t i = 0; i < n && !is_over(g); i++) {
        struct span in = {(const uint8_t *)chunks[i].ptr, chunks[i].length}, piece;
        for (; peeked < PRELUDE_SIZE && in.size > 0; in.data++, in.size--) w->prelude[peeked++] = *in.data;
        if (w->prelude_size < PRELUDE_SIZE) {
            // A server leaves the beginning of a prelude in the buffer, since it may still turn out
            // to be a plain peer's; a client takes it, since the write hook's buffer does not stay.
            event = wire_prelude(w->prelude, peeked, g->config->role);
            if (event != WIRE_MORE && event != WIRE_READY) return event;
            if (event == WIRE_MORE && !is_client(g)) continue;
            *used += peeked - w->prelude_size;
            w->prelude_size = (uint8_t)peeked;
            if (event == WIRE_MORE) continue;
            if (!g->asked) put_open(g, frames);
            put_peer(g, frames);
        }
        *used += in.size;
        bool more;
        while ((event = wire_next(w, &in, &piece, &more, &g->peer_class)) == WIRE_PIECE) {
            size_t start = frame_begin(frames, PEER_DATA, more ? FLAG_MORE : 0, g->id);
            bytes_put(frames, piece.data, piece.size);
            frame_end(frames, start);
        }
        *used -= in.size;
        if (event != WIRE_MORE) return event;
    }
    return event;
}

static void from_peer(struct gate *g, size_t size, bool end) {
    static const char early[] = "application bytes came before we had decided";
    if (g->wire.open && size > 0) return fail(g, PROTOCOL, TELL_PROTOCOL, early);
    bool client = is_client(g), opens = !g->asked;
    size_t used = 0, n = client ? ENVOY(filter_get_write_buffer_chunks_size)(g->filter)
                                : ENVOY(filter_get_read_buffer_chunks_size)(g->filter);
    envoy_buffer *chunks = need(calloc(n + 1, sizeof *chunks));
    if (client) ENVOY(filter_get_write_buffer_chunks)(g->filter, chunks);
    else ENVOY(filter_get_read_buffer_chunks)(g->filter, chunks);
    struct bytes frames = {0};
    enum wire_event event = take(g, chunks, n, &frames, &used);
    free(chunks);
    if (client) ENVOY(filter_drain_write_buffer)(g->filter, used);
    else ENVOY(filter_drain_read_buffer)(g->filter, used);
    opens = opens && g->asked;
    if (frames.size > 0 && !is_over(g) && !link_send(g, &frames, opens))
        fail(g, UNAVAILABLE, TELL_UNAVAILABLE, "the agent is away, or does not keep up");
    bytes_free(&frames);
    if (event == WIRE_OPEN && g->decided && !is_over(g)) open_now(g, true);
    else if (event == WIRE_OPEN && used < size) fail(g, PROTOCOL, TELL_PROTOCOL, early);
    else if (event == WIRE_PLAIN && g->config->permissive) open_now(g, false);
    else if (event == WIRE_PLAIN) fail(g, PLAIN, TELL_NOTHING, "the peer has no gate");
    else if (event == WIRE_REFUSE) fail(g, PEER_REFUSED, TELL_NOTHING, "class %d", g->peer_class);
    else if (event == WIRE_VERSION) fail(g, PROTOCOL, TELL_VERSION, "the peer's gate speaks another version");
    else if (event == WIRE_BAD) fail(g, PROTOCOL, TELL_PROTOCOL, "the peer's gate does not follow the protocol");
    if (end && !g->open) fail(g, BY_PEER, TELL_NOTHING, "the peer closed before both sides had decided");
    // From its prelude on, a peer has until the end of the exchange, not of the silence.
    if (opens && g->config->permissive && !is_over(g)) link_deadline(g, g->created + g->config->exchange);
}

// ---- the connection's hooks ----

HOOK(const void *, network_filter_new)(const void *config, void *filter) {
    struct gate *g = need(calloc(1, sizeof *g));
    atomic_init(&g->references, 1);
    g->config = (struct config *)config;
    g->filter = filter;
    g->created = now();
    g->deadline = g->created + g->config->exchange;
    g->scheduler = ENVOY(filter_scheduler_new)(filter);
    return g;
}

HOOK(int, network_filter_new_connection)(void *filter, const void *module) {
    struct gate *g = (struct gate *)module;
    struct config *c = g->config;
    bool client = is_client(g), tls = ENVOY(filter_is_ssl)(filter);
    struct bytes frames = {0};
    g->exchanging = true;
    g->envoy_connection = ENVOY(filter_get_connection_id)(filter);
    if (atomic_fetch_add(&c->exchanges, 1) >= c->max_exchanges)
        fail(g, LIMIT, TELL_NOTHING, "max_exchanges=%d are under way", c->max_exchanges);
    else if (!client && !tls && !c->permissive)
        fail(g, MISCONFIGURED, TELL_NOTHING, "this filter chain has no TLS");
    else if (!ENVOY(filter_read_enabled)(filter))  // it would wait for its upstream before anything is read
        fail(g, MISCONFIGURED, TELL_NOTHING, "the tcp_proxy after the gate needs max_early_data_bytes");
    else if (g->scheduler == NULL || !link_register(g))
        fail(g, UNAVAILABLE, TELL_NOTHING, "no thread for the link to the agent");
    else if (client) {
        put_open(g, &frames);
        if (!link_send(g, &frames, true)) fail(g, UNAVAILABLE, TELL_NOTHING, "the agent is away, or does not keep up");
    }
    if (!client && !tls) link_deadline(g, g->created + c->silence);
    return client && !is_over(g) ? STATUS_CONTINUE : STATUS_STOP;
}

HOOK(int, network_filter_read)(void *filter, const void *module, size_t size, bool end) {
    struct gate *g = (struct gate *)module;
    (void)filter;
    if (!g->open && !is_over(g) && !is_client(g)) from_peer(g, size, end);
    return flows(g) ? STATUS_CONTINUE : STATUS_STOP;
}

HOOK(int, network_filter_write)(void *filter, const void *module, size_t size, bool end) {
    struct gate *g = (struct gate *)module;
    bool was_open = g->open;
    if (is_over(g)) ENVOY(filter_drain_write_buffer)(filter, size);
    else if (!was_open && is_client(g)) from_peer(g, size, end);
    else if (!was_open) fail(g, MISCONFIGURED, TELL_UNAVAILABLE, "a filter that was not started has written");
    if (!was_open && flows(g)) ENVOY(filter_continue_reading)(filter);
    return flows(g) ? STATUS_CONTINUE : STATUS_STOP;
}

HOOK(void, network_filter_event)(void *filter, const void *module, int event) {
    struct gate *g = (struct gate *)module;
    (void)filter;
    // A client's downstream is its own application: closed by Envoy means that the peer went away.
    if (event == EVENT_REMOTE_CLOSE) finish(g, is_client(g) ? BY_LOCAL : BY_PEER);
    else if (event == EVENT_LOCAL_CLOSE) finish(g, is_client(g) ? BY_PEER : BY_LOCAL);
    else if (g->config->permissive && !g->open && !g->asked) link_deadline(g, now() + g->config->silence);
}

HOOK(void, network_filter_destroy)(const void *module) {
    struct gate *g = (struct gate *)module;
    if (!g->finished) {  // no close event came, and here the filter can no longer be asked to count
        leave_exchange(g);
        link_unregister(g, BY_LOCAL);
    }
    gate_release(g);
}

// ---- configuration ----

static bool number(const char *text, long low, long high, long *value) {
    char *end;
    *value = strtol(text, &end, 10);
    return text[0] != '\0' && *end == '\0' && *value >= low && *value <= high;
}

// Returns what is wrong, or NULL.
static const char *read_config(struct config *c, char *text) {
    char *path = NULL, *save = NULL;
    long agent_uid = -1, exchange = 10000, silence = 500, exchanges = 10000;
    for (char *key = strtok_r(text, " \t\r\n;", &save); key != NULL; key = strtok_r(NULL, " \t\r\n;", &save)) {
        char *value = strchr(key, '=');
        if (value == NULL) return "a word is not key=value";
        *value++ = '\0';
        bool ok, client = strcmp(value, "client") == 0, permissive = strcmp(value, "permissive") == 0;
        if (strcmp(key, "agent") == 0) ok = (path = value)[0] == '/' && strlen(value) <= 107;
        else if (strcmp(key, "label") == 0) ok = snprintf(c->label, sizeof c->label, "%s", value) <= 128;
        else if (strcmp(key, "role") == 0)
            ok = client || strcmp(value, "server") == 0, c->role = client ? ROLE_CLIENT : ROLE_SERVER;
        else if (strcmp(key, "mode") == 0) ok = (c->permissive = permissive) || strcmp(value, "strict") == 0;
        else if (strcmp(key, "exchange_ms") == 0) ok = number(value, 100, 600000, &exchange);
        else if (strcmp(key, "silence_ms") == 0) ok = number(value, 1, 600000, &silence);
        else if (strcmp(key, "max_exchanges") == 0) ok = number(value, 1, 1000000, &exchanges);
        else if (strcmp(key, "agent_uid") == 0) ok = number(value, 0, UINT32_MAX, &agent_uid);
        else return "unknown key; known are agent role mode label exchange_ms silence_ms max_exchanges agent_uid";
        if (!ok) return "a value is not valid; see docs/reference/gate-protocol.md, section 6";
    }
    if (path == NULL) return "agent=/path/of/the/agent's/socket is missing";
    if (c->role == 0) return "role=client or role=server is missing";
    if (c->permissive && c->role == ROLE_CLIENT) return "mode=permissive is for servers only";
    c->exchange = (uint64_t)exchange * MILLISECOND;
    c->silence = (uint64_t)silence * MILLISECOND;
    c->max_exchanges = (int)exchanges;
    c->link = link_for(path, agent_uid);
    return NULL;
}

HOOK(const void *, network_filter_config_new)(void *envoy, envoy_buffer name, envoy_buffer value) {
    (void)name;
    struct config *c = need(calloc(1, sizeof *c));
    char *text = need(strndup(value.ptr != NULL ? value.ptr : "", value.length));
    const char *problem = read_config(c, text);
    free(text);
    if (ENVOY(filter_get_attribute_string) == NULL || ENVOY(filter_scheduler_commit) == NULL ||
        ENVOY(filter_read_enabled) == NULL || ENVOY(filter_config_define_counter) == NULL)
        problem = "this Envoy is too old: 1.39 or newer is needed";
    for (size_t i = 0; i < COUNTERS && problem == NULL; i++) {
        char full[64];
        snprintf(full, sizeof full, "troth_gate_%s", counter_names[i]);
        if (ENVOY(filter_config_define_counter)(envoy, text_buffer(full), &c->counters[i]) != 0)
            problem = "Envoy does not define the gate's counters";
    }
    if (problem == NULL) return c;
    say(LOG_ERROR, "filter_config: %s", problem);
    free(c);
    return NULL;
}

HOOK(void, network_filter_config_destroy)(const void *config) { free((void *)config); }

// Envoy only warns where this differs from its own. It does not look at the types of the hooks;
// tests/native/check_abi.py does.
HOOK(const char *, program_init)(void) {
    return envoy_dynamic_module_callback_transport_socket_get_connection_id != NULL ? "v0.2.0" : "v0.1.0";
}
