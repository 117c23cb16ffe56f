// SPDX-License-Identifier: Apache-2.0
// A link is one thread and one socket to one agent, shared by all workers and connections.
// Workers append frames to its queue and try to send; the thread reads, looks at the deadlines
// ten times a second, reconnects, and wakes workers through Envoy's scheduler.
//
// One lock per link guards its fields and each gate's "guarded" ones. Envoy may run a gate's
// destroy hook inside scheduler_commit, on our thread. So commit, delete and gate_release are
// called with no lock held, on gates that a reference of our own keeps in memory.
#include "gate.h"

#include "envoy_abi.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

// Without a link for AGENT_WAIT_MS, connections are refused at once.
enum { TICK_MS = 100, AGENT_WAIT_MS = 2000, GREETING_MS = 2000, FIRST_BACKOFF_MS = 50, LAST_BACKOFF_MS = 1000 };
enum { MAX_INBOX = 2 * MAX_EXCHANGE, KEPT_QUEUE = 65536 };
struct slot {
    struct gate *gate;  // NULL: free
    uint64_t deadline;  // 0: none
    uint32_t generation, next_free;
};
struct link {
    pthread_mutex_t lock;
    struct link *next;
    struct sockaddr_un address;
    long agent_uid;
    bool started;
    uint8_t instance[16];
    enum { DOWN, GREETING, UP } state;
    uint64_t down_since;
    int socket;
    struct bytes out;
    size_t out_sent;
    struct slot *slots;
    uint32_t slot_count, first_free;  // first_free, next_free: index + 1; 0: none
    // The thread's own.
    uint8_t in[FRAME_HEAD + MAX_MESSAGE];
    size_t in_size;
    uint64_t next_try, next_tick, backoff_ms;
    struct gate *due;  // to be woken once the lock is free
};

uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000 * MILLISECOND + (uint64_t)t.tv_nsec;
}

void gate_release(struct gate *g) {
    if (atomic_fetch_sub(&g->references, 1) != 1) return;
    if (g->scheduler != NULL) ENVOY(filter_scheduler_delete)(g->scheduler);
    bytes_free(&g->inbox);
    bytes_free(&g->context);
    bytes_free(&g->out);
    free(g);
}

// ---- called by workers ----

static struct slot *slot_of(struct link *l, uint64_t id) {
    struct slot *slot = (uint32_t)id < l->slot_count ? &l->slots[(uint32_t)id] : NULL;
    return slot != NULL && slot->gate != NULL && slot->generation == id >> 32 ? slot : NULL;
}

static void flush(struct link *l) {
    while (l->state == UP && l->out_sent < l->out.size) {
        ssize_t n = send(l->socket, l->out.data + l->out_sent, l->out.size - l->out_sent, MSG_NOSIGNAL);
        if (n < 0) break;  // no room, or an end that the thread sees too
        l->out_sent += (size_t)n;
    }
    l->out.size -= l->out_sent;
    if (l->out.size > 0 && l->out_sent > 0) memmove(l->out.data, l->out.data + l->out_sent, l->out.size);
    l->out_sent = 0;
    if (l->out.size == 0 && l->out.capacity > KEPT_QUEUE) bytes_free(&l->out);
}

static void put_closed(struct bytes *b, uint64_t id, enum reason reason, const char *text, uint8_t class) {
    size_t start = frame_begin(b, CLOSED, 0, id);
    attribute_integer(b, REASON, reason, 1);
    if (text[0] != '\0') attribute(b, TEXT, text, strlen(text));
    if (class != 0) attribute_integer(b, CLASS, class, 1);
    frame_end(b, start);
}

bool link_send(struct gate *g, struct bytes *frames, bool opens) {
    struct link *l = g->config->link;
    pthread_mutex_lock(&l->lock);
    bool away = opens && l->state == DOWN && now() - l->down_since > AGENT_WAIT_MS * MILLISECOND;
    bool fits = g->id != 0 && !g->lost && !away && l->out.size + frames->size <= MAX_QUEUE;
    if (fits && (opens || g->announced)) {  // else: admitted over a link that is gone; nobody asks
        g->announced = true;
        bytes_put(&l->out, frames->data, frames->size);
        flush(l);
    }
    pthread_mutex_unlock(&l->lock);
    bytes_free(frames);
    return fits;
}

static void *run(void *link);
static bool start(struct link *l) {
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  // Envoy's signals are Envoy's
    l->down_since = now();
    bool started = getrandom(l->instance, sizeof l->instance, 0) > 0 && pthread_create(&thread, NULL, run, l) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started) pthread_setname_np(thread, "troth-gate");
    return started && pthread_detach(thread) == 0;
}

bool link_register(struct gate *g) {
    struct link *l = g->config->link;
    pthread_mutex_lock(&l->lock);
    l->started = l->started || start(l);
    bool ready = l->started;
    if (ready) {
        if (l->first_free == 0) {
            uint32_t count = l->slot_count * 2 + 64;
            l->slots = need(realloc(l->slots, count * sizeof *l->slots));
            for (uint32_t i = count; i-- > l->slot_count; l->first_free = i + 1)
                l->slots[i] = (struct slot){.generation = 1, .next_free = l->first_free};
            l->slot_count = count;
        }
        uint32_t index = l->first_free - 1;
        struct slot *slot = &l->slots[index];
        l->first_free = slot->next_free;
        slot->gate = g;
        slot->deadline = g->deadline;
        atomic_fetch_add(&g->references, 1);
        g->id = (uint64_t)slot->generation << 32 | index;
    }
    pthread_mutex_unlock(&l->lock);
    return ready;
}

void link_unregister(struct gate *g, enum reason reason) {
    struct link *l = g->config->link;
    pthread_mutex_lock(&l->lock);
    struct slot *slot = g->id != 0 ? slot_of(l, g->id) : NULL;
    if (slot != NULL) {
        if (g->announced) put_closed(&l->out, g->id, reason, g->text, g->peer_class);
        if (reason == REVOKED) flush(l);  // an acknowledgement; the others go with what comes next
        *slot = (struct slot){.generation = slot->generation + 1, .next_free = l->first_free};
        l->first_free = (uint32_t)g->id + 1;
        g->id = 0;
    }
    pthread_mutex_unlock(&l->lock);
    if (slot != NULL) gate_release(g);
}

void link_deadline(struct gate *g, uint64_t at) {
    struct link *l = g->config->link;
    g->deadline = at;
    pthread_mutex_lock(&l->lock);
    if (g->id != 0) slot_of(l, g->id)->deadline = at;
    pthread_mutex_unlock(&l->lock);
}

void link_admit(struct gate *g, uint64_t until, const struct span *context) {
    pthread_mutex_lock(&g->config->link->lock);
    g->admitted = true;
    g->until = until;
    if (context != NULL) {
        g->context.size = 0;
        bytes_put(&g->context, context->data, context->size);
    }
    pthread_mutex_unlock(&g->config->link->lock);
}

struct bytes link_take(struct gate *g, bool *lost) {
    pthread_mutex_lock(&g->config->link->lock);
    struct bytes inbox = g->inbox;
    g->inbox = (struct bytes){0};
    g->pending = false;
    *lost = g->lost;
    pthread_mutex_unlock(&g->config->link->lock);
    return inbox;
}

struct link *link_for(const char *path, long agent_uid) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct link *links;  // for good: a listener that goes usually comes back
    pthread_mutex_lock(&lock);
    struct link *l = links;
    while (l != NULL && (strcmp(l->address.sun_path, path) != 0 || l->agent_uid != agent_uid)) l = l->next;
    if (l == NULL) {
        l = need(calloc(1, sizeof *l));
        pthread_mutex_init(&l->lock, NULL);
        l->address.sun_family = AF_UNIX;
        strcpy(l->address.sun_path, path);  // the configuration's reader has checked the length
        l->agent_uid = agent_uid;
        l->socket = -1;
        l->backoff_ms = FIRST_BACKOFF_MS;
        l->next = links;
        links = l;
    }
    pthread_mutex_unlock(&lock);
    return l;
}

// ---- the thread; all but run and wake_due with the lock held ----

static void touch(struct link *l, struct gate *g) {
    if (g->pending) return;
    g->pending = true;
    atomic_fetch_add(&g->references, 1);
    g->next_due = l->due;
    l->due = g;
}

static void wake_due(struct link *l) {
    for (struct gate *g = l->due, *next; g != NULL; g = next) {
        next = g->next_due;  // before the commit: the gate may be touched again from then on
        ENVOY(filter_scheduler_commit)(g->scheduler, 0);
        gate_release(g);
    }
    l->due = NULL;
}

static void lose_connections(struct link *l) {
    for (uint32_t i = 0; i < l->slot_count; i++) {
        struct gate *g = l->slots[i].gate;
        if (g == NULL || !g->announced) continue;
        g->announced = false;
        g->lost = !g->admitted;
        if (g->lost) touch(l, g);
    }
    bytes_free(&l->out);
}

static void lose(struct link *l, const char *why) {
    if (l->backoff_ms == FIRST_BACKOFF_MS) say(LOG_WARN, "no link to %s: %s", l->address.sun_path, why);
    if (l->socket >= 0) close(l->socket);
    l->socket = -1;
    l->in_size = 0;
    l->next_try = now() + l->backoff_ms * MILLISECOND;
    l->backoff_ms = l->backoff_ms * 2 < LAST_BACKOFF_MS ? l->backoff_ms * 2 : LAST_BACKOFF_MS;
    if (l->state == UP) {
        l->down_since = now();
        lose_connections(l);
    }  // else: what is queued waits for the next agent
    l->state = DOWN;
}

static void greet(struct link *l) {
    struct ucred peer;
    socklen_t size = sizeof peer;
    l->state = GREETING;
    l->next_try = now() + GREETING_MS * MILLISECOND;
    l->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->socket < 0 || connect(l->socket, (struct sockaddr *)&l->address, sizeof l->address) != 0 ||
        getsockopt(l->socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
        return lose(l, strerror(errno));
    if (peer.uid != 0 && peer.uid != geteuid() && (long)peer.uid != l->agent_uid)
        return lose(l, "its owner may not be our agent; see agent_uid");
    struct bytes hello = {0};
    size_t start = frame_begin(&hello, HELLO, 0, 0);
    attribute_integer(&hello, VERSION, PROTOCOL_VERSION, 2);
    attribute(&hello, BUILD, GATE_BUILD, sizeof GATE_BUILD - 1);
    attribute_integer(&hello, PID, (uint64_t)getpid(), 4);
    attribute(&hello, INSTANCE, l->instance, sizeof l->instance);
    frame_end(&hello, start);
    bool sent = send(l->socket, hello.data, hello.size, MSG_NOSIGNAL) == (ssize_t)hello.size;
    bytes_free(&hello);
    if (!sent) lose(l, "it did not take the greeting");
}

static void welcome(struct link *l) {
    struct bytes waiting = l->out;
    l->out = (struct bytes){0};
    uint64_t t = now();
    for (uint32_t i = 0; i < l->slot_count; i++) {
        struct gate *g = l->slots[i].gate;
        if (g == NULL || !g->admitted) continue;
        size_t start = frame_begin(&l->out, RESUME, 0, g->id);
        attribute_integer(&l->out, ROLE, (uint64_t)g->config->role, 1);
        attribute(&l->out, LABEL, g->config->label, strlen(g->config->label));
        attribute_integer(&l->out, ENVOY_CONNECTION, g->envoy_connection, 8);
        attribute(&l->out, PEER_DIGEST, g->digest, sizeof g->digest);
        attribute_integer(&l->out, DEADLINE_MS, g->until > t ? (g->until - t) / MILLISECOND + 1 : 1, 8);
        attribute(&l->out, CONTEXT, g->context.data, g->context.size);
        frame_end(&l->out, start);
        g->announced = true;
    }
    frame_end(&l->out, frame_begin(&l->out, RESUMED, 0, 0));
    bytes_put(&l->out, waiting.data, waiting.size);
    bytes_free(&waiting);
    l->state = UP;
    l->backoff_ms = FIRST_BACKOFF_MS;
    say(LOG_INFO, "the link to %s is up", l->address.sun_path);
}

static const char *handle(struct link *l, const struct frame *f, const uint8_t *whole, size_t size) {
    if ((f->type == WELCOME) != (l->state == GREETING)) return "WELCOME is missing, or came twice";
    struct slot *slot = slot_of(l, f->connection);
    if (f->type == WELCOME) {
        welcome(l);
    } else if (slot != NULL) {
        if (slot->gate->inbox.size + size > MAX_INBOX) return "it floods a connection";
        bytes_put(&slot->gate->inbox, whole, size);
        touch(l, slot->gate);
    } else if (f->type == CLOSE) {
        put_closed(&l->out, f->connection, UNKNOWN, "", 0);
    }
    return NULL;
}

// `n` octets have been read behind those that were left of an unfinished frame.
static void receive(struct link *l, size_t n) {
    size_t used = 0;
    const char *problem = NULL;
    struct frame f;
    l->in_size += n;
    for (long size; (size = frame_next((struct span){l->in + used, l->in_size - used}, &f, &problem)) != 0;) {
        if (size > 0) problem = handle(l, &f, l->in + used, (size_t)size);
        if (problem != NULL) return lose(l, problem);
        used += (size_t)size;
    }
    memmove(l->in, l->in + used, l->in_size -= used);
}

static void tick(struct link *l, uint64_t t) {
    l->next_tick = t + TICK_MS * MILLISECOND;
    for (uint32_t i = 0; i < l->slot_count; i++)
        if (l->slots[i].deadline != 0 && l->slots[i].deadline <= t) touch(l, l->slots[i].gate);
    if (l->state == UP) return;
    if (l->state == DOWN && t - l->down_since > AGENT_WAIT_MS * MILLISECOND) lose_connections(l);
    if (t < l->next_try) return;
    if (l->state == GREETING) lose(l, "it did not answer the greeting");
    else greet(l);
}

static void *run(void *link) {
    struct link *l = link;
    for (;;) {
        pthread_mutex_lock(&l->lock);
        uint64_t t = now();
        if (t >= l->next_tick) tick(l, t);
        flush(l);
        short events = l->out.size > 0 && l->state == UP ? POLLIN | POLLOUT : POLLIN;
        struct pollfd polled = {.fd = l->socket, .events = events};  // -1 is ignored
        pthread_mutex_unlock(&l->lock);
        wake_due(l);
        if (poll(&polled, 1, TICK_MS) <= 0 || (polled.revents & ~POLLOUT) == 0) continue;
        ssize_t n = recv(polled.fd, l->in + l->in_size, sizeof l->in - l->in_size, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        pthread_mutex_lock(&l->lock);
        if (n > 0) receive(l, (size_t)n);
        else lose(l, n == 0 ? "it closed the link" : strerror(errno));
        pthread_mutex_unlock(&l->lock);
        wake_due(l);
    }
    return NULL;
}
