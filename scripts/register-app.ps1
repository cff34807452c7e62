#requires -Version 7
# The twin of register-app.sh, which says what each parameter is. Every step makes the same calls.
param(
    [Parameter(Mandatory)][guid]$Tenant, [string]$Vault, [ValidatePattern('^[0-9a-zA-Z-]+$')][string]$Certificate = 'signup-sync', [switch]$Exportable,
    [string]$Federated, [ValidatePattern('^[0-9a-zA-Z-]+$')][string]$Name = 'signup-sync', [string]$Client, [switch]$NoConsent, [switch]$DryRun
)
$ErrorActionPreference = 'Stop'
Set-Location (Join-Path $PSScriptRoot '..')
. scripts/calls.ps1
if ([bool]$Vault -eq [bool]$Federated) { die 'Either -Vault or -Federated is needed.' }
foreach ($id in $Federated, $Client) { if ($id) { $null = [guid]$id } } # or it ends here
if ($Vault -and $Vault -notmatch '://') { $Vault = "https://$Vault.vault.azure.net" }
$Vault = $Vault.TrimEnd('/')
$homeLogin, $audience = if ($Federated) { 'subscription', 'AzureADMultipleOrgs' } else { 'tenant', 'AzureADMyOrg' }
$administrator = "Cloud Application Administrator in the tenant of the login for the $homeLogin"
$object, $app, $isNew = '', '', $false

function make_application {
    $script:role = $administrator
    $key = if ($Client) { "appId='$Client'" } else { "uniqueName='$Name'" }
    $found = look_up $homeLogin "$graph/v1.0/applications($key)?`$select=id,appId,signInAudience"
    if ($found) {
        $script:object, $script:Client = $found.id, $found.appId
        Write-Host "there:    the app registration $Client"
        if ($audience -eq 'AzureADMultipleOrgs' -and $found.signInAudience -eq 'AzureADMyOrg') {
            change $homeLogin PATCH "$graph/v1.0/applications/$object" @{ signInAudience = $audience }
        }
        return
    }
    if ($Client) { die "There is no app registration with the application id $Client in that tenant." }
    change $homeLogin PATCH "$graph/v1.0/applications(uniqueName='$Name')" @{ displayName = $Name; signInAudience = $audience } @{ Prefer = 'create-if-missing' }
    if ($DryRun) {
        $script:object, $script:Client, $script:isNew = '{its object id}', '{its client id}', $true
        return
    }
    $made = get $homeLogin "$graph/v1.0/applications(uniqueName='$Name')?`$select=id,appId"
    $script:object, $script:Client = $made.id, $made.appId
    Write-Host "made:     the app registration $Client"
}

function make_key {
    $newest = read_certificate
    if (-not $newest) {
        make_certificate (certificate_policy $Exportable "CN=$Certificate")
        if (-not $DryRun) { $newest = read_certificate }
        if (-not $newest -and -not $DryRun) { die 'The vault does not show the new certificate yet. Run this again.' }
    }
    if (-not $newest -or $isNew) {
        Write-Host 'would:    upload its public part to the app registration'
    } elseif (registered $newest) {
        Write-Host "there:    version $($newest.version) of the certificate, on the app registration"
    } else {
        register $newest
        Write-Host "made:     version $($newest.version) of the certificate, on the app registration"
    }
}

function trust_identity {
    $script:role = $administrator
    $issuer = "$authority/$(as subscription @('account', 'show', '--query', 'tenantId', '--output', 'tsv'))/v2.0"
    if (-not $isNew) {
        $trusts = get subscription "$graph/v1.0/applications/$object/federatedIdentityCredentials"
        if ($trusts.value | Where-Object { $_.subject -eq $Federated -and $_.issuer -eq $issuer }) {
            Write-Host "there:    its trust in the identity $Federated"
            return
        }
    }
    change subscription POST "$graph/v1.0/applications/$object/federatedIdentityCredentials" @{
        name = "$Name-$Federated"; issuer = $issuer; subject = $Federated; audiences = @('api://AzureADTokenExchange')
    }
}

function ask_permissions {
    $script:role = $administrator
    $wanted = ($permissions.id | ForEach-Object { "$_=Role" } | Sort-Object) -join ' '
    if (-not $isNew) {
        $found = get $homeLogin "$graph/v1.0/applications/${object}?`$select=requiredResourceAccess"
        if (($found.requiredResourceAccess.resourceAccess | Where-Object { $_ } | ForEach-Object { "$($_.id)=$($_.type)" } | Sort-Object) -join ' ' -eq $wanted) {
            Write-Host 'there:    it asks for what the configuration needs, and nothing else'
            return
        }
    }
    change $homeLogin PATCH "$graph/v1.0/applications/$object" @{ requiredResourceAccess = @(@{
                resourceAppId = $graphApp; resourceAccess = @($permissions | ForEach-Object { @{ id = $_.id; type = 'Role' } })
            })
    }
}

function make_principal {
    $script:role = "Cloud Application Administrator in the tenant $Tenant"
    if (-not $isNew) {
        $found = look_up tenant "$graph/v1.0/servicePrincipals(appId='$Client')?`$select=id"
        if ($found) {
            $script:app = $found.id
            return
        }
    }
    change tenant POST "$graph/v1.0/servicePrincipals" @{ appId = $Client }
    if ($DryRun) {
        $script:app = '{its object id in the tenant}'
        return
    }
    $script:app = (get tenant "$graph/v1.0/servicePrincipals(appId='$Client')?`$select=id").id
}

function grant_permissions {
    $script:role = "Privileged Role Administrator in the tenant $Tenant (with -NoConsent somebody else can consent)"
    $resource = (get tenant "$graph/v1.0/servicePrincipals(appId='$graphApp')?`$select=id").id
    $granted = @()
    if (-not $app.StartsWith('{')) {
        $granted = @((get tenant "$graph/v1.0/servicePrincipals/$app/appRoleAssignments").value | Where-Object resourceId -EQ $resource)
    }
    foreach ($p in $permissions) {
        if ($granted.appRoleId -contains $p.id) {
            Write-Host "there:    consent to $($p.name)"
            continue
        }
        change tenant POST "$graph/v1.0/servicePrincipals/$app/appRoleAssignments" @{ principalId = $app; resourceId = $resource; appRoleId = $p.id }
        if (-not $DryRun) { Write-Host "made:     consent to $($p.name)" }
    }
    foreach ($g in $granted | Where-Object { $permissions.id -notcontains $_.appRoleId }) {
        Write-Host "too much: the app also has the permission $($g.appRoleId), as DELETE $graph/v1.0/servicePrincipals/$app/appRoleAssignments/$($g.id) takes away"
    }
}

$permissions = (& $handler doctor --permissions --json | ConvertFrom-Json).permissions
if (-not $permissions) { die "$handler does not say which permissions signup-sync.yaml needs. Is it built, and for this machine?" }
check_login tenant $Tenant
check_login subscription ''
make_application
if ($Federated) { trust_identity } else { make_key }
ask_permissions
make_principal
if (-not $NoConsent) { grant_permissions }
Write-Host "`nAn administrator of the tenant consents, where that was not done above, by`n  $authority/$Tenant/adminconsent?client_id=$Client"
Write-Host "The app's settings, which infra/ sets when it is deployed with ENTRA_CLIENT_ID=${Client}:`n  ENTRA_TENANT_ID=$Tenant`n  ENTRA_CLIENT_ID=$Client"
if ($Federated) { Write-Host '  ENTRA_CREDENTIAL=federated   (parameter credential of infra/)' } else { Write-Host "  ENTRA_CREDENTIAL=certificate`n  KEY_VAULT_URL=$Vault`n  ENTRA_CERTIFICATE=$Certificate" }
