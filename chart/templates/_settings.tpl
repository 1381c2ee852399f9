{{/* What operator and webhook read (ASYA_OPERATOR_CONFIG): the values, in the operator's own names. */}}

{{- define "asya.settings" -}}
{{- $settings := dict
  "proxyImage" (include "asya.image" (dict "root" . "image" .Values.images.proxy))
  "proxyImagePullPolicy" .Values.images.pullPolicy
  "allowedImages" .Values.images.previousProxies
  "keyPrefix" .Values.stateProxy.keyPrefix
  "proxyUid" (int .Values.stateProxy.uid)
  "namespaces" (sortAlpha .Values.watchNamespaces)
  "maxActorsRolling" (int .Values.actors.maxRolling)
  "logLevel" .Values.logLevel
  "webhook" (dict "namespace" .Release.Namespace "name" (include "asya.webhook" .))
-}}
{{- with .Values.actors.imagePullPolicy }}{{ $_ := set $settings "imagePullPolicy" . }}{{ end -}}
{{- with .Values.stateProxy.meshContainers }}{{ $_ := set $settings "meshContainers" . }}{{ end -}}
{{- with include "asya.backends" . | fromJson }}{{ $_ := set $settings "backends" . }}{{ end -}}
{{- if eq .Values.certificates.mode "operator" -}}
{{- $_ := set $settings "certificates" (dict
  "namespace" .Release.Namespace
  "secretName" (include "asya.certificate" .)
  "serviceName" (include "asya.webhook" .)
  "webhookConfiguration" (include "asya.clusterName" .)
) -}}
{{- end -}}
{{- toPrettyJson $settings -}}
{{- end -}}

{{/* The defaults of each backend that are stated, and the quickstart's: JSON. */}}
{{- define "asya.backends" -}}
{{- $backends := dict -}}
{{- range $name, $stated := .Values.stateProxy.backends -}}
{{- $defaults := dict -}}
{{- range $field, $value := $stated }}{{ if $value }}{{ $_ := set $defaults $field $value }}{{ end }}{{ end -}}
{{- if $defaults }}{{ $_ := set $backends $name $defaults }}{{ end -}}
{{- end -}}
{{- if .Values.quickstart.enabled -}}
{{- $server := dict "endpoint" (include "asya.quickstartEndpoint" .) "region" (include "asya.quickstartRegion" .) -}}
{{- $_ := set $backends "s3" (merge (default dict $backends.s3) $server) -}}
{{- end -}}
{{- toJson $backends -}}
{{- end -}}
