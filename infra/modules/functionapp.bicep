// The Function App and its plan, with every setting of the program. A deployment replaces all app settings: what was set by hand
// is gone after it, so there is one place to look.

@description('Its name, unique in the world.')
param name string

@description('Where it is.')
param location string

@description('Its tags.')
param tags object

@description('On Flex Consumption; otherwise on the classic Consumption plan.')
param flex bool

@description('Memory of an instance in MB, on Flex.')
param instanceMemoryMB int

@description('The subnet that it reaches the outside through, on Flex; empty is none.')
param subnetId string

@description('Its identity.')
param identityName string

@description('The storage account of host and ledger.')
param storageName string

@description('The container in it that holds the package.')
param packageContainer string

@description('The Key Vault.')
param vaultName string

@description('The Application Insights component.')
param insightsName string

@description('The workspace that the host\'s log goes to.')
param workspaceId string

@description('The External ID tenant.')
param entraTenantId string

@description('The app registration in it; empty as long as there is none.')
param entraClientId string

@description('certificate or federated.')
param credential string

@description('The certificate\'s name in the vault.')
param certificateName string

@description('When SyncNewUsers runs.')
param syncSchedule string

@description('When TakeCensus runs.')
param censusSchedule string

@description('Names of secrets in the vault, by the app setting whose value they are.')
param vaultSettings object

@description('Further app settings, which are no secrets.')
param settings object

// docs/settings.md explains each; a test compares the two.
var programSettings = {
  AzureWebJobsStorage__accountName: storage.name
  AzureWebJobsStorage__credential: 'managedidentity'
  AzureWebJobsStorage__clientId: identity.properties.clientId
  AZURE_CLIENT_ID: identity.properties.clientId
  ENTRA_TENANT_ID: entraTenantId
  ENTRA_CLIENT_ID: entraClientId
  ENTRA_CREDENTIAL: credential
  ENTRA_CERTIFICATE: certificateName
  KEY_VAULT_URL: vault.properties.vaultUri
  SYNC_SCHEDULE: syncSchedule
  CENSUS_SCHEDULE: censusSchedule
}

var hostSettings = {
  APPLICATIONINSIGHTS_CONNECTION_STRING: insights.properties.ConnectionString
  APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identity.properties.clientId};Authorization=AAD'
}

// Flex refuses these, and has what they say in functionAppConfig. The package is fetched by identity, so that this plan needs no
// shared key either.
var classicSettings = {
  FUNCTIONS_EXTENSION_VERSION: '~4'
  FUNCTIONS_WORKER_RUNTIME: 'custom'
  WEBSITE_RUN_FROM_PACKAGE: '${storage.properties.primaryEndpoints.blob}${packageContainer}/signup-sync.zip'
  WEBSITE_RUN_FROM_PACKAGE_BLOB_MI_RESOURCE_ID: identity.id
}

var vaultReferences = toObject(items(vaultSettings), s => s.key, s => '@Microsoft.KeyVault(VaultName=${vaultName};SecretName=${s.value})')

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' existing = {
  name: identityName
}

resource storage 'Microsoft.Storage/storageAccounts@2025-06-01' existing = {
  name: storageName
}

resource vault 'Microsoft.KeyVault/vaults@2025-05-01' existing = {
  name: vaultName
}

resource insights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: insightsName
}

resource plan 'Microsoft.Web/serverfarms@2024-11-01' = {
  name: 'plan-${name}'
  location: location
  tags: tags
  kind: 'functionapp'
  sku: flex ? { name: 'FC1', tier: 'FlexConsumption' } : { name: 'Y1', tier: 'Dynamic' }
  properties: { reserved: true } // Linux
}

resource site 'Microsoft.Web/sites@2024-11-01' = {
  name: name
  location: location
  tags: union(tags, { 'azd-service-name': 'handler' })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identity.id}': {} }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    clientAffinityEnabled: false
    publicNetworkAccess: 'Enabled' // for deployments, and the status page, which wants a key and is not there by default
    keyVaultReferenceIdentity: identity.id
    virtualNetworkSubnetId: empty(subnetId) ? null : subnetId
    siteConfig: {
      minTlsVersion: '1.2'
      scmMinTlsVersion: '1.2'
      remoteDebuggingEnabled: false
    }
    functionAppConfig: flex ? {
      runtime: { name: 'custom', version: '1.0' }
      deployment: {
        storage: {
          type: 'blobContainer'
          value: '${storage.properties.primaryEndpoints.blob}${packageContainer}'
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identity.id
          }
        }
      }
      scaleAndConcurrency: {
        instanceMemoryMB: instanceMemoryMB
        maximumInstanceCount: 40 // a timer runs on one of them
      }
    } : null
  }
}

resource appSettings 'Microsoft.Web/sites/config@2024-11-01' = {
  parent: site
  name: 'appsettings'
  properties: union(settings, vaultReferences, programSettings, hostSettings, flex ? {} : classicSettings)
}

// With these off nobody can log in by FTP either; ftpsState would say so twice, and Flex refuses it.
resource passwords 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2024-11-01' = [for way in ['ftp', 'scm']: {
  parent: site
  name: way
  properties: { allow: false }
}]

// What the host says, also when it cannot reach Application Insights.
resource hostLog 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: site
  name: 'host'
  properties: {
    workspaceId: workspaceId
    logs: [{ category: 'FunctionAppLogs', enabled: true }]
  }
}

output id string = site.id
output name string = site.name
