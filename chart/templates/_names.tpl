{{/* Names, labels and images; what every template needs. */}}

{{- define "asya.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "asya.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "asya.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "asya.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "asya.operator" -}}{{ include "asya.fullname" . }}-operator{{- end -}}
{{- define "asya.webhook" -}}{{ include "asya.fullname" . }}-webhook{{- end -}}
{{- define "asya.config" -}}{{ include "asya.fullname" . }}-config{{- end -}}

{{/* Names of cluster-scoped objects also carry the namespace: two releases may have one name. */}}
{{- define "asya.clusterName" -}}{{ include "asya.fullname" . }}-{{ .Release.Namespace }}{{- end -}}

{{- define "asya.certificate" -}}
{{- default (printf "%s-webhook-certificate" (include "asya.fullname" .)) .Values.certificates.secretName -}}
{{- end -}}

{{/* Labels of an object: dict "root" $ "component" "operator" (the component may be left out). */}}
{{- define "asya.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: asya-state
{{ include "asya.selector" . }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "asya.selector" -}}
app.kubernetes.io/name: {{ include "asya.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* A full image reference: dict "root" $ "image" .Values.images.operator. */}}
{{- define "asya.image" -}}
{{- $name := .image.repository -}}
{{- with .root.Values.images.registry }}{{ $name = printf "%s/%s" (trimSuffix "/" .) $name }}{{ end -}}
{{- include "asya.reference" (dict "name" $name "tag" (default .root.Chart.AppVersion .image.tag) "digest" .image.digest) -}}
{{- end -}}

{{/* dict "name" "tag" "digest": the digest wins. */}}
{{- define "asya.reference" -}}
{{- if .digest }}{{ .name }}@{{ .digest }}{{ else }}{{ .name }}:{{ .tag }}{{ end -}}
{{- end -}}

{{/* The PriorityClass of a component: dict "root" $ "component" .Values.webhook. */}}
{{- define "asya.priorityClass" -}}
{{- with .component.priorityClassName -}}
{{- . -}}
{{- else -}}
{{- if .root.Values.priorityClass.create }}{{ include "asya.clusterName" .root }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* The label by which webhook and policy know the pods of actors with state. */}}
{{- define "asya.stateSelector" -}}
matchLabels: {asya.sh/state-proxy: "true"}
{{- end -}}

{{/* Which namespaces webhook and policy look at. */}}
{{- define "asya.namespaceSelector" -}}
{{- if .Values.watchNamespaces -}}
matchExpressions:
- {key: kubernetes.io/metadata.name, operator: In, values: {{ toJson (sortAlpha .Values.watchNamespaces) }}}
{{- else -}}
matchExpressions:
- {key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-node-lease, kube-system]}
{{- end -}}
{{- end -}}

{{/* Passes Pod Security `restricted`; the user is the image's. */}}
{{- define "asya.podSecurity" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "asya.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}
