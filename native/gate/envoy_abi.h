// SPDX-License-Identifier: Apache-2.0
// The part of Envoy's dynamic-module interface that the gate uses, in our own words.
// tests/native/check_abi.py compares the hooks with the prototypes embedded in an Envoy binary
// and the callbacks with its exported symbols. Callbacks are weak: one module loads in every
// Envoy, and gate_config refuses an Envoy that lacks one that the gate cannot do without.
#ifndef TROTH_ENVOY_ABI_H
#define TROTH_ENVOY_ABI_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Both of Envoy's buffer types: {pointer, length}, passed by value.
typedef struct {
    const char *ptr;
    size_t length;
} envoy_buffer;

enum { STATUS_CONTINUE = 0, STATUS_STOP = 1 };
enum { EVENT_REMOTE_CLOSE = 0, EVENT_LOCAL_CLOSE = 1, EVENT_CONNECTED = 2 };
enum { CLOSE_FLUSH_WRITE = 0, CLOSE_NO_FLUSH = 1, CLOSE_ABORT = 3 };
enum { LOG_INFO = 2, LOG_WARN = 3, LOG_ERROR = 4 };
// envoy_dynamic_module_type_attribute_id; the numbers are the same in 1.39 and 1.40.
enum { ATTRIBUTE_PEER_SAN = 37, ATTRIBUTE_PEER_DIGEST = 38 };
enum { ATTRIBUTE_UPSTREAM_PEER_SAN = 49, ATTRIBUTE_UPSTREAM_PEER_DIGEST = 50 };

#define HOOK(type, name) __attribute__((visibility("default"))) type envoy_dynamic_module_on_##name
#define CALLBACK(type, name) extern __attribute__((weak)) type envoy_dynamic_module_callback_##name
#define ENVOY(name) envoy_dynamic_module_callback_network_##name


CALLBACK(void, log)(int, envoy_buffer);
CALLBACK(bool, transport_socket_get_connection_id)(void *, uint64_t *);  // only to tell 1.40 from 1.39
CALLBACK(void *, network_filter_scheduler_new)(void *);
CALLBACK(void, network_filter_scheduler_commit)(void *, uint64_t);  // any thread, never under a lock
CALLBACK(void, network_filter_scheduler_delete)(void *);            // any thread, never under a lock
CALLBACK(void, network_filter_continue_reading)(void *);
CALLBACK(void, network_filter_close_with_details)(void *, int, envoy_buffer);
CALLBACK(void, network_filter_inject_read_data)(void *, envoy_buffer, bool);
CALLBACK(void, network_filter_inject_write_data)(void *, envoy_buffer, bool);
CALLBACK(size_t, network_filter_get_read_buffer_chunks_size)(void *);
CALLBACK(bool, network_filter_get_read_buffer_chunks)(void *, envoy_buffer *);
CALLBACK(bool, network_filter_drain_read_buffer)(void *, size_t);
CALLBACK(size_t, network_filter_get_write_buffer_chunks_size)(void *);
CALLBACK(bool, network_filter_get_write_buffer_chunks)(void *, envoy_buffer *);
CALLBACK(bool, network_filter_drain_write_buffer)(void *, size_t);
CALLBACK(bool, network_filter_read_enabled)(void *);
CALLBACK(uint64_t, network_filter_get_connection_id)(void *);
CALLBACK(bool, network_filter_is_ssl)(void *);
CALLBACK(bool, network_filter_get_attribute_string)(void *, int, envoy_buffer *);
CALLBACK(bool, network_set_filter_state_bytes)(void *, envoy_buffer, envoy_buffer);
CALLBACK(int, network_filter_config_define_counter)(void *, envoy_buffer, size_t *);
CALLBACK(int, network_filter_increment_counter)(void *, size_t, uint64_t);
#endif
