{{- /* Name of everything that the chart makes. */ -}}
{{- define "graftwork.name" -}}
{{- .Values.nameOverride | default "graftwork" -}}
{{- end -}}

{{- /* Labels of every object. Argument: dict "root" . "component" "operator". */ -}}
{{- define "graftwork.labels" -}}
{{ include "graftwork.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Labels by which the pods of a component are found. */ -}}
{{- define "graftwork.selector" -}}
app.kubernetes.io/name: graftwork
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- /* The operator's user name, as the API server sees it. */ -}}
{{- define "graftwork.username" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "graftwork.name" . }}
{{- end -}}

{{- define "graftwork.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "graftwork.storeUrl" -}}
{{- if .Values.store.url -}}
{{ .Values.store.url }}
{{- else if .Values.store.embedded.enabled -}}
s3://graftwork/store
{{- end -}}
{{- end -}}

{{- /* The port of a URL. Argument: the URL. */ -}}
{{- define "graftwork.urlPort" -}}
{{- $url := urlParse . -}}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "443" "80" (eq $url.scheme "https")) -}}
{{- end -}}

{{- /* Security settings of a pod and of a container that satisfy the restricted Pod Security Standard. */ -}}
{{- define "graftwork.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}
{{- define "graftwork.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
