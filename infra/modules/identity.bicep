// The Function App's identity. User-assigned, so that it has its roles before the app exists, keeps them when the app is made
// anew, and can be trusted by an app registration.

@description('Its name.')
param name string

@description('Where it is.')
param location string

@description('Its tags.')
param tags object

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: name
  location: location
  tags: tags
}

output name string = identity.name
output clientId string = identity.properties.clientId
output principalId string = identity.properties.principalId
