// SPDX-License-Identifier: Apache-2.0
// A stand-in for Envoy that runs the gate under sanitizers: worker threads, weakly held filters,
// commits from other threads (so that destroy runs where Envoy may run it), connections that are
// cut at any moment, and an agent that decides at random, misbehaves, dies and comes back.
//
// Pairs of connections run client gate to server gate. What must hold:
//   - an application sees exactly the octets that the other one wrote, in order
//   - it sees none before the agents of both sides have admitted
//   - every hook but destroy runs on its connection's worker, never inside another hook of a peer
//   - when all is over every gate is destroyed and no exchange is counted
//
// Usage: host SEED PAIRS WORKERS
#include "../envoy_abi.h"
#include "../gate.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: CHECK failed: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                  \
        }                                                                             \
    } while (0)

// The hooks under test.
const void *envoy_dynamic_module_on_network_filter_config_new(void *, envoy_buffer, envoy_buffer);
void envoy_dynamic_module_on_network_filter_config_destroy(const void *);
const void *envoy_dynamic_module_on_network_filter_new(const void *, void *);
void envoy_dynamic_module_on_network_filter_destroy(const void *);
int envoy_dynamic_module_on_network_filter_new_connection(void *, const void *);
int envoy_dynamic_module_on_network_filter_read(void *, const void *, size_t, bool);
int envoy_dynamic_module_on_network_filter_write(void *, const void *, size_t, bool);
void envoy_dynamic_module_on_network_filter_event(void *, const void *, int);
void envoy_dynamic_module_on_network_filter_scheduled(void *, const void *, uint64_t);
#define ON(name) envoy_dynamic_module_on_network_filter_##name

// ---- randomness: one generator per thread ----

static uint64_t seed;
static _Thread_local uint64_t state;
static uint32_t draw(uint32_t below) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 16) % below;
}
static bool chance(uint32_t percent) { return draw(100) < percent; }
static void start_random(uint64_t thread) { state = (seed + 1) * 0x9E3779B97F4A7C15u ^ (thread + 1) * 0xBF58476D1CE4E5B9u; }

// ---- a filter on one connection, held as Envoy holds it ----

enum { SIDES = 2 };
struct pair;
struct side {
    atomic_int strong, weak;  // as of a shared_ptr
    struct pair *pair;
    struct worker *worker;
    const void *module;
    int role;
    int read_disabled, depth;
    bool open, next_started, end_read, end_passed, ended;
    struct bytes read, *write;
    size_t app_received, app_sent;
};
struct pair {
    uint64_t id;
    struct side *side[SIDES];  // index: role - 1
    size_t size;               // octets that the client's application writes
    bool aborts;
    atomic_int admitted[SIDES], dead;
};
enum task_kind { BEGIN, CONNECTED, SCHEDULED, FROM_PEER, FROM_APP, PEER_CLOSED, ABORT, DESTROY };
struct task {
    struct task *next;
    enum task_kind kind;
    struct side *side;
    struct bytes data;
    bool end;
};
struct worker {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t some;
    struct task *first, **last;
    bool stop;
};
static atomic_int live_filters, live_pairs, opened_pairs, delivered_pairs, destroyed_elsewhere;
static struct worker *workers;
static int worker_count;
static const void *configs[SIDES];

static void release_weak(struct side *s) {
    if (atomic_fetch_sub(&s->weak, 1) != 1) return;
    bytes_free(&s->read);
    free(s);
}
static bool lock_weak(struct side *s) {
    for (int n = atomic_load(&s->strong); n > 0;)
        if (atomic_compare_exchange_weak(&s->strong, &n, n + 1)) return true;
    return false;
}
static void release_strong(struct side *s) {
    if (atomic_fetch_sub(&s->strong, 1) != 1) return;
    if (!pthread_equal(pthread_self(), s->worker->thread)) atomic_fetch_add(&destroyed_elsewhere, 1);
    ON(destroy)(s->module);
    struct pair *p = s->pair;
    atomic_fetch_sub(&live_filters, 1);
    if (atomic_fetch_add(&p->dead, 1) == 1) atomic_fetch_sub(&live_pairs, 1);
    release_weak(s);
}

static void post(struct side *s, enum task_kind kind, const void *data, size_t size, bool end) {
    struct task *t = calloc(1, sizeof *t);
    t->kind = kind;
    t->side = s;
    t->end = end;
    bytes_put(&t->data, data, size);
    atomic_fetch_add(&s->weak, 1);
    pthread_mutex_lock(&s->worker->lock);
    *s->worker->last = t;
    s->worker->last = &t->next;
    pthread_cond_signal(&s->worker->some);
    pthread_mutex_unlock(&s->worker->lock);
}

static struct side *other(struct side *s) { return s->pair->side[2 - s->role]; }
static void on_worker(struct side *s) { CHECK(pthread_equal(pthread_self(), s->worker->thread)); }
static uint8_t pattern(const struct pair *p, size_t at) { return (uint8_t)(p->id * 131 + at * 7 + (at >> 8)); }

static void close_side(struct side *s, int event, bool tell) {
    on_worker(s);
    if (!s->open) return;
    s->open = false;
    if (!chance(2)) ON(event)(s, s->module, event);  // should Envoy ever forget to say so
    if (tell) post(other(s), PEER_CLOSED, NULL, 0, false);
    post(s, DESTROY, NULL, 0, false);  // Envoy deletes a connection later, too
}

// Octets that an application receives.
static void to_app(struct side *s, const uint8_t *data, size_t size) {
    struct pair *p = s->pair;
    if (size == 0) return;
    CHECK(atomic_load(&p->admitted[0]) && atomic_load(&p->admitted[1]));
    for (size_t i = 0; i < size; i++) {
        if (data[i] != pattern(p, s->app_received + i)) {
            fprintf(stderr, "pair %d role %d at %zu+%zu of %zu:", (int)p->id, s->role, s->app_received, i, size);
            for (size_t j = i; j < size && j < i + 24; j++) fprintf(stderr, " %02x", data[j]);
            fprintf(stderr, "\n");
        }
        CHECK(data[i] == pattern(p, s->app_received + i));
    }
    s->app_received += size;
    CHECK(s->app_received <= p->size);
    if (s->role == ROLE_CLIENT && s->app_received == p->size) atomic_fetch_add(&delivered_pairs, 1);
}

static void wire(struct side *s, const void *data, size_t size, bool end) { post(other(s), FROM_PEER, data, size, end); }

// The server's application: gives back what it gets.
static void server_app(struct side *s) {
    if (s->read.size == 0 && (!s->end_read || s->end_passed)) return;
    to_app(s, s->read.data, s->read.size);
    struct bytes answer = s->read;
    bool end = s->end_read;
    s->end_passed = end;
    s->read = (struct bytes){0};
    s->write = &answer;
    int status = ON(write)(s, s->module, answer.size, end);
    s->write = NULL;
    if (status == STATUS_CONTINUE && s->open) wire(s, answer.data, answer.size, end);
    bytes_free(&answer);
}

// What comes after the gate, on the way from downstream.
static void next_filter(struct side *s) {
    if (!s->open) return;
    if (!s->next_started) {
        s->next_started = true;
        if (s->role == ROLE_SERVER) atomic_fetch_add(&opened_pairs, 1);
    }
    if (s->role == ROLE_SERVER) return server_app(s);
    if (s->read.size == 0 && (!s->end_read || s->end_passed)) return;
    CHECK(atomic_load(&s->pair->admitted[0]) && atomic_load(&s->pair->admitted[1]));
    s->end_passed = s->end_read;
    wire(s, s->read.data, s->read.size, s->end_read);
    bytes_free(&s->read);
}

static void run_read(struct side *s) {
    if (!s->open || s->read_disabled > 0 || (s->read.size == 0 && !s->end_read)) return;
    if (ON(read)(s, s->module, s->read.size, s->end_read) == STATUS_CONTINUE && s->open) next_filter(s);
}

static void run_task(struct task *t) {
    struct side *s = t->side;
    if (!lock_weak(s)) return;
    on_worker(s);
    CHECK(s->depth++ == 0);
    switch (t->kind) {
    case BEGIN:
        if (s->open && ON(new_connection)(s, s->module) == STATUS_CONTINUE && s->open) s->next_started = true;
        break;
    case CONNECTED:
        if (s->open) ON(event)(s, s->module, EVENT_CONNECTED);
        break;
    case SCHEDULED: ON(scheduled)(s, s->module, 0); break;
    case FROM_APP:
        if (!s->open) break;
        bytes_put(&s->read, t->data.data, t->data.size);
        s->end_read |= t->end;
        run_read(s);
        break;
    case FROM_PEER:
        if (!s->open) break;
        if (s->role == ROLE_SERVER) {
            bytes_put(&s->read, t->data.data, t->data.size);
            s->end_read |= t->end;
            run_read(s);
        } else {
            s->write = &t->data;
            if (ON(write)(s, s->module, t->data.size, t->end) == STATUS_CONTINUE && s->open) {
                to_app(s, t->data.data, t->data.size);
                s->ended |= t->end;
            }
            s->write = NULL;
            // Both ends are done: the proxy closes, the application has its answer.
            if (s->ended && s->end_passed && !chance(20)) close_side(s, EVENT_LOCAL_CLOSE, true);
        }
        break;
    case PEER_CLOSED: close_side(s, s->role == ROLE_SERVER ? EVENT_REMOTE_CLOSE : EVENT_LOCAL_CLOSE, false); break;
    case ABORT: close_side(s, chance(50) ? EVENT_REMOTE_CLOSE : EVENT_LOCAL_CLOSE, true); break;
    case DESTROY: release_strong(s); break;
    }
    s->depth--;
    release_strong(s);
}

static void *work(void *argument) {
    struct worker *w = argument;
    start_random((uint64_t)(w - workers));
    for (;;) {
        pthread_mutex_lock(&w->lock);
        while (w->first == NULL && !w->stop) pthread_cond_wait(&w->some, &w->lock);
        struct task *t = w->first;
        if (t != NULL && (w->first = t->next) == NULL) w->last = &w->first;
        pthread_mutex_unlock(&w->lock);
        if (t == NULL) return NULL;
        run_task(t);
        release_weak(t->side);
        bytes_free(&t->data);
        free(t);
    }
}

// ---- the callbacks ----

void envoy_dynamic_module_callback_log(int level, envoy_buffer text) {
    if (getenv("HOST_LOG") != NULL) fprintf(stderr, "log %d %.*s\n", level, (int)text.length, text.ptr);
}

void *ENVOY(filter_scheduler_new)(void *filter) {
    struct side *s = filter;
    atomic_fetch_add(&s->weak, 1);
    struct side **scheduler = malloc(sizeof *scheduler);
    *scheduler = s;
    return scheduler;
}
void ENVOY(filter_scheduler_commit)(void *scheduler, uint64_t event) {
    struct side *s = *(struct side **)scheduler;
    (void)event;
    if (!lock_weak(s)) return;
    if (chance(30)) sched_yield();  // time for the worker to let go: then we destroy it
    post(s, SCHEDULED, NULL, 0, false);
    if (chance(30)) sched_yield();
    if (chance(2)) usleep(200);
    release_strong(s);
}
void ENVOY(filter_scheduler_delete)(void *scheduler) {
    release_weak(*(struct side **)scheduler);
    free(scheduler);
}
void ENVOY(filter_continue_reading)(void *filter) { on_worker(filter), next_filter(filter); }
void ENVOY(filter_close_with_details)(void *filter, int type, envoy_buffer details) {
    struct side *s = filter;
    (void)type;
    if (getenv("HOST_LOG") != NULL) fprintf(stderr, "pair %d role %d %.*s\n", (int)s->pair->id, s->role, (int)details.length, details.ptr);
    CHECK(details.length > 6 && memcmp(details.ptr, "troth_", 6) == 0);
    close_side(s, EVENT_LOCAL_CLOSE, true);
}
void ENVOY(filter_inject_read_data)(void *filter, envoy_buffer data, bool end) {
    struct side *s = filter;
    CHECK(s->role == ROLE_CLIENT && !end);
    if (!s->open) return;
    wire(s, data.ptr, data.length, end);
}
void ENVOY(filter_inject_write_data)(void *filter, envoy_buffer data, bool end) {
    struct side *s = filter;
    CHECK(s->role == ROLE_SERVER && !end);
    if (!s->open) return;
    wire(s, data.ptr, data.length, end);
}
static struct bytes *buffer(struct side *s, bool write) { return write ? s->write : &s->read; }
static size_t chunk_count(struct bytes *b) { return b == NULL ? 0 : b->size == 0 ? 0 : b->size < 3 ? 1 : 3; }
static bool get_chunks(struct bytes *b, envoy_buffer *out) {  // three uneven slices, to make it harder
    size_t n = chunk_count(b), at = 0;
    for (size_t i = 0; i < n; i++) {
        size_t size = i + 1 == n ? b->size - at : b->size / 3;
        out[i] = (envoy_buffer){(const char *)b->data + at, size};
        at += size;
    }
    return n > 0;
}
static bool drain(struct bytes *b, size_t size) {
    if (b == NULL || size == 0) return false;
    CHECK(size <= b->size);
    memmove(b->data, b->data + size, b->size -= size);
    return true;
}
size_t ENVOY(filter_get_read_buffer_chunks_size)(void *f) { return chunk_count(buffer(f, false)); }
bool ENVOY(filter_get_read_buffer_chunks)(void *f, envoy_buffer *out) { return get_chunks(buffer(f, false), out); }
bool ENVOY(filter_drain_read_buffer)(void *f, size_t size) { return drain(buffer(f, false), size); }
size_t ENVOY(filter_get_write_buffer_chunks_size)(void *f) { return chunk_count(buffer(f, true)); }
bool ENVOY(filter_get_write_buffer_chunks)(void *f, envoy_buffer *out) { return get_chunks(buffer(f, true), out); }
bool ENVOY(filter_drain_write_buffer)(void *f, size_t size) { return drain(buffer(f, true), size); }
bool ENVOY(filter_read_enabled)(void *filter) { return ((struct side *)filter)->read_disabled == 0; }
uint64_t ENVOY(filter_get_connection_id)(void *filter) { return ((struct side *)filter)->pair->id; }
bool ENVOY(filter_is_ssl)(void *filter) { return ((struct side *)filter)->role == ROLE_SERVER; }
bool ENVOY(filter_get_attribute_string)(void *filter, int attribute_id, envoy_buffer *out) {
    static const char digest[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    static const char san[] = "spiffe://example.test/peer";
    bool server = ((struct side *)filter)->role == ROLE_SERVER;
    if (attribute_id == (server ? ATTRIBUTE_PEER_DIGEST : ATTRIBUTE_UPSTREAM_PEER_DIGEST))
        *out = (envoy_buffer){digest, 64};
    else if (attribute_id == (server ? ATTRIBUTE_PEER_SAN : ATTRIBUTE_UPSTREAM_PEER_SAN))
        *out = (envoy_buffer){san, sizeof san - 1};
    else return false;
    return true;
}
bool ENVOY(set_filter_state_bytes)(void *filter, envoy_buffer key, envoy_buffer value) {
    (void)filter, (void)value;
    CHECK(key.length > 6 && memcmp(key.ptr, "troth.", 6) == 0);
    return true;
}
int ENVOY(filter_config_define_counter)(void *config, envoy_buffer name, size_t *id) {
    static size_t next;
    (void)config, (void)name;
    *id = next++;
    return 0;
}
int ENVOY(filter_increment_counter)(void *filter, size_t id, uint64_t value) {
    (void)id, (void)value;
    on_worker(filter);
    return 0;
}
bool envoy_dynamic_module_callback_transport_socket_get_connection_id(void *s, uint64_t *id) {
    (void)s, (void)id;
    return false;
}

// ---- the agent: one thread, one listening socket, at most a few links ----

struct agent {
    pthread_t thread;
    struct sockaddr_un address;
    struct pair *pairs;
    size_t pair_count;
    atomic_bool stop;
};
struct agent_link {
    int socket;
    struct bytes in, out;
    uint64_t *connections, *numbers, *partial;  // by pair and role: known link number, state
};
enum { KNOWN_ROLES = 2 };

static void put_agent_frame(struct bytes *b, int type, uint64_t connection, const void *body, size_t size) {
    bytes_integer(b, size, 4);
    bytes_integer(b, (uint64_t)type << 24, 4);
    bytes_integer(b, connection, 8);
    bytes_put(b, body, size);
}
static void put_text(struct bytes *b, int type, uint64_t connection, bool class) {
    struct bytes body = {0};
    if (class) attribute_integer(&body, CLASS, 1 + draw(15), 1);
    if (chance(50)) attribute(&body, TEXT, "because\n\x7f", 9);
    put_agent_frame(b, type, connection, body.data, body.size);
    bytes_free(&body);
}
static void put_admit(struct bytes *b, int type, uint64_t connection, uint64_t deadline_ms) {
    struct bytes body = {0};
    attribute_integer(&body, DEADLINE_MS, deadline_ms, 8);
    for (uint32_t i = draw(3); i > 0; i--) attribute(&body, STATE, "\x0atroth.tierhigh", 15);
    if (chance(50)) attribute(&body, CONTEXT, "context of this admission", draw(25));
    put_agent_frame(b, type, connection, body.data, body.size);
    bytes_free(&body);
}
static void put_message(struct bytes *b, uint64_t connection) {
    static const uint8_t zeros[60000];
    put_agent_frame(b, SEND, connection, zeros, 1 + draw(chance(5) ? sizeof zeros : 300));
}

// What this agent says when something has come from the gate. `last`: it may decide now.
static void decide(struct agent *a, struct bytes *out, uint64_t connection, uint64_t pair, int role, bool first, bool *done) {
    if (chance(2)) return;  // never says anything
    if (chance(3)) return put_text(out, REFUSE, connection, true);
    if (chance(1)) return put_text(out, CLOSE, connection, false);
    if (chance(1)) put_admit(out, UPDATE, connection, 1000);  // out of order
    if (role == ROLE_CLIENT && first) return put_message(out, connection);
    if (role == ROLE_SERVER && first) put_message(out, connection);
    if (role == ROLE_CLIENT) put_message(out, connection);
    if (role == ROLE_SERVER && first && chance(80)) return;  // else: needs no proof of the client
    *done = true;
    atomic_store(&a->pairs[pair].admitted[role - 1], 1);
    put_admit(out, ADMIT, connection, chance(10) ? 1 + draw(50) : 60000);
    if (chance(2)) put_message(out, connection);  // out of order
    if (chance(10)) put_admit(out, UPDATE, connection, 30000);
    if (chance(3)) put_text(out, CLOSE, connection, false);
}

// The connections of a link are looked up by number in a small open hash.
struct known { uint64_t connection, pair; int role, messages; bool done; };
enum { KNOWN = 1 << 19 };  // more than a run has connections
static struct known *lookup(struct known *table, uint64_t connection) {
    size_t i = (connection * 0x9E3779B97F4A7C15u) >> 45;
    while (table[i].connection != 0 && table[i].connection != connection) i = (i + 1) % KNOWN;
    return &table[i];
}

static bool agent_frame(struct agent *a, struct agent_link *l, struct known *table, int type, uint8_t flags, uint64_t connection, struct span body) {
    if (type == HELLO) put_agent_frame(&l->out, WELCOME, 0, "\0\1\0\2\0\1", 6);
    if (type != OPEN && type != RESUME && type != PEER_DATA && type != CLOSED) return true;
    struct known *k = lookup(table, connection);
    if (type == OPEN || type == RESUME) {
        CHECK(k->connection == 0);  // a number is never used twice
        *k = (struct known){.connection = connection};
        enum tag tag;
        struct span value;
        while (attribute_next(&body, &tag, &value)) {
            if (tag == ENVOY_CONNECTION) k->pair = read_integer(value.data, 8);
            if (tag == ROLE) k->role = value.data[0];
        }
        if (type == RESUME) {
            CHECK(atomic_load(&a->pairs[k->pair].admitted[k->role - 1]));
            if (chance(20)) put_text(&l->out, CLOSE, connection, false);
        } else if (k->role == ROLE_CLIENT) {
            decide(a, &l->out, connection, k->pair, k->role, true, &k->done);
        }
        return true;
    }
    CHECK(k->connection == connection || type == CLOSED);
    if (type == CLOSED || (flags & FLAG_MORE) || k->done) return true;
    decide(a, &l->out, connection, k->pair, k->role, k->role == ROLE_SERVER && k->messages++ == 0, &k->done);
    return true;
}

static void serve(struct agent *a, int socket_fd) {
    struct agent_link l = {.socket = socket_fd};
    struct known *table = calloc(KNOWN, sizeof *table);
    uint8_t buffer[16384];
    for (;;) {
        if (atomic_load(&a->stop)) break;
        if (l.out.size > 0) {
            size_t some = 1 + draw((uint32_t)l.out.size);  // cut anywhere
            ssize_t n = send(l.socket, l.out.data, some, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (n < 0 && errno != EAGAIN) break;
            if (n > 0) memmove(l.out.data, l.out.data + n, l.out.size -= (size_t)n);
        }
        struct pollfd p = {.fd = l.socket, .events = POLLIN};
        if (poll(&p, 1, l.out.size > 0 ? 0 : 20) <= 0) continue;
        ssize_t n = recv(l.socket, buffer, 1 + draw(sizeof buffer), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN)) break;
        if (n > 0) bytes_put(&l.in, buffer, (size_t)n);
        if (draw(4000) == 0) break;                                              // killed
        if (draw(500) == 0) usleep(draw(60000));                                 // stuck
        if (draw(4000) == 0) bytes_put(&l.out, "\0\0\0\1nonsense", 12);      // mad
        size_t at = 0;
        while (l.in.size - at >= FRAME_HEAD) {
            const uint8_t *head = l.in.data + at;
            size_t size = read_integer(head, 4);
            CHECK(size <= MAX_MESSAGE && read_integer(head + 6, 2) == 0);
            if (l.in.size - at - FRAME_HEAD < size) break;
            agent_frame(a, &l, table, head[4], head[5], read_integer(head + 8, 8), (struct span){head + FRAME_HEAD, size});
            at += FRAME_HEAD + size;
        }
        memmove(l.in.data, l.in.data + at, l.in.size -= at);
    }
    close(l.socket);
    bytes_free(&l.in);
    bytes_free(&l.out);
    free(table);
}

static void *run_agent(void *argument) {
    struct agent *a = argument;
    start_random(1000);
    while (!atomic_load(&a->stop)) {
        int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        unlink(a->address.sun_path);
        CHECK(bind(listener, (struct sockaddr *)&a->address, sizeof a->address) == 0 && listen(listener, 8) == 0);
        do {
            struct pollfd p = {.fd = listener, .events = POLLIN};
            if (poll(&p, 1, 20) > 0) {
                int accepted = accept(listener, NULL, NULL);
                if (accepted >= 0) serve(a, accepted);
            }
        } while (!atomic_load(&a->stop) && !chance(50));
        close(listener);
        usleep(draw(50000));  // away
    }
    unlink(a->address.sun_path);
    return NULL;
}

// ---- the run ----

enum { LIVE = 150 };  // pairs at once

static struct side *new_side(struct pair *p, int role) {
    struct side *s = calloc(1, sizeof *s);
    atomic_init(&s->strong, 1);
    atomic_init(&s->weak, 1);
    s->pair = p;
    s->role = role;
    s->worker = &workers[draw((uint32_t)worker_count)];
    s->open = true;
    s->read_disabled = chance(1);  // a tcp_proxy without early data stops reading at once
    p->side[role - 1] = s;
    return s;
}

static void start_pair(struct pair *p) {
    p->size = chance(20) ? draw(100000) : draw(500);
    p->aborts = chance(10);
    struct side *client = new_side(p, ROLE_CLIENT), *server = new_side(p, ROLE_SERVER);
    atomic_fetch_add(&live_filters, 2);
    atomic_fetch_add(&live_pairs, 1);
    // Created here, before any task can run; Envoy creates them on the worker.
    client->module = ON(new)(configs[0], client);
    server->module = ON(new)(configs[1], server);
    atomic_fetch_add(&client->weak, 1), atomic_fetch_add(&server->weak, 1);  // the pair's, until the end
    post(server, BEGIN, NULL, 0, false);
    post(client, BEGIN, NULL, 0, false);
    post(server, CONNECTED, NULL, 0, false);
    uint8_t *data = malloc(p->size + 1);
    for (size_t i = 0; i < p->size; i++) data[i] = pattern(p, i);
    for (size_t at = 0; at < p->size;) {
        size_t size = 1 + draw((uint32_t)(p->size - at));
        post(client, FROM_APP, data + at, size, false);
        at += size;
    }
    post(client, FROM_APP, NULL, 0, true);
    free(data);
}

int main(int argc, char **argv) {
    seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    size_t count = argc > 2 ? strtoul(argv[2], NULL, 10) : 2000;
    worker_count = argc > 3 ? atoi(argv[3]) : 4;
    start_random(999);
    alarm((unsigned)(120 + count / 50));  // a deadlock ends, and is seen
    struct pair *pairs = calloc(count, sizeof *pairs);
    struct agent agent = {.pairs = pairs, .pair_count = count, .address = {.sun_family = AF_UNIX}};
    snprintf(agent.address.sun_path, sizeof agent.address.sun_path, "/tmp/troth-host-%d.sock", (int)getpid());
    workers = calloc((size_t)worker_count, sizeof *workers);
    for (int i = 0; i < worker_count; i++) {
        pthread_mutex_init(&workers[i].lock, NULL);
        pthread_cond_init(&workers[i].some, NULL);
        workers[i].last = &workers[i].first;
        CHECK(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
    }
    CHECK(pthread_create(&agent.thread, NULL, run_agent, &agent) == 0);
    for (int role = ROLE_CLIENT; role <= ROLE_SERVER; role++) {
        char text[256];
        int n = snprintf(text, sizeof text, "agent=%s role=%s exchange_ms=1500 max_exchanges=%d", agent.address.sun_path,
                         role == ROLE_CLIENT ? "client" : "server", 100000);
        configs[role - 1] = ON(config_new)(text, (envoy_buffer){"gate", 4}, (envoy_buffer){text, (size_t)n});
        CHECK(configs[role - 1] != NULL);
    }
    for (size_t i = 0; i < count; i++) {
        pairs[i].id = i;
        start_pair(&pairs[i]);
        if (pairs[i].aborts) post(pairs[i].side[draw(2)], ABORT, NULL, 0, false);
        // Cuts hit older connections in every state, and end those that nobody else ends.
        if (i >= 60 && chance(20)) post(pairs[i - draw(60)].side[draw(2)], ABORT, NULL, 0, false);
        for (int waited = 0; atomic_load(&live_pairs) > LIVE; waited++) {
            usleep(500);
            if (waited > 100) post(pairs[draw((uint32_t)i)].side[draw(2)], ABORT, NULL, 0, false);
        }
    }
    usleep(1700000);  // every exchange is over by now, admitted or not
    for (size_t i = 0; i < count; i++) post(pairs[i].side[0], ABORT, NULL, 0, false);
    for (int i = 0; i < 20000 && atomic_load(&live_filters) > 0; i++) usleep(1000);
    CHECK(atomic_load(&live_filters) == 0);
    for (int role = 0; role < SIDES; role++) {
        CHECK(atomic_load(&((struct config *)configs[role])->exchanges) == 0);
        ON(config_destroy)(configs[role]);
    }
    for (int i = 0; i < worker_count; i++) {
        pthread_mutex_lock(&workers[i].lock);
        workers[i].stop = true;
        pthread_cond_signal(&workers[i].some);
        pthread_mutex_unlock(&workers[i].lock);
        pthread_join(workers[i].thread, NULL);
    }
    atomic_store(&agent.stop, true);
    pthread_join(agent.thread, NULL);
    for (size_t i = 0; i < count; i++) release_weak(pairs[i].side[0]), release_weak(pairs[i].side[1]);
    printf("pairs %zu opened %d complete %d destroyed-off-thread %d\n", count, atomic_load(&opened_pairs),
           atomic_load(&delivered_pairs), atomic_load(&destroyed_elsewhere));
    fflush(stdout);
    free(pairs);
    free(workers);
    // A run in which nothing opened, or everything, has tested little.
    CHECK(atomic_load(&opened_pairs) > (int)count / 50 && atomic_load(&opened_pairs) < (int)count);
    return 0;
}
