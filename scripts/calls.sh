# shellcheck shell=bash disable=SC2034,SC2154 # what is set here is used by the scripts, and the other way round
# The calls that the scripts of this folder make, all of them by `az rest`, so that jq and openssl are not needed. It is
# sourced by them, and runs in bash 3.2 and newer. Queries are evaluated by the Azure CLI itself.

graph=${GRAPH_URL:-https://graph.microsoft.com} # roots without a path, as in docs/settings.md
authority=${ENTRA_AUTHORITY:-https://login.microsoftonline.com}
handler=${HANDLER:-bin/handler}
graph_app=00000003-0000-0000-c000-000000000000 # Microsoft Graph's own application id, the same in every tenant

# `az rest` takes the login that is current, and one person's login for one tenant is often worth nothing in another. So the
# External ID tenant has a login of its own, in a folder of its own; the subscription's is left as it is.
tenant_login=${TENANT_LOGIN:-$HOME/.azure-external}

dry_run=
role=      # what the login must be allowed for the next calls: the error for a refusal names it
answer=    # of the last call
work=$(mktemp -d) # nobody else may look into it
trap 'rm -rf "$work"' EXIT

say() { printf '%s\n' "$@"; }

die() {
  printf '%s\n' "$@" >&2
  exit 1
}

# as LOGIN ARGUMENT... runs the Azure CLI with the login for the tenant, or for the subscription.
as() {
  local login=$1
  shift
  if [ "$login" = tenant ]; then
    AZURE_CONFIG_DIR=$tenant_login az "$@"
  else
    az "$@"
  fi
}

# rest LOGIN METHOD URL [OPTION...] makes one call and leaves what it prints in $answer. Its error stays in $work/error.
rest() {
  local login=$1 method=$2 url=$3 resource=$graph/
  shift 3
  case $url in "$vault"/*) resource=https://vault.azure.net ;; esac
  answer=$(as "$login" rest --method "$method" --url "$url" --resource "$resource" --output tsv "$@" 2> "$work/error")
}

# failed METHOD URL ends the script and says what can be done about it.
failed() {
  cat "$work/error" >&2
  case $(cat "$work/error") in
    *ForbiddenByFirewall* | *ForbiddenByConnection*) die "$1 $2: the vault's network rules keep this machine out." ;;
    *Forbidden* | *Authorization_RequestDenied*) die "$1 $2: your login may not do that. It needs the role $role; a new role takes some minutes to work." ;;
    *"az login"* | *AADSTS*) die "$1 $2: log in again." ;;
  esac
  die "$1 $2 has failed. Nothing is lost: run this again, and it goes on where it was."
}

# missing reports that the last call failed since what it asks for is not there. Any other failure says nothing of the kind.
missing() { grep -qE 'Request_ResourceNotFound|CertificateNotFound' "$work/error"; }

# look_up LOGIN URL [OPTION...] reads; false if it is not there.
look_up() {
  local login=$1 url=$2
  shift 2
  rest "$login" GET "$url" "$@" && return
  missing || failed GET "$url"
  return 1
}

# insist LOGIN METHOD URL [OPTION...] makes a call about something that is there. It may be so new that not every server of
# the directory knows it yet.
insist() {
  local login=$1 method=$2 url=$3 try
  shift 3
  for try in 1 2 3 4 5 6; do
    rest "$login" "$method" "$url" "$@" && return
    # What is there already may not be shown everywhere yet.
    grep -qE 'Permission being assigned already exists|service principal name .*is already in use' "$work/error" && return
    missing || grep -q 'does not reference a valid application object' "$work/error" || break
    [ "$try" = 6 ] || sleep 10
  done
  failed "$method" "$url"
}

get() {
  local login=$1 url=$2
  shift 2
  insist "$login" GET "$url" "$@"
}

# change LOGIN METHOD URL BODY [OPTION...] changes something; a dry run says what it would be.
change() {
  local login=$1 method=$2 url=$3 body=$4
  shift 4
  if [ "$dry_run" ]; then
    say "would:    $method $url" "          $body"
    return
  fi
  printf '%s' "$body" > "$work/body.json"
  insist "$login" "$method" "$url" --body "@$work/body.json" "$@"
}

# check_login LOGIN TENANT ends the script unless somebody is logged in there. An empty TENANT is any.
check_login() {
  local found
  found=$(as "$1" account show --query tenantId --output tsv 2> /dev/null) || found=
  [ -n "$found" ] && [ "$found" = "${2:-$found}" ] && return
  if [ "$1" = tenant ]; then
    die "Nobody is logged in to the External ID tenant. Run:" "  AZURE_CONFIG_DIR=$tenant_login az login --tenant $2 --allow-no-subscriptions"
  fi
  die "Nobody is logged in to the subscription. Run:" "  az login"
}

guid() { [[ $1 =~ ^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$ ]]; }

# utc SECONDS is a time as Graph writes it; GNU's date and that of BSD and macOS differ.
utc() { date -u -d "@$1" +%Y-%m-%dT%H:%M:%SZ 2> /dev/null || date -u -r "$1" +%Y-%m-%dT%H:%M:%SZ; }

now() { utc "$(date +%s)"; }

# read_certificate finds the newest version of the certificate: $version, $cer (base64 of its public part), $starts and $ends in
# seconds. One that is being made is waited for. False if there is none.
read_certificate() {
  local try
  role='Key Vault Certificates Officer on the vault'
  for try in 1 2 3 4 5 6 7 8 9 10 11 12; do
    look_up subscription "$vault/certificates/$certificate/pending?api-version=7.4" --query '[status,error.message]' || answer=none
    case $answer in inProgress*) sleep 5 ;; *) break ;; esac
  done
  case $answer in
    none | completed*) ;;
    *) say "warning:  the vault has not made a certificate: $answer" >&2 ;;
  esac
  look_up subscription "$vault/certificates/$certificate?api-version=7.4" --query '[id,cer,attributes.nbf,attributes.exp]' || return
  { read -r version && read -r cer && read -r starts && read -r ends; } <<< "$answer"
  version=${version##*/}
  [ "$cer" != None ]
}

# make_certificate POLICY has the vault make a version.
make_certificate() {
  change subscription POST "$vault/certificates/$certificate/create?api-version=7.4" "{\"policy\":$1}" --query status
}

# certificate_policy EXPORTABLE SUBJECT is that of a certificate with which an app signs its assertions: twelve months, and no
# renewal by the vault itself, which would make a version that the app registration does not know.
certificate_policy() {
  printf '{"issuer":{"name":"Self"},"key_props":{"exportable":%s,"kty":"RSA","key_size":2048,"reuse_key":false},' "$1"
  printf '"secret_props":{"contentType":"application/x-pkcs12"},"x509_props":{"subject":"%s","key_usage":["digitalSignature"],' "$2"
  printf '"ekus":["1.3.6.1.5.5.7.3.2"],"validity_months":12},"lifetime_actions":[{"trigger":{"days_before_expiry":30},"action":{"action_type":"EmailContacts"}}]}'
}

# registered reports that the app registration $object knows the newest version.
registered() {
  role="Cloud Application Administrator in the tenant $tenant"
  get tenant "$graph/v1.0/applications/$object?\$select=keyCredentials" --query "length(keyCredentials[?key=='$cer'] || \`[]\`)"
  [ "$answer" != 0 ]
}

# register uploads the newest version's public part. A patch replaces all keys, so the others are read and sent along, but for
# those that have expired.
register() {
  local key
  key=$(printf '{"type":"AsymmetricX509Cert","usage":"Verify","key":"%s","displayName":"%s","startDateTime":"%s","endDateTime":"%s"}' \
    "$cer" "$certificate $version" "$(utc "$starts")" "$(utc "$ends")")
  replace_keys "[keyCredentials[?endDateTime >= '$(now)'] || \`[]\`, [\`$key\`]][]"
}

# replace_keys QUERY sends the app's keys as QUERY makes them of those that are there. The newest version must be among them.
replace_keys() {
  role="Cloud Application Administrator in the tenant $tenant"
  get tenant "$graph/v1.0/applications/$object?\$select=keyCredentials" --output json --query "{keyCredentials: $1}"
  case $answer in
    *"$cer"*) change tenant PATCH "$graph/v1.0/applications/$object" "$answer" ;;
    *) die "The keys of the app registration could not be read. Nothing was changed." ;;
  esac
}
