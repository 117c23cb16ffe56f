# SPDX-License-Identifier: Apache-2.0
"""Envoy configurations as a team may have them before Troth: mutual TLS with files, no agent."""

from __future__ import annotations

from string import Template

__all__ = ["CLIENT", "SERVER"]

SERVER = Template("""\
# The orders service, behind mutual TLS.
admin: {address: {pipe: {path: $admin}}}
static_resources:
  listeners:
  - name: orders
    address: {socket_address: {address: 127.0.0.1, port_value: $orders}}
    filter_chains:
    - name: peers
      transport_socket: &mtls
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          session_ticket_keys: {keys: [{filename: /etc/envoy/tickets}]}
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates:
            - {certificate_chain: {filename: /etc/envoy/cert.pem}, private_key: {filename: /etc/envoy/key.pem}}
            validation_context:
              trusted_ca: {filename: /etc/envoy/ca.pem}
              match_typed_subject_alt_names:
              - {san_type: URI, matcher: {prefix: "spiffe://mesh.example/"}}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: orders
          forward_client_cert_details: SANITIZE_SET
          set_current_client_cert_details: {uri: true}
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: orders}}]}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  - name: orders-again
    address: {socket_address: {address: 127.0.0.1, port_value: $again}}
    filter_chains:
    - transport_socket: *mtls
      filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: again
          cluster: orders
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: $admin.log
              log_format:
                json_format:
                  gate: "%FILTER_STATE(troth.status:PLAIN)%"
                  authz: "%DYNAMIC_METADATA(envoy.filters.network.ext_authz:status)%"
                  tier: "%DYNAMIC_METADATA(envoy.filters.network.ext_authz:tier)%"
  - name: health
    address: {socket_address: {address: 127.0.0.1, port_value: $health}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: health
          cluster: orders
  clusters:
  - name: orders
    type: STATIC
    connect_timeout: 2s
    load_assignment:
      cluster_name: orders
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $app}}}}]}]
""")

CLIENT = Template("""\
node: {id: shop, cluster: shops}
admin: {address: {pipe: {path: $admin}}}
static_resources:
  listeners:
  - name: to-orders
    address: {socket_address: {address: 127.0.0.1, port_value: $local}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: to_orders
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: orders}}]}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: orders
    type: $kind
    dns_lookup_family: V4_ONLY
    lb_policy: ROUND_ROBIN
    connect_timeout: 2s
    outlier_detection: {consecutive_5xx: 50}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http_protocol_options: {}}
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: orders.example
        common_tls_context:
          tls_certificates:
          - {certificate_chain: {filename: /etc/envoy/cert.pem}, private_key: {filename: /etc/envoy/key.pem}}
          validation_context:
            trusted_ca: {filename: /etc/envoy/ca.pem}
            match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: orders.example}}]
    load_assignment:
      cluster_name: orders
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: $host, port_value: $orders}}}
        - endpoint: {address: {socket_address: {address: $host, port_value: $again}}}
""")
