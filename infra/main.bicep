// Everything that signup-sync needs in Azure, in one resource group. What lies in the External ID tenant, the app
// registration, is made apart from this: one deployment cannot span two tenants.
targetScope = 'resourceGroup'

@description('The beginning of every name: 3 to 20 lower-case letters, digits and hyphens.')
@minLength(3)
@maxLength(20)
param name string = 'signup-sync'

@description('Where everything is. The plan must be offered there: az functionapp list-flexconsumption-locations.')
param location string = resourceGroup().location

@description('Tags of every resource.')
param tags object = {}

@description('The External ID tenant, a GUID.')
@minLength(36)
@maxLength(36)
param entraTenantId string

@description('The application id of the app registration in that tenant. Empty as long as there is none: the first deployment makes the vault that its certificate comes from. Until then every run fails, and says why.')
param entraClientId string = ''

@description('How the program proves to the tenant that it is this app: by a certificate from the Key Vault, or by the identity of the Function App, whose trust an External ID tenant may refuse (infra/README.md).')
@allowed(['certificate', 'federated'])
param credential string = 'certificate'

@description('The certificate\'s name in the Key Vault.')
param certificateName string = 'signup-sync'

@description('The certificate\'s key never leaves the Key Vault, which signs for the program; the app may use the vault\'s keys then. False is for a certificate whose policy says exportable.')
param certificateStaysInVault bool = true

@description('App settings that destinations read, and the names of the secrets in the Key Vault that are their values, such as { STRIPE_API_KEY: \'stripe-api-key\' }. The secrets themselves are put into the vault by hand.')
param vaultSettings object = {}

@description('App settings that destinations read and that are no secrets, such as { AUDIENCE: \'1a2b3c\' }.')
param settings object = {}

@description('When sign-ups are looked for: NCRONTAB with six fields, UTC.')
param syncSchedule string = '0 * * * * *'

@description('When the census goes on; with one less than a day old it does nothing.')
param censusSchedule string = '0 */15 * * * *'

@description('flex is Flex Consumption. consumption is the classic plan on Linux, for regions or subscriptions without Flex: it has no virtual network, no choice of memory, a package that is put into storage by hand, no new features, and it ends on 30 September 2028.')
@allowed(['flex', 'consumption'])
param plan string = 'flex'

@description('Memory of an instance in MB, on Flex. The program needs a few dozen, the Functions host most of the rest.')
@allowed([512, 2048, 4096])
param instanceMemoryMB int = 512

@description('How the ledger is kept: in one building, in three of them, or in another region as well. A ledger that is lost can be made again by a census.')
@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_GZRS'])
param storageRedundancy string = 'Standard_LRS'

@description('Nobody can delete the vault for good for 90 days. Once on it stays on, and the vault\'s name stays taken; off is for trials.')
param purgeProtection bool = true

@description('A virtual network of its own with private endpoints for the storage account and the vault, which then have no public ones. Flex only.')
param privateNetwork bool = false

@description('The address range of that network, a /24.')
param networkRange string = '10.61.0.0/24'

@description('Who makes the certificate, stores the secrets and runs the operator\'s commands: the object id of a person, a group or a service principal in the subscription\'s tenant. Empty is nobody.')
param operatorId string = ''

@description('What operatorId is.')
@allowed(['User', 'Group', 'ServicePrincipal'])
param operatorType string = 'User'

@description('Who gets the alerts by e-mail. With none they show in the portal only.')
param alertEmails array = []

@description('Without a good run for so many minutes there is an alert.')
@allowed([15, 30, 45, 60, 120, 180])
param quietMinutes int = 30

@description('How many days logs are kept; they hold object ids of users, and nothing else of them.')
@minValue(30)
@maxValue(730)
param logDays int = 30

var unique = uniqueString(resourceGroup().id, name)
var flex = plan == 'flex'
var private = privateNetwork && flex

module identity 'modules/identity.bicep' = {
  name: 'identity'
  params: {
    name: 'id-${name}'
    location: location
    tags: tags
  }
}

module monitoring 'modules/monitoring.bicep' = {
  name: 'monitoring'
  params: {
    name: name
    location: location
    tags: tags
    logDays: logDays
  }
}

module storage 'modules/storage.bicep' = {
  name: 'storage'
  params: {
    name: 'st${unique}'
    location: location
    tags: tags
    redundancy: storageRedundancy
    public: !private
  }
}

module keyvault 'modules/keyvault.bicep' = {
  name: 'keyvault'
  params: {
    name: 'kv-${unique}'
    location: location
    tags: tags
    purgeProtection: purgeProtection
    public: !private
    workspaceId: monitoring.outputs.workspaceId
  }
}

module rbac 'modules/rbac.bicep' = {
  name: 'rbac'
  params: {
    appPrincipalId: identity.outputs.principalId
    storageName: storage.outputs.name
    vaultName: keyvault.outputs.name
    insightsName: monitoring.outputs.insightsName
    signsInVault: credential == 'certificate' && certificateStaysInVault
    operatorId: operatorId
    operatorType: operatorType
    operatorUploads: !flex
  }
}

module network 'modules/network.bicep' = if (private) {
  name: 'network'
  params: {
    name: name
    location: location
    tags: tags
    addressRange: networkRange
    storageId: storage.outputs.id
    vaultId: keyvault.outputs.id
  }
}

module functionapp 'modules/functionapp.bicep' = {
  name: 'functionapp'
  params: {
    name: '${name}-${unique}'
    location: location
    tags: tags
    flex: flex
    instanceMemoryMB: instanceMemoryMB
    subnetId: private ? network!.outputs.functionsSubnetId : ''
    identityName: identity.outputs.name
    storageName: storage.outputs.name
    packageContainer: storage.outputs.packageContainer
    vaultName: keyvault.outputs.name
    insightsName: monitoring.outputs.insightsName
    workspaceId: monitoring.outputs.workspaceId
    entraTenantId: entraTenantId
    entraClientId: entraClientId
    credential: credential
    certificateName: certificateName
    syncSchedule: syncSchedule
    censusSchedule: censusSchedule
    vaultSettings: vaultSettings
    settings: settings
  }
  dependsOn: [rbac] // the app reads its package and the ledger by these roles, from its first start on
}

module alerts 'modules/alerts.bicep' = {
  name: 'alerts'
  params: {
    name: name
    location: location
    tags: tags
    insightsId: monitoring.outputs.insightsId
    emails: alertEmails
    quietMinutes: quietMinutes
  }
}

module workbook 'modules/workbook.bicep' = {
  name: 'workbook'
  params: {
    name: name
    location: location
    tags: tags
    insightsId: monitoring.outputs.insightsId
  }
}

@description('The Function App.')
output functionAppName string = functionapp.outputs.name

@description('The vault for the certificate and the destinations\' secrets.')
output keyVaultName string = keyvault.outputs.name

@description('The certificate\'s name in it.')
output certificateName string = certificateName

@description('The account with the ledger.')
output storageAccountName string = storage.outputs.name

@description('The Function App\'s identity: as application id, for destinations that are reached by identity and for databases …')
output identityClientId string = identity.outputs.clientId

@description('… and as object id, for their role assignments and for a federated credential.')
output identityPrincipalId string = identity.outputs.principalId

@description('What is left to do.')
output nextSteps array = [
  empty(operatorId) ? 'Deploy again with operatorId, or let nobody but a pipeline store secrets: the vault takes none from you as it is.' : 'Roles can take ten minutes to work; a command that is refused until then is repeated.'
  'For each secret: az keyvault secret set --vault-name ${keyvault.outputs.name} --name <name> --file <file>. Those that settings refer to: ${empty(vaultSettings) ? 'none' : join(map(items(vaultSettings), s => s.value), ', ')}.'
  empty(entraClientId) ? 'Make the app registration in tenant ${entraTenantId}, then deploy again with its application id as entraClientId.' : 'The app registration is ${entraClientId} in tenant ${entraTenantId}.'
  'make package'
  flex ? 'az functionapp deployment source config-zip -g ${resourceGroup().name} -n ${functionapp.outputs.name} --src dist/signup-sync.zip' : 'az storage blob upload --auth-mode login --overwrite --account-name ${storage.outputs.name} -c ${storage.outputs.packageContainer} -n signup-sync.zip -f dist/signup-sync.zip, then az functionapp restart -g ${resourceGroup().name} -n ${functionapp.outputs.name}, then az resource invoke-action --action syncfunctiontriggers --ids ${functionapp.outputs.id}'
  'The alerts "no successful run" and "no census" stand until the program has run once: that they end is the proof that they work.'
]
