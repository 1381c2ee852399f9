{{/* Names of the quickstart's S3 server. Nothing of it is for production. */}}

{{- define "asya.quickstart" -}}{{ include "asya.fullname" . }}-quickstart-s3{{- end -}}

{{- define "asya.notForProduction" -}}
{asya.sh/not-for-production: "one pod, no TLS, and credentials that everybody knows: for a first try only"}
{{- end -}}

{{- define "asya.quickstartSecret" -}}
{{- default "asya-state-s3" .Values.stateProxy.backends.s3.secretName -}}
{{- end -}}

{{- define "asya.quickstartRegion" -}}
{{- default "us-east-1" .Values.stateProxy.backends.s3.region -}}
{{- end -}}

{{- define "asya.quickstartEndpoint" -}}
http://{{ include "asya.quickstart" . }}.{{ .Release.Namespace }}.svc:7070
{{- end -}}

{{- define "asya.quickstartImage" -}}
{{- include "asya.reference" (dict "name" .Values.quickstart.image.repository "tag" .Values.quickstart.image.tag "digest" .Values.quickstart.image.digest) -}}
{{- end -}}

{{/* Where actors get the Secret, besides the release's namespace: a JSON list. */}}
{{- define "asya.quickstartNamespaces" -}}
{{- coalesce .Values.quickstart.namespaces .Values.watchNamespaces (list "default") | sortAlpha | toJson -}}
{{- end -}}
