// Who may do what: every role of the app and of the operator, each on one resource. What destinations outside of this group need
// (queues, Service Bus, Event Grid, databases) docs/destinations.md names.

@description('The object id of the app\'s identity.')
param appPrincipalId string

@description('The storage account.')
param storageName string

@description('The Key Vault.')
param vaultName string

@description('The Application Insights component.')
param insightsName string

@description('The vault signs for the app, with a key that it does not give away.')
param signsInVault bool

@description('The operator\'s object id; empty is nobody.')
param operatorId string

@description('What the operator is.')
param operatorType string

@description('The operator puts the package into the storage account; on Flex the app does.')
param operatorUploads bool

var roles = {
  storageBlobDataOwner: 'b7e6dc6d-f1e8-4753-8033-0f276bb0955b'
  storageBlobDataContributor: 'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
  storageTableDataContributor: '0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3'
  keyVaultSecretsUser: '4633458b-17de-408a-b874-0445c86b69e6'
  keyVaultSecretsOfficer: 'b86a8fe4-44ce-4948-aee5-eccb2c155cd7'
  keyVaultCertificatesOfficer: 'a4417e6f-fecd-4de8-b567-7b0420556985'
  keyVaultCryptoUser: '12338af0-0e69-4776-bea7-57ae8d297424'
  keyVaultCertificateUser: 'db79e9a7-68ee-4b58-9aeb-b90e7c24fcba'
  monitoringMetricsPublisher: '3913510d-42f4-4e42-8a64-420c390055eb'
}

// The host keeps its locks, the timers' state, its keys and the package in blobs, and makes the containers for them; the ledger
// is in tables.
var appOnStorage = [roles.storageBlobDataOwner, roles.storageTableDataContributor]

// A certificate whose key may leave the vault is read as a secret, as are the destinations' secrets. Of one whose key may not, the
// certificate itself is read, and the key signs in the vault.
var appOnVault = concat([roles.keyVaultSecretsUser], signsInVault ? [roles.keyVaultCryptoUser, roles.keyVaultCertificateUser] : [])

// The operator's commands change the ledger.
var operatorOnStorage = concat([roles.storageTableDataContributor], operatorUploads ? [roles.storageBlobDataContributor] : [])

// The operator makes the certificate and stores secrets, and the operator's commands sign in as the app.
var operatorOnVault = concat([roles.keyVaultCertificatesOfficer, roles.keyVaultSecretsOfficer], signsInVault ? [roles.keyVaultCryptoUser] : [])

resource storage 'Microsoft.Storage/storageAccounts@2025-06-01' existing = {
  name: storageName
}

resource vault 'Microsoft.KeyVault/vaults@2025-05-01' existing = {
  name: vaultName
}

resource insights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: insightsName
}

resource appStorageRoles 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for role in appOnStorage: {
  scope: storage
  name: guid(storage.id, appPrincipalId, role)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', role)
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
  }
}]

resource appVaultRoles 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for role in appOnVault: {
  scope: vault
  name: guid(vault.id, appPrincipalId, role)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', role)
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
  }
}]

resource appInsightsRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: insights
  name: guid(insights.id, appPrincipalId, roles.monitoringMetricsPublisher)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.monitoringMetricsPublisher)
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource operatorStorageRoles 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for role in operatorOnStorage: if (!empty(operatorId)) {
  scope: storage
  name: guid(storage.id, operatorId, role)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', role)
    principalId: operatorId
    principalType: operatorType
  }
}]

resource operatorVaultRoles 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for role in operatorOnVault: if (!empty(operatorId)) {
  scope: vault
  name: guid(vault.id, operatorId, role)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', role)
    principalId: operatorId
    principalType: operatorType
  }
}]
