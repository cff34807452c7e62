// One storage account: the host's locks and keys, the deployed package, and the ledger's tables. No shared keys: every access is
// by identity and role. No queue, since there is none in this program and timers need blobs only.

@description('Its name.')
param name string

@description('Where it is.')
param location string

@description('Its tags.')
param tags object

@description('How it is kept.')
param redundancy string

@description('Reachable from everywhere, by who has a role; otherwise by private endpoints only.')
param public bool

resource account 'Microsoft.Storage/storageAccounts@2025-06-01' = {
  name: name
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: redundancy }
  properties: {
    accessTier: 'Hot'
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    publicNetworkAccess: public ? 'Enabled' : 'Disabled'
    networkAcls: {
      defaultAction: public ? 'Allow' : 'Deny'
      bypass: 'AzureServices'
    }
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2025-06-01' = {
  parent: account
  name: 'default'
  properties: {
    deleteRetentionPolicy: { enabled: true, days: 7 }
  }
}

resource packages 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-06-01' = {
  parent: blobs
  name: 'packages'
  properties: { publicAccess: 'None' }
}

resource tableService 'Microsoft.Storage/storageAccounts/tableServices@2025-06-01' = {
  parent: account
  name: 'default'
}

// The ledger. The program would make the tables itself; here they are so that a role on them can be given before the first run.
resource ledger 'Microsoft.Storage/storageAccounts/tableServices/tables@2025-06-01' = [for table in ['signups', 'state']: {
  parent: tableService
  name: table
}]

output id string = account.id
output name string = account.name
output packageContainer string = packages.name
