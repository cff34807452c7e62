#!/usr/bin/env bash
# Makes what signup-sync needs in the External ID tenant: an app registration with a certificate from Key Vault and the least
# permissions. What is there already is left alone, so it may be run again at any time, above all after a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat << 'END'
usage: scripts/register-app.sh --tenant TENANT --vault VAULT [--certificate NAME] [--exportable] [OPTION...]
       scripts/register-app.sh --tenant TENANT --federated PRINCIPAL [OPTION...]

  --tenant TENANT        the External ID tenant, a GUID
  --vault VAULT          the Key Vault, by name or https URL: output keyVaultName of infra/
  --certificate NAME     the certificate's name in it; default signup-sync
  --exportable           the key may leave the vault; else the vault signs for the program
  --federated PRINCIPAL  no certificate: the app trusts the Function App's identity, by its object id, output
                         identityPrincipalId of infra/. Try in your tenant whether that is enough for it.
  --name NAME            the app registration's name, by which it is found again; default signup-sync
  --client CLIENT        an app registration that is there already, by its application id
  --no-consent           only print the link by which an administrator consents
  --dry-run              print each call that would change something, and make none

It needs bin/handler (make build; HANDLER is another path) and two logins: `az login` for the subscription of the vault, and
  AZURE_CONFIG_DIR=~/.azure-external az login --tenant TENANT --allow-no-subscriptions
for the tenant (TENANT_LOGIN is another folder).
END
}

tenant='' vault='' certificate=signup-sync exportable=false principal='' name=signup-sync client='' consent=yes
# shellcheck source=scripts/calls.sh
. scripts/calls.sh
while [ $# -gt 0 ]; do
  case $1 in
    --tenant | --vault | --certificate | --federated | --name | --client)
      [ $# -gt 1 ] || die "$1 needs a value."
      case $1 in
        --tenant) tenant=$2 ;;
        --vault) vault=$2 ;;
        --certificate) certificate=$2 ;;
        --federated) principal=$2 ;;
        --name) name=$2 ;;
        --client) client=$2 ;;
      esac
      shift
      ;;
    --exportable) exportable=true ;;
    --no-consent) consent= ;;
    --dry-run) dry_run=yes ;;
    --help | -h) usage && exit ;;
    *) usage >&2 && die "" "$1 is not known." ;;
  esac
  shift
done
guid "$tenant" || die "--tenant must be a GUID: Entra admin center > Overview > Tenant ID."
[ -z "$client" ] || guid "$client" || die "--client must be a GUID."
[[ $name/$certificate =~ ^[0-9a-zA-Z-]+/[0-9a-zA-Z-]+$ ]] || die "--name and --certificate are of letters, digits and hyphens."
home=tenant audience=AzureADMyOrg # where the app is registered
if [ -n "$principal" ]; then
  guid "$principal" || die "--federated must be a GUID."
  [ -z "$vault" ] || die "--vault and --federated exclude each other."
  home=subscription audience=AzureADMultipleOrgs
elif [ -z "$vault" ]; then
  usage >&2
  die "" "--vault is missing."
fi
case $vault in '' | *://*) vault=${vault%/} ;; *) vault=https://$vault.vault.azure.net ;; esac

administrator="Cloud Application Administrator in the tenant of the login for the $home"

# find_application finds the app registration: $object and $client.
find_application() {
  local key="uniqueName='$name'"
  role=$administrator
  [ -z "$client" ] || key="appId='$client'"
  look_up "$home" "$graph/v1.0/applications($key)?\$select=id,appId,signInAudience" --query '[id,appId,signInAudience]' || return
  { read -r object && read -r client && read -r audience_found; } <<< "$answer"
}

make_application() {
  if find_application; then
    say "there:    the app registration $client"
    if [ "$audience" = AzureADMultipleOrgs ] && [ "$audience_found" = AzureADMyOrg ]; then
      change "$home" PATCH "$graph/v1.0/applications/$object" "{\"signInAudience\":\"$audience\"}"
      [ "$dry_run" ] || say "changed:  it may be used in other tenants"
    fi
    return
  fi
  [ -z "$client" ] || die "There is no app registration with the application id $client in that tenant."
  # The unique name is the key, so that there is one even if an answer is lost.
  change "$home" PATCH "$graph/v1.0/applications(uniqueName='$name')" \
    "{\"displayName\":\"$name\",\"signInAudience\":\"$audience\"}" --headers Prefer=create-if-missing --query '[id,appId]'
  if [ "$dry_run" ]; then
    object='{its object id}' client='{its client id}' is_new=yes
    return
  fi
  get "$home" "$graph/v1.0/applications(uniqueName='$name')?\$select=id,appId" --query '[id,appId]'
  { read -r object && read -r client; } <<< "$answer"
  say "made:     the app registration $client"
}

make_key() {
  if read_certificate; then
    say "there:    version $version of the certificate $certificate, which ends $(utc "$ends")"
  else
    make_certificate "$(certificate_policy "$exportable" "CN=$certificate")"
    if [ "$dry_run" ]; then
      say "would:    upload its public part to the app registration, beside those that are there"
      return
    fi
    read_certificate || die "The vault does not show the new certificate yet. Run this again."
    say "made:     version $version of the certificate $certificate, which ends $(utc "$ends")"
  fi
  if [ "$is_new" ]; then
    say "would:    upload its public part to the app registration"
  elif registered; then
    say "there:    its public part on the app registration"
  else
    register
    [ "$dry_run" ] || say "made:     its public part on the app registration"
  fi
}

trust_identity() {
  role=$administrator
  check_login subscription ''
  local issuer trusted=''
  issuer=$authority/$(as subscription account show --query tenantId --output tsv)/v2.0
  if [ -z "$is_new" ]; then
    get subscription "$graph/v1.0/applications/$object/federatedIdentityCredentials" --query "value[?subject=='$principal' && issuer=='$issuer'].id"
    trusted=$answer
  fi
  if [ -n "$trusted" ]; then
    say "there:    its trust in the identity $principal"
    return
  fi
  change subscription POST "$graph/v1.0/applications/$object/federatedIdentityCredentials" \
    "{\"name\":\"$name-$principal\",\"issuer\":\"$issuer\",\"subject\":\"$principal\",\"audiences\":[\"api://AzureADTokenExchange\"]}"
  [ "$dry_run" ] || say "made:     its trust in the identity $principal"
}

# ask_permissions makes the registration ask for exactly what the configuration needs.
ask_permissions() {
  local wanted found='' body='' id
  role=$administrator
  wanted=$(printf '%s\n' "$permissions" | sed 's/.*/&=Role/' | sort)
  if [ -z "$is_new" ]; then
    get "$home" "$graph/v1.0/applications/$object?\$select=requiredResourceAccess" --query "sort(requiredResourceAccess[].resourceAccess[].join('=',[id,type]) || \`[]\`)"
    found=$(printf '%s\n' "$answer" | sort)
  fi
  if [ "$found" = "$wanted" ]; then
    say "there:    it asks for what the configuration needs, and nothing else"
    return
  fi
  for id in $permissions; do
    body="$body${body:+,}{\"id\":\"$id\",\"type\":\"Role\"}"
  done
  change "$home" PATCH "$graph/v1.0/applications/$object" "{\"requiredResourceAccess\":[{\"resourceAppId\":\"$graph_app\",\"resourceAccess\":[$body]}]}"
  [ "$dry_run" ] || say "changed:  it asks for what the configuration needs, and nothing else"
}

# make_principal makes what the app is in the tenant: $app.
make_principal() {
  role="Cloud Application Administrator in the tenant $tenant"
  if [ -z "$is_new" ] && look_up tenant "$graph/v1.0/servicePrincipals(appId='$client')?\$select=id" --query id; then
    app=$answer
    say "there:    the app in the tenant $tenant"
    return
  fi
  change tenant POST "$graph/v1.0/servicePrincipals" "{\"appId\":\"$client\"}" --query id
  if [ "$dry_run" ]; then
    app='{its object id in the tenant}'
    return
  fi
  get tenant "$graph/v1.0/servicePrincipals(appId='$client')?\$select=id" --query id
  app=$answer
  say "made:     the app in the tenant $tenant"
}

# name_of ID is a permission's name.
name_of() { grep -F "$1" <<< "$named" | cut -d '"' -f 4; }

# grant_permissions consents, which is one assignment for each permission.
grant_permissions() {
  local resource granted='' id assignment
  role="Privileged Role Administrator in the tenant $tenant (with --no-consent somebody else can consent)"
  get tenant "$graph/v1.0/servicePrincipals(appId='$graph_app')?\$select=id" --query id
  resource=$answer
  case $app in
    '{'*) ;; # it is not made by a dry run
    *)
      get tenant "$graph/v1.0/servicePrincipals/$app/appRoleAssignments" --query "value[?resourceId=='$resource'].[appRoleId,id]"
      granted=$answer
      ;;
  esac
  for id in $permissions; do
    case $granted in
      *"$id"*) say "there:    consent to $(name_of "$id")" ;;
      *)
        change tenant POST "$graph/v1.0/servicePrincipals/$app/appRoleAssignments" "{\"principalId\":\"$app\",\"resourceId\":\"$resource\",\"appRoleId\":\"$id\"}"
        [ "$dry_run" ] || say "made:     consent to $(name_of "$id")"
        ;;
    esac
  done
  while read -r id assignment; do
    case $permissions in
      *"$id"*) ;;
      *) say "too much: the app also has the permission $id; to take it away, in the login for the tenant:" \
        "          az rest --method DELETE --url \"$graph/v1.0/servicePrincipals/$app/appRoleAssignments/$assignment\"" ;;
    esac
  done <<< "$granted"
}

object='' app='' is_new=''
named=$("$handler" doctor --permissions --json | grep -oE '"name":"[^"]+","id":"[0-9a-f-]{36}"') ||
  die "$handler does not say which permissions signup-sync.yaml needs. Is it built (make build), and for this machine?"
permissions=$(cut -d '"' -f 8 <<< "$named")
check_login tenant "$tenant"
check_login subscription ''
make_application
if [ -n "$principal" ]; then
  trust_identity
else
  make_key
fi
ask_permissions
make_principal
[ -z "$consent" ] || grant_permissions

say "" "An administrator of the tenant consents, where that was not done above, by"
say "  $authority/$tenant/adminconsent?client_id=$client"
say "or in the Entra admin center > App registrations > $name > API permissions > Grant admin consent. '$handler doctor' says whether it has worked."
say "" "The app's settings, which infra/ sets when it is deployed with ENTRA_CLIENT_ID=$client:"
say "  ENTRA_TENANT_ID=$tenant" "  ENTRA_CLIENT_ID=$client"
if [ -n "$principal" ]; then
  say "  ENTRA_CREDENTIAL=federated   (parameter credential of infra/)"
else
  say "  ENTRA_CREDENTIAL=certificate" "  KEY_VAULT_URL=$vault" "  ENTRA_CERTIFICATE=$certificate"
fi
