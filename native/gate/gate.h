// SPDX-License-Identifier: Apache-2.0
// Shared types. The protocols are in docs/reference/gate-protocol.md; names here are its names.
//   protocol.c   octets to frames and records, and back; no I/O, no state beyond its arguments
//   link.c       one thread per agent socket: frames in and out, deadlines, reconnecting
//   filter.c     Envoy's hooks, on Envoy's workers: one struct gate per connection
// Out of memory ends the process, as it does everywhere else in Envoy.
#ifndef TROTH_GATE_H
#define TROTH_GATE_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GATE_BUILD "0.1.0"
#define MILLISECOND UINT64_C(1000000)
#define MAX_DEADLINE_MS UINT64_C(31622400000)
enum { PROTOCOL_VERSION = 1, PRELUDE_SIZE = 8, RECORD_HEAD = 4, FRAME_HEAD = 16, DIGEST_SIZE = 64 };
enum {
    MAX_MESSAGE = 262144,    // octets of one DATA record, one SEND, one PEER_DATA
    MAX_EXCHANGE = 1048576,  // octets of DATA per connection and direction
    MAX_QUEUE = 8388608,     // octets waiting for an agent that does not read
    MAX_RECORDS = 64, MAX_STATES = 32, MAX_CONTEXT = 512, MAX_TEXT = 512,
};
enum { ROLE_CLIENT = 1, ROLE_SERVER = 2 };
enum { RECORD_DATA = 1, RECORD_OPEN = 2, RECORD_REFUSE = 3 };
enum { FLAG_MORE = 1 };
enum frame_type {
    HELLO = 0x01, OPEN, PEER, PEER_DATA, CLOSED, RESUME, RESUMED,
    WELCOME = 0x81, SEND, ADMIT, REFUSE, CLOSE, UPDATE,
};
enum tag {
    VERSION = 1, BUILD, PID, INSTANCE, ROLE, LABEL, PEER_DIGEST = 8, PEER_SAN,
    ENVOY_CONNECTION, DEADLINE_MS, STATE, CLASS, TEXT, CONTEXT, REASON, TAGS,
};
enum reason {
    NO_REASON, BY_PEER, BY_LOCAL, REFUSED, PEER_REFUSED, PLAIN, PROTOCOL, TIMEOUT, UNAVAILABLE,
    AGENT_PROTOCOL, DEADLINE, REVOKED, UNKNOWN, MISCONFIGURED, LIMIT, REASONS,
};
enum { TELL_NOTHING, TELL_REFUSED, TELL_UNAVAILABLE, TELL_TIMEOUT, TELL_PROTOCOL, TELL_VERSION };

struct span {
    const uint8_t *data;
    size_t size;
};
struct bytes {  // grows
    uint8_t *data;
    size_t size, capacity;
};
void *need(void *memory);  // memory, or the end
void bytes_put(struct bytes *b, const void *data, size_t size);
void bytes_integer(struct bytes *b, uint64_t value, int octets);
void bytes_free(struct bytes *b);
uint64_t read_integer(const uint8_t *data, int octets);

size_t frame_begin(struct bytes *b, enum frame_type type, uint8_t flags, uint64_t connection);
void frame_end(struct bytes *b, size_t start);
void attribute(struct bytes *b, enum tag tag, const void *value, size_t size);
void attribute_integer(struct bytes *b, enum tag tag, uint64_t value, int octets);
struct frame {
    enum frame_type type;
    uint64_t connection;
    struct span body;
};
// The next frame from an agent: its size with its head, 0 where more octets are needed, or -1
// with *why. A frame that is returned is valid in itself: reading its attributes cannot fail.
long frame_next(struct span in, struct frame *frame, const char **why);
bool attribute_next(struct span *body, enum tag *tag, struct span *value);

struct wire {  // what the peer's gate has sent so far
    uint8_t prelude[PRELUDE_SIZE], head[RECORD_HEAD], prelude_size, head_size, records;
    uint32_t left, total;  // of this record; of all records
    bool open;             // OPEN has come: what follows is the application's
};
enum wire_event {
    WIRE_MORE, WIRE_READY, WIRE_PIECE, WIRE_OPEN, WIRE_REFUSE, WIRE_PLAIN, WIRE_VERSION, WIRE_BAD,
};
enum wire_event wire_prelude(const uint8_t *data, size_t size, int own_role);
// Takes octets from *in. WIRE_PIECE gives a *piece of a message and whether there is *more of it.
enum wire_event wire_next(struct wire *w, struct span *in, struct span *piece, bool *more, uint8_t *class);
void wire_put_prelude(struct bytes *b, int role);
void wire_put_record(struct bytes *b, int type, const void *payload, size_t size);

struct config {
    struct link *link;
    char label[129];
    int role, max_exchanges;
    bool permissive;
    uint64_t exchange, silence;  // nanoseconds
    atomic_int exchanges;        // connections not yet opened
    size_t counters[REASONS + 1];
};
struct gate {
    atomic_int references;  // the filter's, the link table's, and passing ones of the link's thread
    struct config *config;
    void *filter, *scheduler;
    uint64_t envoy_connection;

    // Guarded by the link's lock; `id` is written by the worker alone, which may read it freely.
    uint64_t id, until;  // 0 while not in the table; when the admission ends
    struct bytes inbox, context;
    struct gate *next_due;
    bool pending;    // the worker has been or will be woken
    bool announced;  // this link has heard of it
    bool admitted, lost;
    char digest[DIGEST_SIZE];

    // The worker's own.
    struct wire wire;
    struct bytes out;  // collected for the peer
    uint64_t created, deadline, admitted_until;  // deadline: when to be woken; 0: never
    uint32_t sent, records;
    enum reason reason;
    uint8_t peer_class;
    bool exchanging, asked, said_prelude, decided, open, closing, finished;
    char text[MAX_TEXT + 1];
};

uint64_t now(void);  // CLOCK_BOOTTIME, nanoseconds
void say(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));
void gate_release(struct gate *g);

struct link *link_for(const char *path, long agent_uid);
bool link_register(struct gate *g);
void link_unregister(struct gate *g, enum reason reason);
bool link_send(struct gate *g, struct bytes *frames, bool opens);  // empties frames
void link_deadline(struct gate *g, uint64_t at);                   // 0: none
void link_admit(struct gate *g, uint64_t until, const struct span *context);
struct bytes link_take(struct gate *g, bool *lost);  // whole frames
#endif
