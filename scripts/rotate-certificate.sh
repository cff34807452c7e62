#!/usr/bin/env bash
# Gives the app a new certificate before the old one ends: a new version in Key Vault, its public part on the app registration,
# and, once the doctor says that Microsoft Entra takes it, the old ones removed from there. Each run looks how far that has
# come, in the vault and on the registration, and does what is left; so it may be stopped, fail and be run again anywhere, and
# there is no moment at which the app has no certificate that works.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat << 'END'
usage: scripts/rotate-certificate.sh --app APP --group GROUP [--now] [--dry-run]

  --app APP      the Function App, whose settings say which tenant, app, vault and certificate it is about
  --group GROUP  its resource group
  --now          also if the certificate has more than 60 days left
  --dry-run      print each call that would change something, and make none

It needs bin/handler (make build; HANDLER is another path) and two logins: `az login` for the subscription, and
  AZURE_CONFIG_DIR=~/.azure-external az login --tenant TENANT --allow-no-subscriptions
for the External ID tenant (TENANT_LOGIN is another folder). The doctor also reads the secrets that the settings refer to:
Key Vault Secrets User on the vault.
END
}

function_app='' group='' due=60 vault=''
# shellcheck source=scripts/calls.sh
. scripts/calls.sh
while [ $# -gt 0 ]; do
  case $1 in
    --app | --group)
      [ $# -gt 1 ] || die "$1 needs a value."
      if [ "$1" = --app ]; then function_app=$2; else group=$2; fi
      shift
      ;;
    --now) due=100000 ;;
    --dry-run) dry_run=yes ;;
    --help | -h) usage && exit ;;
    *) usage >&2 && die "" "$1 is not known." ;;
  esac
  shift
done
if [ -z "$function_app" ] || [ -z "$group" ]; then
  usage >&2
  die "" "--app and --group are needed."
fi

# setting NAME is one of the app's settings.
setting() { printf '%s\n' "$settings" | sed -n "s|^$1	||p"; }

check_login subscription ''
role="Contributor on the Function App, to read its settings"
as subscription functionapp config appsettings list --name "$function_app" --resource-group "$group" --output json \
  > "$work/settings.json" 2> "$work/error" || failed GET "the app's settings"
settings=$(as subscription functionapp config appsettings list --name "$function_app" --resource-group "$group" \
  --query "[?starts_with(name,'ENTRA_') || name=='KEY_VAULT_URL'].[name,value]" --output tsv)
tenant=$(setting ENTRA_TENANT_ID) client=$(setting ENTRA_CLIENT_ID)
vault=$(setting KEY_VAULT_URL) certificate=$(setting ENTRA_CERTIFICATE)
vault=${vault%/}
case $(setting ENTRA_CREDENTIAL) in
  federated) say "there is nothing to rotate: the app trusts its identity" && exit ;;
  secret) die "The app has a client secret, and no certificate." ;;
esac
if ! guid "$tenant" || ! guid "$client" || [ -z "$vault" ] || [ -z "$certificate" ]; then
  die "The app's settings do not say which certificate it is: ENTRA_TENANT_ID, ENTRA_CLIENT_ID, KEY_VAULT_URL, ENTRA_CERTIFICATE."
fi
check_login tenant "$tenant"

# find_old finds the public parts of older versions, $old, as a list in JSON, and how many of them the registration has, $left.
find_old() {
  local ids id
  old=
  role='Key Vault Certificates Officer on the vault'
  get subscription "$vault/certificates/$certificate/versions?api-version=7.4" --query 'value[].id'
  ids=$answer
  for id in $ids; do
    [ "${id##*/}" != "$version" ] || continue
    get subscription "$vault/certificates/$certificate/${id##*/}?api-version=7.4" --query cer
    [ -z "$answer" ] || old="$old${old:+,}\"$answer\""
  done
  old="[$old]"
  role="Cloud Application Administrator in the tenant $tenant"
  get tenant "$graph/v1.0/applications/$object?\$select=keyCredentials" --query "length(keyCredentials[?contains(\`$old\`, key)] || \`[]\`)"
  left=$answer
}

# wait_until_used asks the doctor, until it has said five times in a row that the newest version is the one in use: one
# server of Microsoft Entra may know it minutes before the others.
wait_until_used() {
  local try times=0
  for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
    "$handler" doctor --settings "$work/settings.json" --json > "$work/doctor.json" 2> "$work/error" || true
    if grep -q "\"name\":\"certificate\",\"state\":\"ok\",\"why\":\"version $version " "$work/doctor.json"; then
      times=$((times + 1))
      [ "$times" -lt 5 ] || return 0
    else
      times=0
    fi
    [ "$try" = 30 ] || sleep 30
  done
  die "The doctor has not said that version $version is in use; its lines 'token' and 'certificate' say why not:" \
    "$(grep -oE '"name":"(token|certificate|newest certificate|configuration|everything)","state":"[a-z]*","why":"[^"]*"' "$work/doctor.json" || cat "$work/error")" \
    "The old key was left where it is. Run this again."
}

role="Cloud Application Administrator in the tenant $tenant"
get tenant "$graph/v1.0/applications(appId='$client')?\$select=id" --query id
object=$answer
read_certificate || die "The vault has no certificate $certificate: scripts/register-app.sh makes it."
find_old
days=$(((ends - $(date +%s)) / 86400))
if registered; then
  say "there:    version $version on the app registration, with $days days left"
  if [ "$left" = 0 ]; then
    if [ "$days" -ge "$due" ]; then
      say "Nothing is to be done: it is the only one, and rotated when it has less than $due days left, or with --now."
      exit
    fi
    before=$version
    role='Key Vault Certificates Officer on the vault'
    get subscription "$vault/certificates/$certificate?api-version=7.4" --query '[policy.key_props.exportable,policy.x509_props.subject]'
    { read -r exportable && read -r subject; } <<< "$answer"
    case $exportable in [Tt]rue) exportable=true ;; *) exportable=false ;; esac
    make_certificate "$(certificate_policy "$exportable" "$subject")"
    if [ "$dry_run" ]; then
      say "would:    upload its public part, wait until the doctor says that it is used, and remove that of version $before"
      exit
    fi
    read_certificate || version=$before
    [ "$version" != "$before" ] || die "The vault does not show the new version yet. Run this again."
    say "made:     version $version, which ends $(utc "$ends")"
    find_old
    register
    say "made:     its public part on the app registration, beside the old one"
  fi
else
  say "there:    version $version in the vault; the app registration does not know it"
  register
  [ "$dry_run" ] || say "made:     its public part on the app registration, beside the old ones"
fi
if [ "$left" = 0 ]; then
  say "No older version is registered."
elif [ "$dry_run" ]; then
  say "would:    wait until the doctor says that version $version is used, and remove those of older versions: $left"
else
  say "waiting:  until the doctor says that version $version is used"
  wait_until_used
  replace_keys "keyCredentials[?endDateTime >= '$(now)' && !contains(\`$old\`, key)]"
  say "removed:  older versions' public parts from the app registration: $left"
fi
say "The Function App takes the new version with its next token, within two hours; a restart is not needed."
