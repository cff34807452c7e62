// One page to look at: sign-ups, delay and outcome by destination, detectors, backlog, the last census.

@description('The beginning of its name.')
param name string

@description('Where it is.')
param location string

@description('Its tags.')
param tags object

@description('The Application Insights component that it asks.')
param insightsId string

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid(resourceGroup().id, name)
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    displayName: name
    category: 'workbook'
    sourceId: insightsId
    serializedData: replace(loadTextContent('../workbook.json'), '<insights>', insightsId)
  }
}
