// SPDX-License-Identifier: Apache-2.0
// Fuzzes the two parsers: frames from an agent and octets from a peer.
//
// Invariants: no octet outside the input is read (the input is an allocation of exactly its size);
// a frame that is accepted is consumed whole and all of its attributes can be read; what a parser
// says does not depend on how its input was cut; no limit of the wire is exceeded.
//
// Usage: fuzz SEED ITERATIONS, or link with -fsanitize=fuzzer -DLIBFUZZER.
#include "../gate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: CHECK failed: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                  \
        }                                                                             \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned accepted_frames, accepted_messages;

static void frames(const uint8_t *data, size_t size) {
    struct span in = {data, size};
    struct frame f;
    const char *why = NULL;
    long used;
    while ((used = frame_next(in, &f, &why)) > 0) {
        CHECK((size_t)used <= in.size && f.body.size == (size_t)used - FRAME_HEAD && why == NULL);
        // A shorter input must ask for more, never accept less.
        for (size_t cut = 0; cut < (size_t)used; cut += 1 + cut / 3) {
            struct frame shorter;
            CHECK(frame_next((struct span){in.data, cut}, &shorter, &why) == 0);
        }
        if (f.type != SEND) {
            struct span body = f.body, value;
            enum tag tag;
            while (attribute_next(&body, &tag, &value)) {
                CHECK(tag < TAGS && value.data >= f.body.data && value.data + value.size <= f.body.data + f.body.size);
                if (tag == STATE) CHECK(value.size > value.data[0] && memcmp(value.data + 1, "troth.", 6) == 0);
                if (tag == DEADLINE_MS) CHECK(read_integer(value.data, 8) - 1 < MAX_DEADLINE_MS);
            }
            CHECK(body.size == 0);
        }
        accepted_frames++;
        in.data += used;
        in.size -= (size_t)used;
    }
    CHECK(used == 0 || why != NULL);
}

struct outcome {
    enum wire_event last;
    size_t messages, octets, rest;
    uint64_t hash;
    uint8_t class;
};
// Feeds the wire's parser pieces of at most `step` octets.
static struct outcome wire(const uint8_t *data, size_t size, size_t step) {
    struct outcome o = {.last = WIRE_MORE, .hash = 14695981039346656037u};
    struct wire w = {0};
    size_t at = 0;
    while (at < size && o.last == WIRE_MORE) {
        struct span in = {data + at, size - at < step ? size - at : step}, piece;
        at += in.size;
        bool more;
        while ((o.last = wire_next(&w, &in, &piece, &more, &o.class)) == WIRE_PIECE) {
            CHECK(piece.size > 0 && piece.data >= data && piece.data + piece.size <= data + size);
            for (size_t i = 0; i < piece.size; i++) o.hash = (o.hash ^ piece.data[i]) * 1099511628211u;
            o.octets += piece.size;
            if (!more) o.messages++, o.hash += 1;
        }
        CHECK(o.octets <= MAX_EXCHANGE && o.messages <= MAX_RECORDS);
        CHECK(o.last != WIRE_MORE || in.size == 0);
        o.rest = size - at + in.size;
    }
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size > 0 ? size : 1);  // so that a sanitizer sees the end
    if (size > 0) memcpy(copy, data, size);
    frames(copy, size);
    struct outcome whole = wire(copy, size, size > 0 ? size : 1);
    for (size_t step = 1; step < size; step = step * 3 + 1) {
        struct outcome cut = wire(copy, size, step);
        CHECK(cut.last == whole.last && cut.messages == whole.messages && cut.octets == whole.octets);
        CHECK(cut.hash == whole.hash && cut.rest == whole.rest && cut.class == whole.class);
    }
    accepted_messages += (unsigned)whole.messages;
    for (size_t n = 0; n <= size && n <= PRELUDE_SIZE; n++) {
        uint8_t *start = malloc(n > 0 ? n : 1);
        if (n > 0) memcpy(start, data, n);
        enum wire_event client = wire_prelude(start, n, ROLE_CLIENT), server = wire_prelude(start, n, ROLE_SERVER);
        CHECK(client != WIRE_READY || server == WIRE_BAD);
        CHECK((client == WIRE_READY || server == WIRE_READY) <= (n == PRELUDE_SIZE));
        free(start);
    }
    free(copy);
    return 0;
}

#ifndef LIBFUZZER
static uint64_t state;
static uint32_t draw(uint32_t below) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 16) % below;
}

// A valid input, to be damaged: frames of every type, or records.
static void seed_input(struct bytes *b) {
    if (draw(2) == 0) {
        for (uint32_t n = 1 + draw(4); n > 0; n--) {
            int type = WELCOME + (int)draw(6);
            size_t start = frame_begin(b, (enum frame_type)type, 0, type == WELCOME ? 0 : 1 + draw(1000));
            if (type == WELCOME) attribute_integer(b, VERSION, 1, 2);
            if (type == SEND) bytes_put(b, "a message", 1 + draw(9));
            if (type == ADMIT || (type == UPDATE && draw(2))) attribute_integer(b, DEADLINE_MS, 1 + draw(100000), 8);
            if (type == ADMIT || type == UPDATE)
                for (uint32_t states = draw(4); states > 0; states--) attribute(b, STATE, "\x0atroth.tierhigh", 11 + draw(5));
            if (type == ADMIT && draw(2)) attribute(b, CONTEXT, "context", draw(8));
            if (type == REFUSE) attribute_integer(b, CLASS, 1 + draw(15), 1);
            if ((type == REFUSE || type == CLOSE) && draw(2)) attribute(b, TEXT, "text", draw(5));
            frame_end(b, start);
        }
    } else {
        static const uint8_t payload[5000];
        if (draw(4) == 0) wire_put_prelude(b, 1 + (int)draw(2));
        for (uint32_t n = draw(draw(8) == 0 ? 70 : 6); n > 0; n--) wire_put_record(b, RECORD_DATA, payload, 1 + draw(draw(20) == 0 ? 5000 : 30));
        if (draw(2)) wire_put_record(b, RECORD_OPEN, NULL, 0);
        else if (draw(2)) wire_put_record(b, RECORD_REFUSE, "\x07", 1);
        bytes_put(b, "application", draw(12));
    }
}

int main(int argc, char **argv) {
    state = (argc > 1 ? strtoull(argv[1], NULL, 10) : 1) * 0x9E3779B97F4A7C15u + 1;
    unsigned long iterations = argc > 2 ? strtoul(argv[2], NULL, 10) : 100000;
    for (unsigned long i = 0; i < iterations; i++) {
        struct bytes b = {0};
        seed_input(&b);
        for (uint32_t damage = draw(4); damage > 0 && b.size > 0; damage--) {
            size_t at = draw((uint32_t)b.size);
            switch (draw(5)) {
            case 0: b.data[at] = (uint8_t)draw(256); break;
            case 1: b.data[at] ^= (uint8_t)(1u << draw(8)); break;
            case 2: b.size = at; break;
            case 3: b.data[at] = draw(2) ? 0xFF : 0; break;
            default: memmove(b.data + at, b.data + at + 1, --b.size - at);
            }
        }
        LLVMFuzzerTestOneInput(b.data, b.size);
        bytes_free(&b);
    }
    printf("iterations %lu frames %u messages %u\n", iterations, accepted_frames, accepted_messages);
    CHECK(accepted_frames > iterations / 10 && accepted_messages > iterations / 10);
    return 0;
}
#endif
