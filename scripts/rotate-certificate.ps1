#requires -Version 7
# The twin of rotate-certificate.sh, which says how it goes on where it was. Every step makes the same calls.
param([Parameter(Mandatory)][string]$App, [Parameter(Mandatory)][string]$Group, [switch]$Now, [switch]$DryRun)
$ErrorActionPreference = 'Stop'
Set-Location (Join-Path $PSScriptRoot '..')
$vault = ''
. scripts/calls.ps1
$due = if ($Now) { 100000 } else { 60 }

# find_old are the public parts of older versions, and how many of them the registration has.
function find_old($newest) {
    $script:role = 'Key Vault Certificates Officer on the vault'
    $versions = get subscription "$vault/certificates/$certificate/versions?api-version=7.4"
    $script:old = @()
    foreach ($id in $versions.value.id | ForEach-Object { $_.Split('/')[-1] } | Where-Object { $_ -ne $newest.version }) {
        $script:old += (get subscription "$vault/certificates/$certificate/${id}?api-version=7.4").cer
    }
    $script:role = "Cloud Application Administrator in the tenant $Tenant"
    $app = get tenant "$graph/v1.0/applications/${object}?`$select=keyCredentials"
    $script:left = @($app.keyCredentials | Where-Object { $_ -and $old -contains $_.key }).Count
}

# wait_until_used asks the doctor, until it has said five times in a row that the newest version is the one in use.
function wait_until_used($newest) {
    $times = 0
    foreach ($try in 1..30) {
        $findings = (& $handler doctor --settings $settingsFile --json 2> $null | ConvertFrom-Json).findings
        $used = $findings | Where-Object { $_.name -eq 'certificate' -and $_.state -eq 'ok' -and $_.why.StartsWith("version $($newest.version) ") }
        $times = if ($used) { $times + 1 } else { 0 }
        if ($times -eq 5) { return }
        if ($try -lt 30) { Start-Sleep 30 }
    }
    $findings | Where-Object state -NE 'ok' | ForEach-Object { Write-Host "$($_.name): $($_.why)" }
    die "The doctor has not said that version $($newest.version) is in use. The old key was left where it is. Run this again."
}

check_login subscription ''
$settingsFile = New-TemporaryFile
try {
    $text = as subscription @('functionapp', 'config', 'appsettings', 'list', '--name', $App, '--resource-group', $Group, '--output', 'json')
    if (-not $text) { die "The app's settings cannot be read." }
    Set-Content $settingsFile $text
    $settings = @{}
    $text | ConvertFrom-Json | ForEach-Object { $settings[$_.name] = $_.value }
    if ($settings.ENTRA_CREDENTIAL -eq 'federated') { 'there is nothing to rotate: the app trusts its identity'; return }
    if ($settings.ENTRA_CREDENTIAL -eq 'secret') { die 'The app has a client secret, and no certificate.' }
    $Tenant, $client, $vault, $certificate = $settings.ENTRA_TENANT_ID, $settings.ENTRA_CLIENT_ID, "$($settings.KEY_VAULT_URL)".TrimEnd('/'), $settings.ENTRA_CERTIFICATE
    if (-not ($Tenant -and $client -and $vault -and $certificate)) { die "The app's settings do not say which certificate it is." }
    check_login tenant $Tenant
    $script:role = "Cloud Application Administrator in the tenant $Tenant"
    $object = (get tenant "$graph/v1.0/applications(appId='$client')?`$select=id").id
    $newest = read_certificate
    if (-not $newest) { die "The vault has no certificate ${certificate}: scripts/register-app.ps1 makes it." }
    find_old $newest
    $days = [math]::Floor(($newest.ends - [DateTimeOffset]::UtcNow.ToUnixTimeSeconds()) / 86400)
    if (registered $newest) {
        Write-Host "there:    version $($newest.version) on the app registration, with $days days left"
        if ($left -eq 0) {
            if ($days -ge $due) { "Nothing is to be done: it is the only one, and rotated when it has less than $due days left, or with -Now."; return }
            $before = $newest.version
            $policy = (get subscription "$vault/certificates/${certificate}?api-version=7.4").policy
            make_certificate (certificate_policy $policy.key_props.exportable $policy.x509_props.subject)
            if ($DryRun) { "would:    upload its public part, wait until the doctor says that it is used, and remove that of version $before"; return }
            $newest = read_certificate
            if (-not $newest -or $newest.version -eq $before) { die 'The vault does not show the new version yet. Run this again.' }
            find_old $newest
            register $newest
        }
    } else {
        register $newest
    }
    if ($left -gt 0 -and $DryRun) {
        Write-Host "would:    wait until the doctor says that version $($newest.version) is used, and remove those of older versions: $left"
    } elseif ($left -gt 0) {
        wait_until_used $newest
        replace_keys $newest { $old -notcontains $_.key } @()
        Write-Host "removed:  older versions' public parts from the app registration: $left"
    }
} finally {
    Remove-Item $settingsFile
}
