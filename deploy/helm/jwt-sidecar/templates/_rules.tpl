{{/* Made of deploy/prometheus/rules.yml by prometheus_rule.py beside it. */}}
{{- define "jwt-sidecar.rules" -}}
groups:
  - name: jwt-sidecar-recordings
    rules:
      # The share of requests that were refused for their token: expired tokens, wrong audiences, missing scopes.
      - record: jwt_sidecar:auth_deny:ratio15m
        expr: >
          sum by (job) (rate(jwt_sidecar_auth_total{result="deny"}[15m]))
          / (sum by (job) (rate(jwt_sidecar_auth_total[15m])) > 0)

      # The share of failed requests of one pod, for any cause.
      - record: jwt_sidecar:failed:ratio5m
        expr: >
          sum by (job, instance) (rate(jwt_sidecar_auth_total{result=~"deny|error"}[5m]))
          / (sum by (job, instance) (rate(jwt_sidecar_auth_total[5m])) > 0.1)

      # The use of each limit, in the pod with the most use.
      - record: jwt_sidecar:saturation:ratio
        labels: {resource: connections}
        expr: max by (job) (jwt_sidecar_connections / jwt_sidecar_connections_limit)
      - record: jwt_sidecar:saturation:ratio
        labels: {resource: requests in flight}
        expr: max by (job) (jwt_sidecar_requests_in_flight / jwt_sidecar_requests_in_flight_limit)
      - record: jwt_sidecar:saturation:ratio
        labels: {resource: buffered bytes}
        expr: max by (job) (jwt_sidecar_buffered_bytes / jwt_sidecar_buffered_bytes_limit)
      - record: jwt_sidecar:saturation:ratio
        labels: {resource: descriptors}
        expr: >
          max by (job) (process_open_fds / process_max_fds
          and on (job, instance) jwt_sidecar_build_info)
      - record: jwt_sidecar:saturation:ratio
        labels: {resource: connections to the backend}
        expr: >
          max by (job) (jwt_sidecar_upstream_connections{state="active"}
          / on (job, instance, upstream) group_left jwt_sidecar_upstream_connections_limit)

  - name: jwt-sidecar
    rules:
      - alert: SidecarDown
        expr: >
          count by (job) (up == 0
          and on (job, instance) last_over_time(jwt_sidecar_build_info[1h]))
        for: 5m
        labels:
          severity: warning
        annotations:
          summary: '{{"{{"}} $value }} sidecars of {{"{{"}} $labels.job }} cannot be scraped.'
          runbook_url: docs/how/runbooks.md#sidecardown
          description: >
            They answered within the last hour, and do not answer now. Either their pods are down, or Prometheus cannot reach port 8081.
            Look at the pods first, then at network policies.

      - alert: SidecarsDown
        expr: >
          count by (job) (up == 0 and on (job, instance) last_over_time(jwt_sidecar_build_info[1h]))
          / count by (job) (up and on (job, instance) last_over_time(jwt_sidecar_build_info[1h])) >= 0.5
        for: 2m
        labels:
          severity: critical
        annotations:
          summary: '{{"{{"}} $value | humanizePercentage }} of the sidecars of {{"{{"}} $labels.job }} cannot be scraped.'
          runbook_url: docs/how/runbooks.md#sidecarsdown
          description: >
            Half of them or more answered within the last hour, and do not answer now. Clients may get no answers. Look at the pods: an
            image that does not start, a configuration that is refused at the start, a node that is down.

      - alert: SidecarUnlikeOthers
        expr: >
          jwt_sidecar:failed:ratio5m > 0.1
          and on (job, instance) jwt_sidecar:failed:ratio5m
          > on (job) group_left () 4 * quantile by (job) (0.5, jwt_sidecar:failed:ratio5m)
          and on (job) count by (job) (jwt_sidecar:failed:ratio5m) >= 3
        for: 5m
        labels:
          severity: warning
        annotations:
          summary: '{{"{{"}} $labels.instance }} fails {{"{{"}} $value | humanizePercentage }} of its requests, the others do not.'
          runbook_url: docs/how/runbooks.md#sidecarunlikeothers
          description: >
            The sum of all pods may not show it. This pod differs from the others in its clock, its node's network to the issuer, its backend
            or its configuration. `jwt-sidecar status` in this pod says which. If you cannot wait, delete the pod.

      - alert: SidecarSaturated
        expr: jwt_sidecar:saturation:ratio > 0.8
        for: 5m
        labels:
          severity: warning
        annotations:
          summary: '{{"{{"}} $value | humanizePercentage }} of the {{"{{"}} $labels.resource }} of a sidecar of {{"{{"}} $labels.job }} are in use.'
          runbook_url: docs/how/runbooks.md#sidecarsaturated
          description: >
            At 100 % requests get 503 overloaded, and connections are refused. Usually the backend has become slow. Otherwise there is too
            much traffic for these pods. Add pods. Raise a limit only if the pods have the memory.

      - alert: JwksFetchFailing
        expr: max by (job, issuer) (jwt_sidecar_jwks_state{state="stale"}) == 1
        for: 10m
        labels:
          severity: warning
        annotations:
          summary: The keys of {{"{{"}} $labels.issuer }} have not been fetched for ten minutes.
          runbook_url: docs/how/runbooks.md#jwksfetchfailing
          description: >
            Clients notice nothing yet: the last good keys stay in use. `jwt-sidecar status`, `jwt-sidecar check --online` and the
            log (event=keys_not_fetched) say why. Look at DNS, egress rules and certificates first, then at the issuer's status page.

      - alert: JwksStale
        expr: >
          min by (job, issuer) (jwt_sidecar_jwks_usable_seconds
          and on (job, instance, issuer) jwt_sidecar_jwks_state{state="stale"} == 1) < 900
          or max by (job, issuer) (jwt_sidecar_jwks_state{state="absent"}) == 1
        for: 2m
        labels:
          severity: critical
        annotations:
          summary: The keys of {{"{{"}} $labels.issuer }} are gone, or will be within a quarter of an hour.
          runbook_url: docs/how/runbooks.md#jwksstale
          description: >
            Without keys every request with a token of this issuer gets 503 jwks_unavailable. Repair the connection to the issuer (see
            JwksFetchFailing). To gain time, raise the issuer's max_stale, or write the key set into a file
            (jwks_file in place of jwks_uri).

      - alert: AuthErrorRatioHigh
        expr: >
          sum by (job) (rate(jwt_sidecar_auth_total{result="error", reason=~"jwks_unavailable|overloaded|internal_error"}[5m]))
          / sum by (job) (rate(jwt_sidecar_auth_total[5m])) > 0.05
        for: 5m
        labels:
          severity: critical
        annotations:
          summary: '{{"{{"}} $value | humanizePercentage }} of the requests fail in the sidecar.'
          runbook_url: docs/how/runbooks.md#autherrorratiohigh
          description: >
            Clients with good tokens get a 5xx. jwt_sidecar_auth_total has the reason. jwks_unavailable: see JwksStale. overloaded: see
            SidecarSaturated. internal_error is a bug: the log has a line with event=bug. Please report it.

      - alert: AuthDenyRatioJump
        expr: >
          (jwt_sidecar:auth_deny:ratio15m > 0.1)
          unless
          (jwt_sidecar:auth_deny:ratio15m <= 3 * avg_over_time(jwt_sidecar:auth_deny:ratio15m[6h] offset 1h))
        for: 10m
        labels:
          severity: warning
        annotations:
          summary: '{{"{{"}} $value | humanizePercentage }} of the requests are refused, three times as many as before.'
          runbook_url: docs/how/runbooks.md#authdenyratiojump
          description: >
            See jwt_sidecar_refused_total by issuer, route and reason, and docs/reference/codes.md for each reason. key_unknown or signature_invalid
            everywhere: the issuer changed its keys. audience_mismatch or issuer_unknown: somebody changed a configuration, of the sidecar or of
            the issuer. token_expired or token_not_yet_valid: a clock is wrong (jwt_sidecar_jwks_clock_offset_seconds). Otherwise one client is
            broken, or tries tokens: `jwt-sidecar status`, or GET /rejections of the admin listener, names it.

      - alert: UpstreamErrors
        expr: >
          sum by (job, upstream, kind) (rate(jwt_sidecar_upstream_errors_total[5m]))
          / on (job) group_left sum by (job) (rate(jwt_sidecar_requests_total[5m])) > 0.05
        for: 5m
        labels:
          severity: critical
        annotations:
          summary: '{{"{{"}} $value | humanizePercentage }} of the requests fail at the backend {{"{{"}} $labels.upstream }} ({{"{{"}} $labels.kind }}).'
          runbook_url: docs/how/runbooks.md#upstreamerrors
          description: >
            connect: the backend does not listen where `upstream` says, or accepts too few connections. timeout: it is slow, or needs a longer
            timeouts.response_headers. reset: it ends connections before it has answered. Look for crashes in its log, and give it a
            preStop sleep if this happens in rollouts. protocol: it does not use HTTP/1.1 on this port.

      - alert: ConfigReloadFailed
        expr: count by (job) (jwt_sidecar_config_last_reload_successful == 0)
        for: 2m
        labels:
          severity: warning
        annotations:
          summary: A changed configuration was not taken over by {{"{{"}} $value }} sidecars of {{"{{"}} $labels.job }}.
          runbook_url: docs/how/runbooks.md#configreloadfailed
          description: >
            The previous configuration stays in use. `jwt-sidecar check -c config.yaml` and the log list every problem of the new one. Correct
            it before a restart: the sidecar does not start with a wrong file.

      - alert: FileNotUsable
        expr: count by (job, file) (jwt_sidecar_file_good == 0)
        for: 5m
        labels:
          severity: warning
        annotations:
          summary: '{{"{{"}} $labels.file }} cannot be used by {{"{{"}} $value }} sidecars of {{"{{"}} $labels.job }}.'
          runbook_url: docs/how/runbooks.md#filenotusable
          description: >
            Its previous content stays in use: new revocations have no effect, keys do not change, a certificate may expire. The log names the
            file and what is wrong with it (event=file_kept_as_it_was, keys_not_fetched, config_kept).

      - alert: TlsHandshakesFailing
        expr: sum by (job, cause) (rate(jwt_sidecar_tls_handshakes_failed_total{cause!~"client_left|timeout|no_tls"}[10m])) > 0.1
        for: 10m
        labels:
          severity: warning
        annotations:
          summary: Clients of {{"{{"}} $labels.job }} cannot connect by TLS ({{"{{"}} $labels.cause }}).
          runbook_url: docs/how/runbooks.md#tlshandshakesfailing
          description: >
            More than one handshake in ten seconds fails. refused_by_client: repair the sidecar's certificate or its chain. no_certificate,
            certificate_untrusted and certificate_expired: repair the clients' certificates. The log has one client of each cause
            (event=handshake_failed).

      - alert: SidecarStillDraining
        expr: count by (job) (jwt_sidecar_draining == 1)
        for: 15m
        labels:
          severity: warning
        annotations:
          summary: '{{"{{"}} $value }} sidecars of {{"{{"}} $labels.job }} were told to drain and still run.'
          runbook_url: docs/how/runbooks.md#sidecarstilldraining
          description: >
            They get no new clients, and do not end. If somebody drained them by hand, `jwt-sidecar drain --undrain` in the pod ends the drain.
            If their pods are terminating, find out why that takes so long.

      - alert: AccessLogLost
        expr: sum by (job) (increase(jwt_sidecar_access_log_lost_lines_total[10m])) > 0
        for: 5m
        labels:
          severity: warning
        annotations:
          summary: '{{"{{"}} $value | humanize }} lines of the access log of {{"{{"}} $labels.job }} are lost.'
          runbook_url: docs/how/runbooks.md#accessloglost
          description: >
            The program that reads standard output is too slow, or the disk is full. No request is affected. Look at the log collector, or write
            fewer lines with access_log_sample.
{{- end }}
