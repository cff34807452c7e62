// A virtual network of the app's own, in which storage account and vault have private endpoints. What the program calls outside of
// it, Graph and the destinations, it calls as before; for a fixed address put a NAT gateway on the subnet "functions".
//
// The check that needs no Bicep compiler knows nothing of Microsoft.Network and would warn of each of these types (BCP081); the
// compiler, in the deployment workflow, checks them.

@description('The beginning of the names.')
param name string

@description('Where everything is.')
param location string

@description('The tags.')
param tags object

@description('The network\'s address range, a /24.')
param addressRange string

@description('The storage account.')
param storageId string

@description('The Key Vault.')
param vaultId string

var endpoints = [
  { service: 'blob', target: storageId, zone: 'privatelink.blob.${environment().suffixes.storage}' }
  { service: 'table', target: storageId, zone: 'privatelink.table.${environment().suffixes.storage}' }
  { service: 'vault', target: vaultId, zone: 'privatelink.vaultcore.azure.net' }
]

#disable-next-line BCP081
resource network 'Microsoft.Network/virtualNetworks@2024-07-01' = {
  name: 'vnet-${name}'
  location: location
  tags: tags
  properties: {
    addressSpace: { addressPrefixes: [addressRange] }
    subnets: [
      {
        name: 'functions'
        properties: {
          addressPrefix: cidrSubnet(addressRange, 26, 0)
          delegations: [{ name: 'flex', properties: { serviceName: 'Microsoft.App/environments' } }]
        }
      }
      {
        name: 'endpoints'
        properties: { addressPrefix: cidrSubnet(addressRange, 27, 2) }
      }
    ]
  }
}

#disable-next-line BCP081
resource zones 'Microsoft.Network/privateDnsZones@2020-06-01' = [for e in endpoints: {
  name: e.zone
  location: 'global'
  tags: tags
}]

#disable-next-line BCP081
resource links 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2020-06-01' = [for (e, i) in endpoints: {
  parent: zones[i]
  name: name
  location: 'global'
  tags: tags
  properties: {
    registrationEnabled: false
    virtualNetwork: { id: network.id }
  }
}]

@batchSize(1) // two of them are of one storage account, which takes one change at a time
#disable-next-line BCP081
resource privateEndpoints 'Microsoft.Network/privateEndpoints@2024-07-01' = [for e in endpoints: {
  name: 'pe-${name}-${e.service}'
  location: location
  tags: tags
  properties: {
    subnet: { id: '${network.id}/subnets/endpoints' }
    privateLinkServiceConnections: [
      {
        name: e.service
        properties: { privateLinkServiceId: e.target, groupIds: [e.service] }
      }
    ]
  }
}]

#disable-next-line BCP081
resource names 'Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2024-07-01' = [for (e, i) in endpoints: {
  parent: privateEndpoints[i]
  name: 'default'
  properties: {
    privateDnsZoneConfigs: [{ name: e.service, properties: { privateDnsZoneId: zones[i].id } }]
  }
}]

output functionsSubnetId string = '${network.id}/subnets/functions'
