{{- define "hpcc.labels" -}}
app.kubernetes.io/name: hpcc
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "hpcc.name" -}}
{{ printf "%s-%s" (.root.Release.Name | trunc 20 | trimSuffix "-") .part }}
{{- end }}

{{/* For pods that need no rights: Kubernetes' level "restricted". */}}
{{- define "hpcc.podSecurity" -}}
runAsNonRoot: true
runAsUser: 64601
runAsGroup: 64601
fsGroup: 64601
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "hpcc.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/*
Copies config and secrets to the pod's own memory: hpcc accepts a file with a secret only if the process
owns it and its mode is 0600, and files that Kubernetes mounts belong to root.
*/}}
{{- define "hpcc.copy" -}}
- name: files
  image: {{ .image }}
  command: [/bin/sh, -euc]
  args:
    - |
      umask 077
      copy() { for file in "$1"/*; do if [ -f "$file" ]; then cp -L "$file" "$2/"; fi; done; }
      copy /from/config /run/hpcc
      copy /from/secret /run/hpcc
      {{- range .more }}
      {{ . }}
      {{- end }}
      chmod -R u=rwX,go= /run/hpcc/*
  securityContext:
    {{- .security | nindent 4 }}
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {memory: 64Mi}
  volumeMounts:
    - {name: run, mountPath: /run/hpcc}
    - {name: config, mountPath: /from/config, readOnly: true}
    - {name: secret, mountPath: /from/secret, readOnly: true}
{{- end }}

{{- define "hpcc.pull" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Workers must not reach the networks of the database or a provider. */}}
{{- define "hpcc.check" -}}
{{- $closed := dict }}
{{- range concat .Values.networkPolicy.database .Values.networkPolicy.identityProviders }}{{ $_ := set $closed .cidr true }}{{ end }}
{{- range .Values.networkPolicy.workerEgress }}
{{- if hasKey $closed .cidr }}
{{- fail (printf "networkPolicy.workerEgress: %s is the database's or an identity provider's too" .cidr) }}
{{- end }}
{{- end }}
{{- $hasWorkers := or .Values.worker.instances .Values.worker.pool.enabled }}
{{- if and .Values.metrics.enabled $hasWorkers .Values.worker.hostNetwork }}
{{- fail "metrics.enabled with worker.hostNetwork: no policy applies to the port, which shows tenants' names" }}
{{- end }}
{{- if and $hasWorkers (not .Values.image.worker) }}
{{- fail "image.worker is needed for workers" }}
{{- end }}
{{- if and $hasWorkers (not .Values.worker.images) }}
{{- fail "worker.images is needed for workers" }}
{{- end }}
{{- with .Values.worker.pool }}
{{- if and .enabled (not (and .issuer .jwks)) }}
{{- fail "worker.pool needs issuer and jwks, by which its pods' tokens are checked" }}
{{- end }}
{{- if gt (int .minWorkers) (int .maxWorkers) }}
{{- fail "worker.pool: minWorkers is more than maxWorkers" }}
{{- end }}
{{- if and .enabled (eq .scaler "keda") (not .keda.tokenSecret) }}
{{- fail "worker.pool.keda.tokenSecret is needed: KEDA shows its token to the schedulers" }}
{{- end }}
{{- end }}
{{- range .Values.worker.instances }}
{{- if eq .name "pool" }}{{ fail "worker.instances: `pool` is the pool's name" }}{{ end }}
{{- end }}
{{- end }}
