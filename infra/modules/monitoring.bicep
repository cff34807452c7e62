// Where logs go. Both take them by Entra identity only, so that the connection string in the app's settings is no secret.

@description('The beginning of the names.')
param name string

@description('Where they are.')
param location string

@description('Their tags.')
param tags object

@description('How many days logs are kept.')
param logDays int

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-07-01' = {
  name: 'log-${name}'
  location: location
  tags: tags
  properties: {
    sku: { name: 'PerGB2018' }
    retentionInDays: logDays
    features: {
      disableLocalAuth: true
      enableLogAccessUsingOnlyResourcePermissions: true
    }
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: 'appi-${name}'
  location: location
  tags: tags
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: workspace.id
    DisableLocalAuth: true
  }
}

// Tables of Application Insights keep their own 90 days, whatever the workspace says. These have object ids.
//
// The check that needs no Bicep compiler does not know this type (BCP081); the compiler, in the deployment workflow, checks it.
@batchSize(1)
#disable-next-line BCP081
resource tables 'Microsoft.OperationalInsights/workspaces/tables@2025-02-01' = [for table in ['AppTraces', 'AppExceptions', 'AppRequests']: {
  parent: workspace
  name: table
  properties: {
    retentionInDays: logDays
    totalRetentionInDays: logDays
  }
}]

output workspaceId string = workspace.id
output insightsId string = insights.id
output insightsName string = insights.name
