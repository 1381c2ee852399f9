{{/* What values.schema.json cannot say, or only in patterns: one sentence each, with the next step. */}}

{{- define "asya.checks" -}}
{{- $schemes := dict
  "s3" "https?" "gcs" "https?" "redis" "rediss?([+](sentinel|cluster))?" "nats" "nats|tls|wss?"
-}}
{{- $examples := dict
  "s3" "https://s3.example.com" "gcs" "http://gcs-emulator:4443" "redis" "redis://redis:6379" "nats" "nats://nats:4222"
-}}
{{- $variables := dict
  "s3" "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" "gcs" "GOOGLE_APPLICATION_CREDENTIALS" "redis" "REDIS_URL" "nats" "NATS_URL"
-}}
{{- range $backend, $stated := .Values.stateProxy.backends -}}
{{- with $stated.endpoint -}}
{{- $place := printf "stateProxy.backends.%s.endpoint" $backend -}}
{{- if contains "@" . -}}
{{- fail (printf "%s: a URL with user or password would be seen by everybody who sees a pod; leave them out, and put them as %s into the Secret" $place (get $variables $backend)) -}}
{{- end -}}
{{- if not (regexMatch (printf "^(%s)://[^\\s]+$" (get $schemes $backend)) .) -}}
{{- fail (printf "%s: %s is no URL of %s; give one such as %s" $place (quote .) $backend (get $examples $backend)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.stateProxy.keyPrefix -}}
{{- if not (regexMatch "^([A-Za-z0-9._-]+/)+$" .) -}}
{{- fail (printf "stateProxy.keyPrefix: %s: give segments of letters, digits, `.`, `_` and `-` that each end in `/`, such as prod/" (quote .)) -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.certificates.mode "secret" -}}
{{- if not .Values.certificates.caBundle -}}
{{- fail "certificates.caBundle: with mode `secret`, give the authorities to trust (PEM in base64)" -}}
{{- end -}}
{{- if not (contains "-----BEGIN CERTIFICATE-----" (b64dec .Values.certificates.caBundle)) -}}
{{- fail "certificates.caBundle: is no PEM in base64; make it with `base64 -w0 ca.crt`" -}}
{{- end -}}
{{- else if .Values.certificates.caBundle -}}
{{- fail (printf "certificates.caBundle: is of mode `secret`, and certificates.mode is `%s`, which brings its own; leave one out" .Values.certificates.mode) -}}
{{- end -}}
{{- if and .Values.quickstart.enabled .Values.stateProxy.backends.s3.endpoint -}}
{{- fail "quickstart.enabled brings an S3 server and stateProxy.backends.s3.endpoint names another; leave one out" -}}
{{- end -}}
{{- if not .Values.quickstart.buckets -}}
{{- fail "quickstart.buckets: name at least one bucket" -}}
{{- end -}}
{{- if and .Values.test.backend (not .Values.test.bucket) -}}
{{- fail (printf "test.bucket: name the bucket that `helm test` tries %s with" .Values.test.backend) -}}
{{- end -}}
{{- include "asya.apart" . -}}
{{- end -}}

{{/* Two operators on one actor would replace its pods for ever. Said where the cluster can be asked (not by helm template). */}}
{{- define "asya.apart" -}}
{{- $own := printf "release %s in namespace %s" .Release.Name .Release.Namespace -}}
{{- range (lookup "admissionregistration.k8s.io/v1" "MutatingWebhookConfiguration" "" "").items -}}
{{- $labels := default dict .metadata.labels -}}
{{- if eq (get $labels "app.kubernetes.io/part-of") "asya-state" -}}
{{- $release := printf "release %s in namespace %s" (get $labels "app.kubernetes.io/instance") (dig "clientConfig" "service" "namespace" "?" (first .webhooks)) -}}
{{- $theirs := list -}}
{{- range dig "namespaceSelector" "matchExpressions" list (first .webhooks) -}}
{{- if eq .operator "In" -}}{{- $theirs = concat $theirs .values -}}{{- end -}}
{{- end -}}
{{- if ne $release $own -}}
{{- if not (and $theirs $.Values.watchNamespaces) -}}
{{- fail (printf "watchNamespaces: %s serves %s, and this one %s; name different namespaces for each" $release (ternary (join ", " $theirs) "all namespaces" (gt (len $theirs) 0)) (ternary (join ", " $.Values.watchNamespaces) "all" (gt (len $.Values.watchNamespaces) 0))) -}}
{{- end -}}
{{- range $.Values.watchNamespaces -}}
{{- if has . $theirs -}}
{{- fail (printf "watchNamespaces: %s is served by %s; leave it to one of them" . $release) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
