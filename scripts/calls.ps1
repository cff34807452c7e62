# The calls that the PowerShell scripts of this folder make: those of calls.sh, one for one. The Azure CLI only gives the
# tokens, since quotes and parentheses do not survive its way through cmd.exe.

$graph = if ($env:GRAPH_URL) { $env:GRAPH_URL } else { 'https://graph.microsoft.com' } # roots without a path
$authority = if ($env:ENTRA_AUTHORITY) { $env:ENTRA_AUTHORITY } else { 'https://login.microsoftonline.com' }
$handler = if ($env:HANDLER) { $env:HANDLER } elseif ($IsWindows) { 'bin/handler.exe' } else { 'bin/handler' }
$graphApp = '00000003-0000-0000-c000-000000000000'
# The External ID tenant has a login of its own, in a folder of its own.
$tenantLogin = if ($env:TENANT_LOGIN) { $env:TENANT_LOGIN } else { Join-Path $HOME '.azure-external' }
$tokens = @{}
$script:role = ''

function die([string]$text) { throw $text }

# as runs the Azure CLI with the login for the tenant, or for the subscription.
function as([string]$login, [string[]]$arguments) {
    $before = $env:AZURE_CONFIG_DIR
    if ($login -eq 'tenant') { $env:AZURE_CONFIG_DIR = $tenantLogin }
    try { az @arguments } finally { $env:AZURE_CONFIG_DIR = $before }
}

# rest makes one call: @{ status; body }.
function rest([string]$login, [string]$method, [string]$url, $body, $headers = @{}) {
    $resource = if ($vault -and $url.StartsWith("$vault/")) { 'https://vault.azure.net' } else { "$graph/" }
    $key = "$login $resource"
    if (-not $tokens[$key]) {
        $tokens[$key] = as $login @('account', 'get-access-token', '--resource', $resource, '--query', 'accessToken', '--output', 'tsv')
        if (-not $tokens[$key]) { die "Log in again: there is no token for $resource." }
    }
    $o = @{ Method = $method; Uri = $url; Headers = $headers + @{ Authorization = "Bearer $($tokens[$key])" }; SkipHttpErrorCheck = $true; StatusCodeVariable = 'status' }
    if ($null -ne $body) { $o.Body = ConvertTo-Json $body -Depth 10 -Compress; $o.ContentType = 'application/json' }
    $answer = Invoke-RestMethod @o
    @{ status = $status; body = $answer }
}

function failed([string]$method, [string]$url, $r) {
    $text = ConvertTo-Json $r.body -Depth 10 -Compress
    if ($r.status -eq 403) { die "$method ${url}: $text`nYour login may not do that. It needs the role $script:role; a new role takes some minutes to work." }
    die "$method ${url}: $($r.status) $text`nNothing is lost: run this again, and it goes on where it was."
}

# look_up reads; $null if it is not there.
function look_up([string]$login, [string]$url) {
    $r = rest $login GET $url
    if ($r.status -lt 300) { return $r.body }
    if ($r.status -ne 404) { failed GET $url $r }
    $null
}

# insist makes a call about something that is there, though perhaps not everywhere yet.
function insist([string]$login, [string]$method, [string]$url, $body, $headers = @{}) {
    foreach ($try in 1..6) {
        $r = rest $login $method $url $body $headers
        if ($r.status -lt 300) { return $r.body }
        $text = ConvertTo-Json $r.body -Depth 10 -Compress
        if ($text -match 'Permission being assigned already exists|service principal name .*is already in use') { return $null }
        if ($r.status -ne 404 -and $text -notmatch 'does not reference a valid application object') { break }
        if ($try -lt 6) { Start-Sleep 10 }
    }
    failed $method $url $r
}

function get([string]$login, [string]$url) { insist $login GET $url }

# change changes something; a dry run says what it would be.
function change([string]$login, [string]$method, [string]$url, $body, $headers = @{}) {
    if ($DryRun) {
        Write-Host "would:    $method $url`n          $(ConvertTo-Json $body -Depth 10 -Compress)"
        return
    }
    $null = insist $login $method $url $body $headers
}

function check_login([string]$login, [string]$tenant) {
    $found = as $login @('account', 'show', '--query', 'tenantId', '--output', 'tsv') 2> $null
    if ($found -and (-not $tenant -or $found -eq $tenant)) { return }
    if ($login -eq 'tenant') { die "Nobody is logged in to the External ID tenant. Run:`n  `$env:AZURE_CONFIG_DIR='$tenantLogin'; az login --tenant $tenant --allow-no-subscriptions; `$env:AZURE_CONFIG_DIR=`$null" }
    die "Nobody is logged in to the subscription. Run:`n  az login"
}

function utc([long]$seconds) { [DateTimeOffset]::FromUnixTimeSeconds($seconds).UtcDateTime.ToString('yyyy-MM-ddTHH:mm:ssZ') }

# read_certificate is the newest version of the certificate; $null if there is none. One that is being made is waited for.
function read_certificate {
    $script:role = 'Key Vault Certificates Officer on the vault'
    foreach ($try in 1..12) {
        $pending = look_up subscription "$vault/certificates/$certificate/pending?api-version=7.4"
        if (-not $pending -or $pending.status -ne 'inProgress') { break }
        Start-Sleep 5
    }
    if ($pending -and $pending.status -ne 'completed') { Write-Warning "the vault has not made a certificate: $($pending.status) $($pending.error.message)" }
    $found = look_up subscription "$vault/certificates/${certificate}?api-version=7.4"
    if (-not $found -or -not $found.cer) { return $null }
    @{ version = $found.id.Split('/')[-1]; cer = $found.cer; starts = $found.attributes.nbf; ends = $found.attributes.exp; policy = $found.policy }
}

function make_certificate($policy) {
    change subscription POST "$vault/certificates/$certificate/create?api-version=7.4" @{ policy = $policy }
}

function certificate_policy([bool]$exportable, [string]$subject) {
    @{
        issuer = @{ name = 'Self' }; key_props = @{ exportable = $exportable; kty = 'RSA'; key_size = 2048; reuse_key = $false }
        secret_props = @{ contentType = 'application/x-pkcs12' }
        x509_props = @{ subject = $subject; key_usage = @('digitalSignature'); ekus = @('1.3.6.1.5.5.7.3.2'); validity_months = 12 }
        lifetime_actions = @(@{ trigger = @{ days_before_expiry = 30 }; action = @{ action_type = 'EmailContacts' } })
    }
}

# registered reports that the app registration knows the version.
function registered($newest) {
    $script:role = "Cloud Application Administrator in the tenant $Tenant"
    $app = get tenant "$graph/v1.0/applications/${object}?`$select=keyCredentials"
    @($app.keyCredentials | Where-Object key -EQ $newest.cer).Count -gt 0
}

# register uploads the version's public part, beside those keys that have not expired.
function register($newest) {
    replace_keys $newest { $true } @(@{
            type = 'AsymmetricX509Cert'; usage = 'Verify'; key = $newest.cer; displayName = "$certificate $($newest.version)"
            startDateTime = utc $newest.starts; endDateTime = utc $newest.ends
        })
}

# replace_keys sends those of the app's keys that $keep keeps, and $more. The newest version must be among them.
function replace_keys($newest, [scriptblock]$keep, $more) {
    $script:role = "Cloud Application Administrator in the tenant $Tenant"
    $app = get tenant "$graph/v1.0/applications/${object}?`$select=keyCredentials"
    $keys = @($app.keyCredentials | Where-Object { $_ -and [datetime]$_.endDateTime -ge [datetime]::UtcNow } | Where-Object $keep) + @($more)
    if (@($keys | Where-Object key -EQ $newest.cer).Count -eq 0) { die 'The keys of the app registration could not be read. Nothing was changed.' }
    change tenant PATCH "$graph/v1.0/applications/$object" @{ keyCredentials = @($keys | Where-Object { $_ }) }
}
