// SPDX-License-Identifier: Apache-2.0
// The two codecs: frames of the link (from the agent: fully checked here) and records of the wire.
#include "gate.h"

#include <stdlib.h>
#include <string.h>

void *need(void *memory) {
    if (memory == NULL) abort();
    return memory;
}

void bytes_put(struct bytes *b, const void *data, size_t size) {
    if (size == 0) return;
    if (b->capacity - b->size < size) {
        b->capacity = (b->size + size) * 2 + 64;
        b->data = need(realloc(b->data, b->capacity));
    }
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

void bytes_free(struct bytes *b) {
    free(b->data);
    *b = (struct bytes){0};
}

static void write_integer(uint8_t *out, uint64_t value, int octets) {
    for (int i = octets; i-- > 0; value >>= 8) out[i] = (uint8_t)value;
}

void bytes_integer(struct bytes *b, uint64_t value, int octets) {
    uint8_t out[8];
    write_integer(out, value, octets);
    bytes_put(b, out, (size_t)octets);
}

uint64_t read_integer(const uint8_t *data, int octets) {
    uint64_t value = 0;
    for (int i = 0; i < octets; i++) value = value << 8 | data[i];
    return value;
}

size_t frame_begin(struct bytes *b, enum frame_type type, uint8_t flags, uint64_t connection) {
    size_t start = b->size;
    bytes_integer(b, 0, 4);
    bytes_integer(b, (uint64_t)type << 24 | (uint64_t)flags << 16, 4);
    bytes_integer(b, connection, 8);
    return start;
}

void frame_end(struct bytes *b, size_t start) {
    write_integer(b->data + start, b->size - start - FRAME_HEAD, 4);
}

void attribute(struct bytes *b, enum tag tag, const void *value, size_t size) {
    bytes_integer(b, tag, 2);
    bytes_integer(b, size, 2);
    bytes_put(b, value, size);
}

void attribute_integer(struct bytes *b, enum tag tag, uint64_t value, int octets) {
    uint8_t out[8];
    write_integer(out, value, octets);
    attribute(b, tag, out, (size_t)octets);
}

bool attribute_next(struct span *body, enum tag *tag, struct span *value) {
    if (body->size < 4) return false;
    size_t size = read_integer(body->data + 2, 2);
    if (size > body->size - 4) return false;
    *tag = (enum tag)read_integer(body->data, 2);
    *value = (struct span){body->data + 4, size};
    body->data += 4 + size;
    body->size -= 4 + size;
    return true;
}

static bool value_is_valid(enum tag tag, struct span v) {
    static const char prefix[] = "troth.";
    switch (tag) {
    case VERSION: return v.size == 2 && read_integer(v.data, 2) == PROTOCOL_VERSION;
    case CLASS: return v.size == 1 && v.data[0] >= 1 && v.data[0] <= 15;
    case TEXT: return v.size <= MAX_TEXT;
    case CONTEXT: return v.size <= MAX_CONTEXT;
    case DEADLINE_MS:
        return v.size == 8 && read_integer(v.data, 8) - 1 < MAX_DEADLINE_MS;
    case STATE:
        return v.size >= 1 && v.data[0] > sizeof prefix - 1 && v.data[0] <= 64 &&
               v.data[0] < v.size && v.size - 1 - v.data[0] <= 4096 &&
               memcmp(v.data + 1, prefix, sizeof prefix - 1) == 0;
    default: return false;
    }
}

#define HAS(tag) (1u << (tag))
static const char *body_problem(enum frame_type type, struct span body) {
    unsigned allowed, required, seen = 0, states = 0;
    switch (type) {
    case WELCOME: allowed = required = HAS(VERSION); break;
    case ADMIT: allowed = HAS(DEADLINE_MS) | HAS(STATE) | HAS(CONTEXT), required = HAS(DEADLINE_MS); break;
    case UPDATE: allowed = HAS(DEADLINE_MS) | HAS(STATE) | HAS(CONTEXT), required = 0; break;
    case REFUSE: allowed = HAS(CLASS) | HAS(TEXT), required = HAS(CLASS); break;
    case CLOSE: allowed = HAS(TEXT), required = 0; break;
    case SEND: return body.size == 0 ? "SEND is empty" : NULL;
    default: return "unknown type of frame";
    }
    enum tag tag;
    struct span value;
    while (attribute_next(&body, &tag, &value)) {
        if (tag >= TAGS || !(allowed & HAS(tag))) return "attribute is not allowed in this frame";
        if (tag == STATE ? ++states > MAX_STATES : seen & HAS(tag)) return "attribute occurs too often";
        if (!value_is_valid(tag, value)) return "value of an attribute is not valid";
        seen |= HAS(tag);
    }
    if (body.size != 0) return "attribute is cut off";
    return (seen & required) == required ? NULL : "attribute is missing";
}

long frame_next(struct span in, struct frame *frame, const char **why) {
    if (in.size < FRAME_HEAD) return 0;
    size_t size = read_integer(in.data, 4);
    frame->type = (enum frame_type)in.data[4];
    frame->connection = read_integer(in.data + 8, 8);
    if (size > MAX_MESSAGE) return *why = "frame is too long", -1;
    if (read_integer(in.data + 5, 3) != 0) return *why = "flags or reserved octets are not zero", -1;
    if ((frame->type == WELCOME) != (frame->connection == 0)) return *why = "connection number does not fit the type", -1;
    if (in.size - FRAME_HEAD < size) return 0;
    frame->body = (struct span){in.data + FRAME_HEAD, size};
    *why = body_problem(frame->type, frame->body);
    return *why == NULL ? (long)(FRAME_HEAD + size) : -1;
}

static const uint8_t magic[6] = {0xF5, 'T', 'R', 'O', 'T', 'H'};

enum wire_event wire_prelude(const uint8_t *data, size_t size, int own_role) {
    size_t known = size < sizeof magic ? size : sizeof magic;
    if (memcmp(data, magic, known) != 0) return WIRE_PLAIN;
    if (size > 6 && data[6] != PROTOCOL_VERSION) return WIRE_VERSION;
    if (size < PRELUDE_SIZE) return WIRE_MORE;
    return data[7] == (own_role == ROLE_CLIENT ? 'S' : 'C') ? WIRE_READY : WIRE_BAD;
}

void wire_put_prelude(struct bytes *b, int role) {
    bytes_put(b, magic, sizeof magic);
    bytes_integer(b, (uint64_t)PROTOCOL_VERSION << 8 | (role == ROLE_CLIENT ? 'C' : 'S'), 2);
}

void wire_put_record(struct bytes *b, int type, const void *payload, size_t size) {
    bytes_integer(b, (uint64_t)type << 24 | size, RECORD_HEAD);
    bytes_put(b, payload, size);
}

enum wire_event wire_next(struct wire *w, struct span *in, struct span *piece, bool *more, uint8_t *class) {
    while (w->left == 0 || w->head_size < RECORD_HEAD) {
        if (in->size == 0) return WIRE_MORE;
        w->head[w->head_size++] = *in->data++;
        in->size--;
        if (w->head_size < RECORD_HEAD) continue;
        w->left = (uint32_t)read_integer(w->head + 1, 3);
        if (w->head[0] == RECORD_OPEN && w->left == 0) {
            w->head_size = 0;
            w->open = true;
            return WIRE_OPEN;
        }
        if (w->head[0] == RECORD_REFUSE && w->left == 1) break;
        w->total += w->left;  // cannot overflow: it grows by < 2^24 at most MAX_RECORDS times
        if (w->head[0] != RECORD_DATA || w->left == 0 || w->left > MAX_MESSAGE ||
            w->total > MAX_EXCHANGE || ++w->records > MAX_RECORDS)
            return WIRE_BAD;
    }
    if (in->size == 0) return WIRE_MORE;
    size_t size = in->size < w->left ? in->size : w->left;
    *piece = (struct span){in->data, size};
    in->data += size;
    in->size -= size;
    w->left -= (uint32_t)size;
    *more = w->left > 0;
    if (w->left == 0) w->head_size = 0;
    if (w->head[0] != RECORD_REFUSE) return WIRE_PIECE;
    *class = piece->data[0];
    return WIRE_REFUSE;
}
